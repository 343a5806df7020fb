from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effnet.arch import NetworkSpec, StageSpec, network, scale
from effnet.arch.external import ExternalSpec
from effnet.arch.preprocessing import Preprocessing
from effnet.errors import UserError
from effnet.nn import EfficientNet, build_model
from effnet.nn.growing import grow_weights
from effnet.weights import LoadedWeights, load_weights

SHARED = Path(__file__).parents[2].parent / "shared"
WEIGHTS = SHARED / "weights" / "efficientnetv2-b0-imagenet1k.keras-names.safetensors"


def _stage(operation: str, channels: int, repeats: int = 2, **changes: object) -> StageSpec:
    values = {"kernel_size": 3, "stride": 2, "expand_ratio": 1} | changes
    return StageSpec(operation=operation, channels=channels, repeats=repeats, **values)


STAGES = {
    "mbconv": (_stage("mbconv", 16, expand_ratio=4, se_ratio=0.25), _stage("mbconv", 24, kernel_size=5)),
    "mbconv, one block": (_stage("mbconv", 16, 1, stride=1, se_ratio=0.25), _stage("mbconv", 24, 1)),
    "fused": (_stage("fused_mbconv", 16), _stage("fused_mbconv", 24, expand_ratio=3, se_ratio=0.5)),
    "conv": (_stage("conv", 16),),
    "separable": (_stage("separable", 16),),
}


def _spec(stages: tuple[StageSpec, ...], **changes: object) -> NetworkSpec:
    values = {"stem_channels": 8, "head_channels": 32, "image_size": 32, "train_size": 32, "num_classes": 5}
    return NetworkSpec(name="small", stages=stages, **(values | changes))


def _trained(spec: NetworkSpec) -> LoadedWeights:
    """Weights with statistics of all kinds, as training leaves them."""
    torch.manual_seed(3)
    state = EfficientNet(spec).state_dict()
    for name, tensor in state.items():
        if name.endswith(("norm.weight", "running_var")):
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
        elif name.endswith(("norm.bias", "running_mean", "reduce.bias", "expand.bias", "classifier.bias")):
            tensor.copy_(0.3 * torch.randn(tensor.shape))
    return LoadedWeights(state=state, spec=spec, class_names=None, preprocessing=None, origin="test")


def _logits(loaded: LoadedWeights, size: int = 32) -> torch.Tensor:
    images = torch.randn(3, loaded.spec.in_channels, size, size, generator=torch.Generator().manual_seed(1))
    model = EfficientNet(loaded.spec).eval()
    model.load_state_dict(loaded.state)
    with torch.no_grad():
        return model(images)


def _assert_grows(small: LoadedWeights, larger: NetworkSpec) -> LoadedWeights:
    grown = grow_weights(small, larger)
    before, after = _logits(small), _logits(grown)
    assert (before - after).abs().max() < 1e-5 * max(1.0, float(before.abs().max()))
    return grown


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize(
    "by",
    [{"width": 2.0}, {"width": 1.5, "depth": 1.4}, {"width": 3.0, "depth": 2.0}, {"depth": 4.0}],
    ids=str,
)
def test_a_grown_network_computes_the_same(kind, by):
    small = _trained(_spec(STAGES[kind]))
    grown = _assert_grows(small, scale(small.spec, **by))
    count = sum(tensor.numel() for tensor in grown.state.values())
    assert count > sum(tensor.numel() for tensor in small.state.values())


def test_bottlenecks_grow_where_their_activation_changes_nothing_twice():
    stages = (_stage("bottleneck", 32, expand_ratio=4, stride=1), _stage("bottleneck", 64, expand_ratio=4))
    small = _trained(_spec(stages, activation="relu", head_channels=0, stem_pooling=True, stem_kernel_size=7))
    _assert_grows(small, scale(small.spec, width=2.0, depth=1.5))
    smooth = _trained(_spec(stages, head_channels=0))
    _assert_grows(smooth, scale(smooth.spec, width=2.0))
    with pytest.raises(UserError, match="stage 1 has more bottlenecks, which would apply silu once more"):
        grow_weights(smooth, scale(smooth.spec, depth=1.5))


def test_a_block_that_adds_its_input_keeps_the_channels_of_its_input():
    small = _trained(_spec((_stage("mbconv", 8, stride=1, expand_ratio=2), _stage("mbconv", 16))))
    assert next(small.spec.blocks()).has_residual
    _assert_grows(small, scale(small.spec, width=2.0, depth=1.5))


@pytest.mark.parametrize(
    "changes", [{"in_channels": 1}, {"padding": "symmetric"}, {"norm_epsilon": 0.1}], ids=str
)
def test_what_belongs_to_the_weights_stays_theirs(changes):
    small = _trained(_spec(STAGES["mbconv"], **changes))
    larger = replace(_spec(STAGES["mbconv"], num_classes=9), name="larger", head_channels=48)
    grown = _assert_grows(small, larger)
    assert (grown.spec.name, grown.spec.num_classes) == ("larger", 5)
    assert all(getattr(grown.spec, name) == value for name, value in changes.items())
    assert grown.origin == "test, grown into larger"


