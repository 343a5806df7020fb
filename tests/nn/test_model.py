from dataclasses import replace

import pytest
import torch
from torch import nn

from effnet.arch import NetworkSpec, StageSpec, family, load_spec, network_cost
from effnet.nn import EfficientNet, build_model
from effnet.nn import model as model_module
from effnet.nn.blocks import Block
from effnet.nn.layers import Dropout, SameConv2d, StemPool, StochasticDepth, activation
from effnet.nn.model import Checkpointing


def tiny(**changes: object) -> NetworkSpec:
    spec = NetworkSpec(
        name="tiny",
        stages=(
            StageSpec(operation="conv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=2),
            StageSpec(
                operation="fused_mbconv", kernel_size=3, stride=2, expand_ratio=4, channels=8, repeats=2
            ),
            StageSpec(
                operation="mbconv",
                kernel_size=5,
                stride=2,
                expand_ratio=4,
                channels=16,
                repeats=2,
                se_ratio=0.25,
            ),
        ),
        stem_channels=8,
        head_channels=32,
        image_size=32,
        train_size=32,
        num_classes=5,
    )
    return replace(spec, **changes)


@pytest.mark.parametrize("name", [*family.names(), "v1-b4.fused1-3", "v2-s.fused4-6"])
def test_built_network_agrees_with_the_closed_form(name):
    with torch.device("meta"):
        model = build_model(name)
    cost = network_cost(model.spec)
    assert sum(parameter.numel() for parameter in model.parameters()) == cost.params
    buffers = [value for key, value in model.named_buffers() if "running_" in key]
    assert sum(value.numel() for value in buffers) == cost.norm_stats
    modules = dict(model.named_modules())
    assert all(layer.name in modules for layer in cost.layers)


def tiny_classic(**changes: object) -> NetworkSpec:
    """Return a network of bottlenecks and separable convolutions, with a pooled stem and without a head."""
    stages = (
        StageSpec(operation="bottleneck", kernel_size=3, stride=1, expand_ratio=4, channels=16, repeats=2),
        StageSpec(operation="bottleneck", kernel_size=5, stride=2, expand_ratio=2, channels=16, repeats=2),
        StageSpec(operation="separable", kernel_size=3, stride=2, expand_ratio=1, channels=24, repeats=2),
    )
    classic = {"stages": stages, "stem_kernel_size": 7, "stem_pooling": True, "head_channels": 0}
    return tiny(**(classic | changes))


def with_scales(model: EfficientNet) -> EfficientNet:
    """Draw the scales of all norms, of which those of bottlenecks begin at 0."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("make", [tiny, tiny_classic])
@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize("size", [33, 40])
def test_macs_and_activations_agree_with_what_the_network_computes(make, padding, size):
    model = EfficientNet(make(padding=padding)).eval()
    seen = {"macs": 0, "activations": 0}

    def count(module, _inputs, output):
        weights = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        seen["macs"] += output.numel() * weights
        seen["activations"] += output.numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, size, size))
    cost = network_cost(model.spec, size)
    assert seen == {"macs": cost.macs, "activations": cost.activations}


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 2), (1, 3, 2)]
)
def test_same_padding_puts_the_extra_pixel_bottom_right(size, kernel, stride):
    conv = SameConv2d(1, 1, kernel, stride, bias=False)
    conv.weight.data.copy_(torch.arange(kernel * kernel).view(1, 1, kernel, kernel))
    image = torch.rand(1, 1, size, size)
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    padded = torch.zeros(size + total, size + total)
    padded[before : before + size, before : before + size] = image[0, 0]
    count = -(-size // stride)
    expected = torch.stack(
        [
            (
                padded[r * stride : r * stride + kernel, c * stride : c * stride + kernel] * conv.weight[0, 0]
            ).sum()
            for r in range(count)
            for c in range(count)
        ]
    ).view(1, 1, count, count)
    assert after - before in {0, 1}
    torch.testing.assert_close(conv(image), expected)


def test_the_stem_is_pooled_as_the_network_is_padded():
    image = -torch.rand(1, 1, 6, 7)  # zeros of a padding would be the largest
    symmetric, same = (StemPool(tiny(padding=padding))(image) for padding in ("symmetric", "same"))
    infinite = nn.functional.pad(image, (1, 1, 0, 1), value=-torch.inf)  # 6 rows are even, 7 columns odd
    rows, columns = range(0, 6, 2), range(0, 7, 2)
    expected = [[infinite[0, 0, r : r + 3, c : c + 3].max() for c in columns] for r in rows]
    torch.testing.assert_close(same[0, 0], torch.tensor(expected))
    torch.testing.assert_close(symmetric, nn.functional.max_pool2d(image, 3, 2, padding=1))


def test_a_bottleneck_is_that_of_a_resnet():
    model = with_scales(EfficientNet(tiny_classic(padding="symmetric", activation="relu"))).eval()
    block = model.stages[1][0]
    x = torch.randn(2, 16, 9, 9)
    y = torch.relu(block.reduce.norm(block.reduce.conv(x)))
    y = nn.functional.conv2d(y, block.spatial.conv.weight, stride=2, padding=2)
    y = block.project.norm(block.project.conv(torch.relu(block.spatial.norm(y))))
    shortcut = nn.functional.conv2d(x, block.shortcut.conv.weight, stride=2)
    torch.testing.assert_close(block(x), torch.relu(y + block.shortcut.norm(shortcut)))
    assert block.reduce.conv.weight.shape[0] == 8
    assert model.stages[1][1].shortcut is None
    kept = model.stages[1][1]
    branch = kept.project(kept.spatial(kept.reduce(block(x))))
    torch.testing.assert_close(kept(block(x)), torch.relu(block(x) + branch))


def test_a_separable_block_is_activated_twice_and_adds_nothing_where_it_must_not():
    stages = tuple(replace(stage, residual=False) for stage in tiny_classic().stages)
    block = EfficientNet(tiny_classic(stages=stages, activation="relu")).eval().stages[2][1]
    x = torch.randn(2, 24, 5, 5)
    depthwise = nn.functional.conv2d(x, block.depthwise.conv.weight, padding=1, groups=24)
    pointwise = block.project.conv(torch.relu(block.depthwise.norm(depthwise)))
    torch.testing.assert_close(block(x), torch.relu(block.project.norm(pointwise)))


def test_without_residuals_bottlenecks_have_no_shortcut():
    plain = EfficientNet(tiny_classic().with_stages(residual=False))
    assert not any(block.shortcut or block.drop_path for block in plain.modules() if isinstance(block, Block))


def test_drop_path_drops_the_branch_of_a_bottleneck_that_changes_the_shape():
    model = with_scales(EfficientNet(tiny_classic()))
    model.set_drop_path(0.5)
    block = model.stages[1][0]
    assert block.drop_path.rate.item() == pytest.approx(0.5 * 2 / 6)
    block.drop_path.rate.fill_(1 - 1e-7)
    x = torch.randn(4, 16, 8, 8)
    torch.testing.assert_close(block(x), block.act(block.shortcut(x)))


def test_a_network_without_a_head_has_the_last_stage_as_its_head():
    model = EfficientNet(tiny_classic()).eval()
    images = torch.rand(2, 3, 33, 47)
    features = model.features(images)
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == {
        "stem": (8, 17, 24),
        "stage1": (16, 9, 12),
        "stage2": (16, 5, 6),
        "stage3": (24, 3, 3),
        "head": (24, 3, 3),
    }
    assert torch.equal(features["head"], features["stage3"])
    torch.testing.assert_close(model.classify(features["head"]), model(images))


def test_features_name_every_stage_and_lead_to_the_logits():
    model = EfficientNet(tiny()).eval()
    images = torch.rand(2, 3, 33, 47)
    features = model.features(images)
    assert {name: tuple(value.shape[1:]) for name, value in features.items()} == {
        "stem": (8, 17, 24),
        "stage1": (8, 17, 24),
        "stage2": (8, 9, 12),
        "stage3": (16, 5, 6),
        "head": (32, 5, 6),
    }
    torch.testing.assert_close(model.classify(features["head"]), model(images))


def test_switching_the_residual_off_leaves_no_identity():
    with_identity = EfficientNet(tiny())
    without = EfficientNet(tiny().with_stages(residual=False))
    assert any(block.drop_path for block in with_identity.modules() if isinstance(block, Block))
    assert not any(block.drop_path for block in without.modules() if isinstance(block, Block))
    without.load_state_dict(with_identity.state_dict())
    images = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(with_identity.eval()(images), without.eval()(images))


def test_drop_path_rate_grows_with_the_block_index_as_released():
    model = EfficientNet(tiny())
    model.set_drop_path(0.3)
    rates = [m.drop_path.rate.item() for m in model.modules() if isinstance(m, Block) and m.drop_path]
    # Blocks 0, 1, 3 and 5 of 6 keep their shape.
    assert rates == pytest.approx([0.0, 0.3 / 6, 0.3 * 3 / 6, 0.3 * 5 / 6])


def test_stochastic_depth_drops_whole_images_at_its_rate_and_keeps_the_mean():
    layer = StochasticDepth()
    identity, branch = torch.zeros(4000, 1, 2, 2), torch.ones(4000, 1, 2, 2)
    layer.rate.fill_(0.25)
    torch.manual_seed(0)
    output = layer(identity, branch)
    assert output.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (output.amax((1, 2, 3)) == output.amin((1, 2, 3))).all()
    assert output.mean().item() == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(layer.eval()(identity, branch), branch)


def test_dropout_rate_changes_while_running_from_zero():
    layer = Dropout()
    x = torch.ones(100, 100)
    torch.testing.assert_close(layer(x), x)
    layer.rate.fill_(0.5)
    torch.manual_seed(0)
    assert (layer(x) == 0).double().mean().item() == pytest.approx(0.5, abs=0.03)
    layer.rate.fill_(0.0)
    torch.testing.assert_close(layer(x), x)


def test_rates_are_not_part_of_the_weights():
    assert not [name for name in EfficientNet(tiny()).state_dict() if name.endswith("rate")]


@pytest.mark.parametrize("kind", [True, "selective"])
@pytest.mark.parametrize("make", [tiny, tiny_classic])
def test_gradient_checkpointing_changes_neither_gradients_nor_statistics(make, kind):
    def trained(*, gradient_checkpointing: Checkpointing) -> EfficientNet:
        torch.manual_seed(0)
        model = EfficientNet(make(), gradient_checkpointing=gradient_checkpointing)
        model.set_drop_path(0.5)
        torch.manual_seed(1)
        model(torch.rand(4, 3, 32, 32)).square().sum().backward()
        return model

    plain, recomputed = trained(gradient_checkpointing=False), trained(gradient_checkpointing=kind)
    for one, other in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, recomputed.state_dict()[name], msg=name)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(False, []), ("selective", [0, 1, 2, 3, 4]), (True, [0, 1, 2, 3, 4, 5])],
)
def test_selective_checkpointing_recomputes_what_has_large_maps(monkeypatch, kind, expected):
    """Of V2-B0, whose last stage alone has maps of a 32nd of the image."""
    recomputed = []
    monkeypatch.setattr(
        model_module, "checkpoint", lambda block, x, **_: recomputed.append(block) or block(x)
    )
    model = EfficientNet(load_spec("v2-b0"), gradient_checkpointing=kind)
    model(torch.rand(2, 3, 32, 32))
    stages = [next(i for i, stage in enumerate(model.stages) if block in list(stage)) for block in recomputed]
    assert sorted(set(stages)) == expected
    assert len(recomputed) == sum(len(model.stages[stage]) for stage in expected)
    model.eval()(torch.rand(2, 3, 32, 32))
    assert len(recomputed) == len(stages)


def test_initialisation_is_as_released():
    torch.manual_seed(0)
    model = build_model("v1-b0")
    stem, depthwise = model.stem.conv.weight, model.stages[6][0].depthwise.conv.weight
    assert stem.std().item() == pytest.approx((2 / (9 * 32)) ** 0.5, rel=0.1)
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert model.stages[5][1].depthwise.conv.weight.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    bound = 1 / 1000**0.5
    assert model.classifier.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not model.classifier.bias.any()
    assert not any(m.bias.any() for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None)


def test_bottlenecks_begin_as_their_shortcuts():
    scales = {
        name: module.weight.unique().tolist()
        for name, module in EfficientNet(tiny_classic()).named_modules()
        if isinstance(module, nn.BatchNorm2d)
    }
    zero = {f"stages.{stage}.{position}.project.norm" for stage in (0, 1) for position in (0, 1)}
    assert scales == {name: [0.0] if name in zero else [1.0] for name in scales}
    plain = EfficientNet(tiny_classic().with_stages(residual=False))
    assert all(m.weight.all() for m in plain.modules() if isinstance(m, nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["silu", "relu", "relu6", "hard_swish", "leaky_relu", "elu", "mish", "gelu"])
def test_every_activation_is_built_everywhere(name):
    model = EfficientNet(tiny(activation=name))
    kinds = {type(module) for key, module in model.named_modules() if key.endswith(".act")}
    assert kinds == {type(activation(name)), nn.Identity}


def test_batch_norm_follows_the_spec():
    norms = EfficientNet(tiny(norm_epsilon=1e-5, norm_momentum=0.01)).modules()
    assert {(n.eps, n.momentum) for n in norms if isinstance(n, nn.BatchNorm2d)} == {(1e-5, 0.01)}


def test_any_number_of_classes_and_channels():
    model = build_model(tiny(), num_classes=7, in_channels=1).eval()
    assert model(torch.rand(2, 1, 20, 20)).shape == (2, 7)


@pytest.mark.parametrize("make", [tiny, tiny_classic])
def test_the_network_exports_as_a_graph(make):
    model = EfficientNet(make()).eval()
    images = torch.rand(2, 3, 32, 32)
    exported = torch.export.export(model, (images,))
    torch.testing.assert_close(exported.module()(images), model(images))
