import json
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

from effnet.arch import family
from effnet.arch.preprocessing import Preprocessing
from effnet.errors import UserError
from effnet.nn import build_model
from effnet.weights import export_timm, export_torchvision, fit_state, hub, load_weights, save_weights
from effnet.weights.convert import export_state

PREPROCESSING = Preprocessing(image_size=64, interpolation="bicubic", crop_fraction=0.875)
NAME = "timm/tf_efficientnetv2_b0.in1k"


@pytest.fixture(scope="module")
def b0():
    spec = replace(family.network("v2-b0"), num_classes=5)
    return spec, build_model(spec).state_dict()


@pytest.fixture(scope="module")
def folder(b0, tmp_path_factory):
    path = tmp_path_factory.mktemp("timm")
    export_timm(path, b0[1], b0[0], class_names=list("abcde"), preprocessing=PREPROCESSING)
    return path


@pytest.fixture
def cache(monkeypatch, folder):
    """A hub that has one model in its cache and cannot be reached."""

    def download(name: str, file: str) -> str:
        if name != NAME:
            raise LocalEntryNotFoundError("offline")
        if not (folder / file).is_file():
            raise EntryNotFoundError(file)
        return str(folder / file)

    monkeypatch.setattr(hub, "hf_hub_download", download)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_model_of_the_hub_loads_from_the_cache(cache, b0):
    spec, state = b0
    loaded = load_weights(NAME)
    assert_same(loaded.state, state)
    assert (loaded.spec, loaded.preprocessing, loaded.class_names) == (spec, PREPROCESSING, tuple("abcde"))
    assert loaded.origin == NAME


def test_the_real_cache_is_used_without_a_network(monkeypatch, tmp_path, folder, b0):
    commit = "0" * 40
    store = tmp_path / "models--timm--tf_efficientnetv2_b0.in1k"
    (store / "refs").mkdir(parents=True)
    (store / "refs" / "main").write_text(commit)
    (store / "snapshots").mkdir()
    (store / "snapshots" / commit).symlink_to(folder)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert_same(load_weights(NAME).state, b0[1])
    with pytest.raises(
        UserError, match="cannot get 'timm/none' from the Hugging Face hub, and its cache here"
    ):
        load_weights("timm/none")


def test_an_unreachable_hub_says_what_to_do_in_one_line(cache):
    with pytest.raises(UserError, match="give the path of a file of weights, or fetch it once") as caught:
        load_weights("timm/other")
    assert "\n" not in str(caught.value)


def test_an_unknown_model_is_refused(monkeypatch):
    def download(name: str, file: str) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)  # its __init__ needs a response

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(UserError, match="'runs/none' is neither a file here nor a public model"):
        load_weights("runs/none")


def test_other_models_of_the_hub_are_refused(monkeypatch, tmp_path):
    def download(name: str, file: str) -> str:
        if not (tmp_path / file).is_file():
            raise EntryNotFoundError(file)
        return str(tmp_path / file)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"'owner/x' on the hub is no timm model: it has no config\.json"):
        load_weights("owner/x")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        load_weights("owner/x")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"config\.json of owner/x is not JSON"):
        load_weights("owner/x")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(UserError, match=r"config\.json of owner/x: 'resnet18' of timm"):
        load_weights("owner/x")


def test_a_folder_in_timms_form_loads(folder, b0, tmp_path):
    loaded = load_weights(str(folder), family.network("v2-b0"))
    assert_same(loaded.state, b0[1])
    with pytest.raises(
        UserError, match=r"is no folder of weights: it needs config\.json and model\.safetensors or"
    ):
        load_weights(str(tmp_path))


def test_our_own_file_needs_no_network(b0, tmp_path):
    spec, state = b0
    path = tmp_path / "x.safetensors"
    save_weights(path, state, spec, class_names=None, preprocessing=PREPROCESSING, provenance="")
    loaded = load_weights(str(path))
    assert_same(loaded.state, state)
    assert (loaded.spec, loaded.preprocessing) == (spec, PREPROCESSING)


def test_the_carried_constants_win_over_those_asked_for(b0, tmp_path):
    spec, state = b0
    carried = replace(spec, padding="symmetric", norm_epsilon=1e-5, norm_momentum=0.01)
    path = tmp_path / "x.safetensors"
    save_weights(path, state, carried, class_names=None, preprocessing=None, provenance="")
    asked = replace(family.network("v2-b0"), name="mine", dropout_rate=0.5)
    assert load_weights(str(path), asked).spec == replace(carried, name="mine", dropout_rate=0.5)