def test_without_room_to_grow_weights_stay_as_they_are():
    small = _trained(_spec(STAGES["mbconv"]))
    grown = grow_weights(small, small.spec)
    assert list(grown.state) == list(small.state)
    assert all(torch.equal(tensor, small.state[name]) for name, tensor in grown.state.items())


def test_growth_is_drawn_from_its_seed_and_from_nothing_else():
    small = _trained(_spec(STAGES["mbconv, one block"]))
    larger = scale(small.spec, width=1.5, depth=2.0)
    before = torch.get_rng_state()
    one, same, other = (grow_weights(small, larger, seed=seed).state for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_copies_part_when_they_are_trained():
    small = _trained(_spec(STAGES["mbconv"]))
    grown = grow_weights(small, scale(small.spec, width=2.0))
    model = EfficientNet(grown.spec)
    model.load_state_dict(grown.state)
    kernel = model.stem.conv.weight
    pairs = [
        (row, copy) for row in range(8) for copy in range(8, 16) if torch.equal(kernel[row], kernel[copy])
    ]
    assert len(pairs) == 8
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    optimizer.step()
    assert not any(torch.equal(kernel[row], kernel[copy]) for row, copy in pairs)


def test_new_blocks_learn():
    small = _trained(_spec(STAGES["fused"]))
    grown = grow_weights(small, scale(small.spec, depth=2.0))
    model = EfficientNet(grown.spec)
    model.load_state_dict(grown.state)
    torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    assert model.get_submodule("stages.1.3.project.norm").weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("larger", "reason"),
    [
        (_spec(STAGES["conv"]), "it has 1 stages instead of 2"),
        (_spec(STAGES["mbconv"], activation="relu"), "it has the activation relu instead of silu"),
        (_spec(STAGES["mbconv"], stem_channels=4), "it has 4 stem_channels instead of 8 or more"),
        (_spec(STAGES["mbconv"], head_channels=0), "it has 0 head_channels instead of 32 or more"),
        (
            _spec((STAGES["mbconv"][0], _stage("mbconv", 24))),
            "its stage 2 has the kernel_size 3 instead of 5",
        ),
        (
            _spec((_stage("mbconv", 8, expand_ratio=4, se_ratio=0.25), STAGES["mbconv"][1])),
            "its stage 1 has 8 channels instead of 16 or more",
        ),
        (
            _spec((_stage("mbconv", 16, 1, expand_ratio=4, se_ratio=0.25), STAGES["mbconv"][1])),
            "its stage 1 has 1 repeats instead of 2 or more",
        ),
        (
            _spec((_stage("mbconv", 16, expand_ratio=4), STAGES["mbconv"][1])),
            "its stage 1 has 0 channels in squeeze-and-excitation instead of 2 or more",
        ),
    ],
)
def test_a_network_that_cannot_hold_the_old_one_says_why(larger, reason):
    with pytest.raises(UserError) as caught:
        grow_weights(_trained(_spec(STAGES["mbconv"])), replace(larger, name="other"))
    assert str(caught.value) == f"small cannot grow into other: {reason}"


def test_shortcuts_neither_come_nor_go():
    stage = _stage("mbconv", 8, stride=1, expand_ratio=2)
    small = _trained(_spec((stage,)))
    with pytest.raises(UserError, match="its stage 1 would lose a shortcut by its width"):
        grow_weights(small, replace(small.spec, stem_channels=16))
    plain = _trained(_spec((replace(stage, channels=16),)))
    with pytest.raises(UserError, match="its stage 1 would gain a shortcut by its width"):
        grow_weights(plain, replace(plain.spec, stem_channels=16))
    without = _trained(_spec((replace(stage, residual=False),)))
    with pytest.raises(UserError, match="its stage 1 has more blocks, and no shortcuts as which they could"):
        grow_weights(without, scale(without.spec, depth=2.0))


def test_networks_of_timm_do_not_grow():
    external = ExternalSpec(
        name="timm:tinynet", preprocessing=Preprocessing(image_size=20), train_size=16, classifier="fc"
    )
    loaded = replace(_trained(_spec(STAGES["conv"])), spec=external)
    with pytest.raises(
        UserError, match="only EfficientNets can grow, and test holds the weights of timm:tiny"
    ):
        grow_weights(loaded, _spec(STAGES["conv"]))


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the ImageNet weights are not beside this checkout")
def test_the_real_weights_grow():
    spec = network("v2-b0")
    small = load_weights(str(WEIGHTS), spec)
    grown = grow_weights(small, scale(spec, width=1.2, depth=1.4))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (build_model(loaded.spec, weights=loaded).eval()(images) for loaded in (small, grown))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(one.abs().max()))
