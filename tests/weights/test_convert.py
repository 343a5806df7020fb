from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effnet.arch import family
from effnet.errors import UserError
from effnet.nn import build_model
from effnet.weights.convert import detect_scheme, export_state, import_state
from effnet.weights.names import BATCHES, SCHEMES, state_shapes
from effnet.weights.storage import read_tensors

SHARED = Path(__file__).parents[2].parent / "shared"
KERAS_V2_B0 = SHARED / "weights" / "efficientnetv2-b0-imagenet1k.keras-names.safetensors"


def meta_state(spec):
    return {name: torch.empty(shape, device="meta") for name, shape in state_shapes(spec).items()}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_there_and_back_is_the_same_state(tiny, make_state, scheme):
    spec = tiny if scheme != "lukemelas" else replace(tiny, stages=tiny.stages[2:])
    state = make_state(spec)
    exported = export_state(state, spec, scheme)
    assert detect_scheme(exported) == scheme
    back = import_state(exported, spec)
    assert list(back) == list(state)
    has_counters = any(name.endswith(BATCHES) for name in exported)
    for name, tensor in state.items():
        expected = tensor if has_counters or not name.endswith(BATCHES) else torch.zeros_like(tensor)
        assert torch.equal(back[name], expected), name
        assert back[name].dtype == tensor.dtype


PAIRS = [
    *((name, "timm") for name in family.names()),
    *((name, "tf") for name in family.names() if name[0] == "v"),
    ("mobilenet-v2", "torchvision"),
    ("resnet-50", "torchvision"),
]


@pytest.mark.parametrize(("name", "scheme"), PAIRS)
def test_every_network_goes_there_and_back(name, scheme):
    spec = family.network(name)
    state = meta_state(spec)
    exported = export_state(state, spec, scheme)
    imported = import_state(exported, spec)
    assert {key: value.shape for key, value in imported.items()} == {k: v.shape for k, v in state.items()}


def test_half_precision_becomes_single(tiny, make_state):
    half = {name: tensor.half() for name, tensor in make_state(tiny).items() if tensor.ndim}
    assert import_state(half, tiny)["head.conv.weight"].dtype == torch.float32


def test_missing_counters_are_zero(tiny, make_state):
    tensors = export_state(make_state(tiny), tiny, "timm")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(BATCHES)}
    counter = import_state(tensors, tiny)[f"stem.norm.{BATCHES}"]
    assert counter.dtype == torch.int64
    assert counter == 0


def test_other_ends_are_no_difference(tiny, make_state):
    other = replace(tiny, in_channels=1, num_classes=3)
    for scheme in ("timm", "keras"):
        state = import_state(export_state(make_state(other), other, scheme), tiny)
        assert state["stem.conv.weight"].shape == (8, 1, 3, 3)
        assert state["classifier.weight"].shape == (3, 40)


def test_weights_of_another_network_are_refused_in_one_sentence():
    tensors = export_state(meta_state(family.network("v2-b1")), family.network("v2-b1"), "timm")
    with pytest.raises(UserError) as caught:
        import_state(tensors, family.network("v2-b0"))
    message = str(caught.value)
    assert message == (
        "these are not the weights of v2-b0: 96 are unexpected (blocks.0.1.conv.weight, "
        "blocks.0.1.bn1.weight, blocks.0.1.bn1.bias, ...); they fit v2-b1"
    )


def test_differences_in_shape_show_both_shapes_in_the_layout_of_the_file():
    spec = family.network("v1-b1")
    tensors = export_state(meta_state(spec), spec, "keras")
    with pytest.raises(
        UserError, match=r"^these are not the weights of v1-b2: .* have another shape"
    ) as caught:
        import_state(tensors, family.network("v1-b2"))
    assert "top_conv/kernel is [1, 1, 320, 1280] and must be [1, 1, 352, 1408]" in str(caught.value) or (
        "block3a_project_conv/kernel is [1, 1, 144, 40] and must be [1, 1, 144, 48]" in str(caught.value)
    )
    assert str(caught.value).endswith("they fit v1-b1")


def test_missing_tensors_are_named(tiny, make_state):
    tensors = export_state(make_state(tiny), tiny, "timm")
    del tensors["classifier.bias"], tensors["conv_head.weight"]
    with pytest.raises(UserError, match=r"2 tensors are missing \(conv_head.weight, classifier.bias\)$"):
        import_state(tensors, tiny)


def test_unknown_names_are_refused(tiny):
    with pytest.raises(
        UserError, match=r"not the weights of a network of the family .* the names are layer1\.weight$"
    ):
        import_state({"layer1.weight": torch.zeros(3)}, tiny)


@pytest.mark.skipif(not KERAS_V2_B0.is_file(), reason=f"{KERAS_V2_B0.name} is not beside the checkout")
def test_the_file_of_keras_applications_fills_v2_b0():
    spec = family.network("v2-b0")
    tensors = read_tensors(KERAS_V2_B0)
    assert detect_scheme(tensors) == "keras-torch"
    state = import_state(tensors, spec)
    build_model(spec).load_state_dict(state)
    assert torch.equal(state["stages.5.7.depthwise.norm.running_var"], tensors["block6h_bn.running_var"])