def test_another_architecture_or_activation_is_an_error(b0, tmp_path):
    spec, state = b0
    path = tmp_path / "x.safetensors"
    save_weights(path, state, spec, class_names=None, preprocessing=None, provenance="")
    with pytest.raises(
        UserError, match=r"x\.safetensors holds the weights of v2-b0, and v2-s has other layers"
    ):
        load_weights(str(path), family.network("v2-s"))
    with pytest.raises(UserError, match="trained with the activation silu, and v2-b0 has relu"):
        load_weights(str(path), replace(spec, activation="relu"))


def test_files_of_other_libraries_bring_their_conventions(tmp_path):
    spec = replace(family.network("v1-b0"), num_classes=5)
    torch.save(export_state(build_model(spec).state_dict(), spec, "torchvision"), tmp_path / "x.pth")
    loaded = load_weights(str(tmp_path / "x.pth"), family.network("v1-b0"))
    assert loaded.spec == replace(spec, padding="symmetric", norm_epsilon=1e-5, norm_momentum=0.1)
    assert loaded.class_names is loaded.preprocessing is None
    with pytest.raises(UserError, match=r"x\.pth: these are not the weights of v1-b1: .*; they fit v1-b0$"):
        load_weights(str(tmp_path / "x.pth"), family.network("v1-b1"))
    with pytest.raises(
        UserError, match=r"x\.pth does not tell which network it belongs to; name the network"
    ):
        load_weights(str(tmp_path / "x.pth"))


def test_a_source_that_is_not_there_is_named(tmp_path):
    for source in (str(tmp_path / "none.safetensors"), "runs/none.pth", "none"):
        with pytest.raises(
            UserError, match=r"there is no file of weights .*give a path that exists, or a name on"
        ):
            load_weights(source)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"x\.safetensors is not a whole safetensors file"):
        load_weights(str(tmp_path / "x.safetensors"))


def test_loaded_weights_fit_a_network_with_other_classes(cache, b0):
    loaded = load_weights(NAME, family.network("v2-b0"))
    model = build_model(replace(loaded.spec, num_classes=3, in_channels=1))
    state = fit_state(
        loaded.state, model.state_dict(), class_names=loaded.class_names, new_class_names=["c", "x", "a"]
    )
    model.load_state_dict(state)
    assert torch.equal(model.classifier.weight[2], b0[1]["classifier.weight"][0])


@pytest.mark.parametrize(("name", "theirs"), [("v1-b0", "efficientnet_b0"), ("mobilenet-v2", "mobilenet_v2")])
def test_torchvision_export_says_how_to_build_the_model(name, theirs, tmp_path):
    spec = replace(family.network(name), num_classes=5, padding="symmetric", norm_epsilon=1e-5)
    state = build_model(spec).state_dict()
    line = export_torchvision(tmp_path / "x.safetensors", state, spec)
    assert line == f"torchvision.models.{theirs}(num_classes=5)"
    assert_same(load_weights(str(tmp_path / "x.safetensors"), spec).state, state)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("v2-b0", {}, "torchvision has no network with the layers of v2-b0; it has v1-b0, "),
        ("v2-s", {}, "torchvision's v2-s has padding symmetric, these weights were trained with same"),
        (
            "v1-b0",
            {"padding": "symmetric"},
            "torchvision's v1-b0 has norm_epsilon 1e-05, these weights .* 0.001",
        ),
        (
            "v2-s",
            {"padding": "symmetric", "activation": "relu"},
            "activation silu and 3 input channels, got relu",
        ),
        ("v2-s", {"padding": "symmetric", "in_channels": 1}, "got silu and 1"),
        ("resnet-50", {"activation": "silu"}, "has the activation relu and 3 input channels, got silu"),
        ("resnet-50", {"norm_epsilon": 1e-3}, "torchvision's resnet-50 has norm_epsilon 1e-05"),
        ("mobilenet-v1", {}, "torchvision has no network with the layers of mobilenet-v1"),
    ],
)
def test_what_torchvision_cannot_build_is_refused(tmp_path, name, changes, message):
    with pytest.raises(UserError, match=message):
        export_torchvision(Path(tmp_path / "x"), {}, replace(family.network(name), **changes))
