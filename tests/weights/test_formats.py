import argparse
import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from effnet.errors import UserError
from effnet.weights.convert import export_state, import_state
from effnet.weights.formats import has_known_ending, is_tensorflow_checkpoint, read_file

TENSORS = {"conv_stem.weight": torch.arange(6.0).reshape(2, 3), "bn1.bias": torch.ones(2)}


def assert_same(found, expected=TENSORS):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors")
    assert_same(read_file(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("ending", ["pth", "pt", "bin", "pth.tar", "ckpt"])
def test_torch_files(tmp_path, ending):
    torch.save(TENSORS, tmp_path / f"x.{ending}")
    assert_same(read_file(tmp_path / f"x.{ending}"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema", "model_ema"])
def test_wrapped_state_dicts_are_unwrapped(tmp_path, wrapper):
    parallel = {f"module.{name}": tensor for name, tensor in TENSORS.items()}
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=0.1), wrapper: parallel}, tmp_path / "x.pth.tar")
    assert_same(read_file(tmp_path / "x.pth.tar"))


def test_averaged_weights_win(tmp_path):
    raw = {name: tensor + 1 for name, tensor in TENSORS.items()}
    torch.save({"state_dict": raw, "state_dict_ema": TENSORS}, tmp_path / "x.pth")
    assert_same(read_file(tmp_path / "x.pth"))


class Executed:
    def __reduce__(self):
        return print, ("this must never run",)


def test_code_in_a_file_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": TENSORS, "hook": Executed()}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds more than tensors, which is never loaded") as caught:
        read_file(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_objects_in_an_npz_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", np.array([Executed()], dtype=object))
    with pytest.raises(UserError, match="holds more than arrays of numbers"):
        read_file(tmp_path / "x.npz")


def test_a_file_without_a_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(UserError, match="holds a list where a state dict is needed"):
        read_file(tmp_path / "x.pth")


@pytest.mark.parametrize("ending", ["safetensors", "pth", "npz"])
def test_damaged_files_are_named(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"\x80\x02 not what it says")
    with pytest.raises(UserError, match=rf"x\.{ending}"):
        read_file(path)


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no file of weights .*none\.pth"):
        read_file(tmp_path / "none.pth")
    (tmp_path / "x.onnx").touch()
    with pytest.raises(
        UserError, match=r"cannot tell what .*x\.onnx is by its ending; allowed: \.safetensors, "
    ):
        read_file(tmp_path / "x.onnx")


def test_npz_of_a_tensorflow_checkpoint_reads_the_averaged_variables(tmp_path, tiny, make_state):
    variables = {
        f"efficientnet/{k}": v.numpy() for k, v in export_state(make_state(tiny), tiny, "tf").items()
    }
    averaged = {f"{k}/ExponentialMovingAverage": v + 1 for k, v in variables.items()}
    slots = {f"{k}/RMSProp": v for k, v in variables.items()} | {"global_step": np.int64(7)}
    np.savez(tmp_path / "x.npz", **variables, **averaged, **slots)
    found = import_state(read_file(tmp_path / "x.npz"), tiny)
    for name, tensor in make_state(tiny).items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found[name], tensor + 1), name


class FakeCheckpoint:
    """What TensorFlow's reader of checkpoints offers."""

    def __init__(self, variables):
        self.variables = variables

    def get_variable_to_shape_map(self):
        return {name: list(value.shape) for name, value in self.variables.items()}

    def get_tensor(self, name):
        return self.variables[name]


@pytest.fixture
def tensorflow(monkeypatch):
    module = types.ModuleType("tensorflow")
    module.train = types.SimpleNamespace(load_checkpoint=None)
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    return module


def test_tensorflow_checkpoint_by_prefix_or_index(tmp_path, tiny, make_state, tensorflow):
    variables = {
        f"efficientnetv2-s/{k}": v.numpy() for k, v in export_state(make_state(tiny), tiny, "tf").items()
    }
    seen = []
    tensorflow.train.load_checkpoint = lambda prefix: seen.append(prefix) or FakeCheckpoint(variables)
    prefix = tmp_path / "model.ckpt-300"
    (tmp_path / "model.ckpt-300.index").touch()
    for path in (prefix, tmp_path / "model.ckpt-300.index"):
        assert is_tensorflow_checkpoint(path)
        state = import_state(read_file(path), tiny)
        assert torch.equal(state["head.conv.weight"], make_state(tiny)["head.conv.weight"])
    assert seen == [str(prefix)] * 2


def test_object_checkpoints_are_refused(tmp_path, tensorflow):
    variables = {"_CHECKPOINTABLE_OBJECT_GRAPH": np.zeros(1), "layer/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(1)}
    tensorflow.train.load_checkpoint = lambda prefix: FakeCheckpoint(variables)
    (tmp_path / "ckpt.index").touch()
    with pytest.raises(UserError, match="checkpoints of TensorFlow 2 objects are not known here"):
        read_file(tmp_path / "ckpt")


@pytest.mark.parametrize(
    ("library", "path", "install"),
    [
        ("h5py", "x.h5", r"pip install 'effnet\[keras\]'"),
        ("tensorflow", "m.ckpt.index", "pip install tensorflow-cpu"),
    ],
)
def test_a_missing_library_is_named_with_how_to_get_it(tmp_path, monkeypatch, library, path, install):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / path).touch()
    with pytest.raises(UserError, match=rf"{library} is needed to read .*{path}: {install}"):
        read_file(tmp_path / path)


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_keras_hdf5(tmp_path, tiny, make_state, root):
    h5py = pytest.importorskip("h5py", reason="h5py is in the extra 'keras'")
    variables = export_state(make_state(tiny), tiny, "keras")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, tensor in variables.items():
            layer, variable = name.split("/")
            old = "depthwise_kernel" if "dwconv" in layer else variable
            file[f"{root}{layer}/{layer}/{old}:0"] = tensor.numpy()
        file[f"{root}normalization/normalization/mean:0"] = np.zeros(3, np.float32)
        if root:
            file["optimizer_weights/stem_conv/momentum:0"] = np.zeros(3, np.float32)
    state = import_state(read_file(tmp_path / "x.h5"), tiny)
    assert torch.equal(
        state["stages.2.0.depthwise.conv.weight"], make_state(tiny)["stages.2.0.depthwise.conv.weight"]
    )


def test_the_nameless_layout_of_keras_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is in the extra 'keras'")
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.zeros(3)
    with pytest.raises(UserError, match="newer layout of Keras, which leaves out the names"):
        read_file(tmp_path / "x.weights.h5")


def test_endings_are_told_apart_from_hub_names(tmp_path):
    assert has_known_ending(tmp_path / "runs" / "x.safetensors")
    assert not has_known_ending(tmp_path / "timm" / "tf_efficientnetv2_s.in21k_ft_in1k")
