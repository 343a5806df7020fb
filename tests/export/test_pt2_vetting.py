import io
import json
import pickle
import zipfile

import pytest
import torch

from effnet.errors import UserError
from effnet.export.engine import load_engine


class Bomb:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise AssertionError('code of the file has run')",))


@pytest.fixture
def altered(write, tmp_path):
    """Return the archive with one member changed: ``altered("model.json", change)``, or with one more."""

    def archive(ending: str, change=None, *, added: dict[str, bytes] | None = None):
        path = tmp_path / "model.pt2"
        with zipfile.ZipFile(write("pt2", batch_size=0)) as source, zipfile.ZipFile(path, "w") as target:
            names = source.namelist()
            for name in names:
                data = source.read(name)
                if change is not None and name.endswith(ending):
                    data = change(data)
                target.writestr(name, data)
            for name, data in (added or {}).items():
                target.writestr(f"{names[0].partition('/')[0]}/{name}", data)
        return path

    return archive


def replaced(old: str, new: str):
    def change(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return change


def test_what_was_not_changed_is_loaded(altered):
    assert load_engine(altered("none"))(torch.zeros(5, 3, 18, 18)).shape == (5, 3)


def test_a_pickled_tensor_is_refused(altered):
    def change(data: bytes) -> bytes:
        document = json.loads(data)
        for payload in document["config"].values():
            payload["use_pickle"] = True
        return json.dumps(document).encode()

    with pytest.raises(UserError, match="holds use_pickle 'True'"):
        load_engine(altered("model_weights_config.json", change))


def test_sample_inputs_that_are_objects_are_refused(altered):
    def change(data: bytes) -> bytes:
        buffer = io.BytesIO()
        torch.save(Bomb(), buffer)
        return buffer.getvalue()

    with pytest.raises(UserError, match="sample inputs that are no tensors"):
        load_engine(altered("sample_inputs/model.pt", change))


@pytest.mark.parametrize(
    "name",
    [
        "data/constants/opaque_obj_0",
        "data/weights/model.pt",
        "data/aotinductor/model/x.so",
        "models/more.json",
    ],
)
def test_other_members_are_refused(altered, name):
    with pytest.raises(UserError, match=f"the member '.*{name}', which effnet export does not write"):
        load_engine(altered("none", added={name: pickle.dumps(Bomb())}))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("torch.ops.aten.silu.default", "torch.hub.load", "target 'torch.hub.load'"),
        (
            "torch.ops.aten.silu.default",
            "torch.ops.aten.from_file.default",
            "target 'torch.ops.aten.from_file",
        ),
        ("Symbol('s", "__import__('os').system('", "expr_str '__import__"),
        ('"metadata": {}', '"metadata": {"source_fn_stack": "x,os.system"}', "metadata/source_fn_stack"),
        ("builtins.tuple", "collections.namedtuple", "in_spec"),
    ],
)
def test_code_in_the_program_is_refused(altered, old, new, found):
    with pytest.raises(UserError, match=found):
        load_engine(altered("models/model.json", replaced(old, new)))


def test_guards_that_call_something_are_refused(altered):
    def change(data: bytes) -> bytes:
        document = json.loads(data)
        document["guards_code"] = ["__import__('os').getcwd() == 0"]
        return json.dumps(document).encode()

    with pytest.raises(UserError, match="guards_code '__import__"):
        load_engine(altered("models/model.json", change))
