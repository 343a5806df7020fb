import copy
import sys

import numpy as np
import pytest
import torch

from effnet.errors import UserError
from effnet.explanation import METHODS, heat_maps
from effnet.explanation.layers import layer_names, trace
from effnet.explanation.maps import signed_maps
from effnet.explanation.methods import LAYER_METHODS, Effort
from effnet.nn import build_model

QUICK = Effort(window_share=9 / 33, stride_share=6 / 33, steps=8)
ALL = pytest.mark.parametrize("method", METHODS)


@ALL
def test_heat_is_between_0_and_1_at_the_size_of_the_images(model, pixels, classes, method):
    heat = heat_maps(model, pixels, classes, method, effort=QUICK)
    assert heat.shape == (3, 33, 33)
    assert heat.dtype == torch.float32
    assert not heat.requires_grad
    assert 0 <= heat.min() <= heat.max() <= 1
    assert heat.amax((1, 2)).eq(1).all()


@ALL
def test_the_same_twice_is_the_same(model, pixels, classes, method):
    first = heat_maps(model, pixels, classes, method, effort=QUICK)
    assert torch.equal(first, heat_maps(model, pixels, classes, method, effort=QUICK))


@ALL
def test_a_map_does_not_depend_on_its_batch(model, pixels, classes, method):
    together = heat_maps(model, pixels, classes, method, effort=QUICK)
    alone = [
        heat_maps(model, pixels[index : index + 1], classes[index : index + 1], method, effort=QUICK)
        for index in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-3, atol=1e-4)


@ALL
def test_the_network_stays_as_it_was(model, pixels, classes, method):
    model.train()
    model.stages[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = copy.deepcopy(model.state_dict())
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    heat_maps(model, pixels, classes, method, effort=QUICK)
    assert modes == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    grads = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert grads == {"classifier.weight"}
    assert model.classifier.weight.grad.eq(1).all()
    assert not pixels.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


@ALL
def test_maps_can_be_drawn_where_nothing_else_needs_gradients(model, pixels, classes, method):
    usual = heat_maps(model, pixels, classes, method, effort=QUICK)
    model.requires_grad_(False)
    with torch.inference_mode():
        inferred = heat_maps(model, pixels.clone(), classes.clone(), method, effort=QUICK)
    assert torch.equal(usual, inferred)


@ALL
def test_a_mirrored_image_gives_the_mirrored_map(model, pixels, classes, method):
    """Of a network whose kernels are mirrored too; at 33 px all padding is symmetric."""
    mirrored = copy.deepcopy(model)
    for parameter in mirrored.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.flip(3)
    one = heat_maps(model, pixels, classes, method, effort=QUICK)
    other = heat_maps(mirrored, pixels.flip(3), classes, method, effort=QUICK)
    assert one.amax() > 0
    torch.testing.assert_close(other.flip(2), one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "eigen-cam"])
@pytest.mark.parametrize(("label", "corner"), [(1, (4, 18)), (2, (20, 4))])
def test_every_method_finds_what_speaks_for_a_class(spotter, spotted, method, label, corner):
    top, left = corner
    effort = Effort(window_share=0.25, stride_share=0.125, steps=16)
    heat = heat_maps(spotter, spotted, torch.tensor([label]), method, effort=effort)[0]
    inside = torch.zeros_like(heat, dtype=torch.bool)
    # A feature pixel stands for 4 px, and bilinear enlargement reaches as far again.
    inside[max(top - 6, 0) : top + 14, max(left - 6, 0) : left + 14] = True
    assert inside[heat == heat.max()].float().mean() > 0.5
    # Single pixels of the other square, too, may raise the logit, where the network turns from it.
    is_grainy = method == "integrated-gradients"
    assert heat[inside].sum() > (0.55 if is_grainy else 0.75) * heat.sum()
    square = heat[top : top + 8, left : left + 8].mean()
    assert square > (0.15 if is_grainy else 0.4)


def test_eigen_cam_knows_no_class(model, pixels):
    one, other = (heat_maps(model, pixels, torch.full((3,), index), "eigen-cam") for index in (0, 2))
    assert torch.equal(one, other)


def test_cam_is_how_the_logit_is_spread_over_the_image(model, pixels, classes):
    model.eval()
    spread = signed_maps(model, pixels, classes, "cam")
    logits = model(pixels).gather(1, classes[:, None])[:, 0] - model.classifier.bias[classes]
    torch.testing.assert_close(spread.mean((1, 2)), logits, rtol=1e-4, atol=1e-5)


def test_at_the_head_grad_cam_is_cam_over_the_number_of_pixels(model, pixels, classes):
    """With global average pooling and a linear classifier (1610.02391, section 3.1)."""
    by_weights = signed_maps(model, pixels, classes, "cam")
    by_gradients = signed_maps(model, pixels, classes, "grad-cam")
    assert by_weights.shape == (3, 9, 9)
    torch.testing.assert_close(by_gradients * 81, by_weights, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        heat_maps(model, pixels, classes, "cam"), heat_maps(model, pixels, classes, "grad-cam")
    )


def test_without_a_head_convolution_the_last_stage_is_the_head(make_model, pixels, classes):
    model = make_model(head_channels=0)
    for method in LAYER_METHODS - {"cam"}:
        head, stage = (signed_maps(model, pixels, classes, method, layer=name) for name in ("head", "stage2"))
        assert torch.equal(head, stage)
    torch.testing.assert_close(
        signed_maps(model, pixels, classes, "grad-cam") * 81, signed_maps(model, pixels, classes, "cam")
    )


@pytest.mark.parametrize("layer", ["stem", "stage1", "stage2", "head"])
def test_a_trace_has_the_features_of_its_layer_and_the_networks_logits(model, pixels, layer):
    model.eval()
    traced = trace(model, pixels, layer)
    assert torch.equal(traced.features, model.features(pixels)[layer])
    assert torch.equal(traced.logits, model(pixels))
    assert layer_names(model) == tuple(model.features(pixels))


@pytest.mark.parametrize("method", sorted(LAYER_METHODS - {"cam"}))
def test_other_layers_give_other_maps(model, pixels, classes, method):
    maps = [signed_maps(model, pixels, classes, method, layer=layer) for layer in ("stem", "stage1", "head")]
    assert [tuple(found.shape[1:]) for found in maps] == [(17, 17), (9, 9), (9, 9)]
    assert not torch.allclose(maps[1], maps[2])


@pytest.mark.parametrize("name", ["mobilenet-v1", "resnet-50"])
def test_the_networks_of_others_can_be_explained(name):
    model = build_model(name, num_classes=3).eval()
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for method in LAYER_METHODS:
        heat = heat_maps(model, pixels, torch.tensor([2]), method)
        assert heat.shape == (1, 64, 64)
        assert torch.isfinite(heat).all()


def test_networks_of_timm_can_be_explained(fake_timm, pixels):
    model = build_model("timm:tinynet", num_classes=5).eval()
    classes = torch.tensor([0, 4, 2])
    assert layer_names(model)[-1] == "head"
    spread = signed_maps(model, pixels, classes, "cam")
    logits = model(pixels).gather(1, classes[:, None])[:, 0] - model.classifier.bias[classes]
    torch.testing.assert_close(spread.mean((1, 2)), logits, rtol=1e-4, atol=1e-5)
    for method in METHODS:
        assert heat_maps(model, pixels, classes, method, effort=QUICK).shape == (3, 33, 33)
    early = signed_maps(model, pixels, classes, "layer-cam", layer="bn1")
    assert early.shape == (3, 17, 17)


def test_cam_is_refused_where_it_is_not_defined(fake_timm, pixels, classes):
    model = build_model("timm:tinynet", num_classes=5)
    model.body.forward_head = lambda features: features.amax((2, 3))
    with pytest.raises(UserError, match="is more than their mean, so that cam is not defined; use grad-cam"):
        heat_maps(model, pixels, classes, "cam")
    assert heat_maps(model, pixels, classes, "grad-cam").shape == (3, 33, 33)


def test_layers_without_maps_are_refused(fake_timm, pixels, classes):
    model = build_model("timm:tinynet", num_classes=5)
    model.body.forward_features = lambda images: images.flatten(2).mT
    with pytest.raises(UserError, match="are no maps of channels, height and width; give another layer"):
        heat_maps(model, pixels, classes, "grad-cam")


def test_mistakes_are_told(model, pixels, classes):
    with pytest.raises(UserError, match="tiny has no layer 'stage9'; did you mean 'stage"):
        heat_maps(model, pixels, classes, layer="stage9")
    with pytest.raises(
        UserError, match="cam weighs 'head', which the classifier sees, not 'stage1'; use grad"
    ):
        heat_maps(model, pixels, classes, "cam", layer="stage1")
    with pytest.raises(UserError, match="occlusion explains the whole network, not a layer; leave the layer"):
        heat_maps(model, pixels, classes, "occlusion", layer="stage1")


def test_without_captum_the_message_says_what_to_install(model, pixels, classes, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum", None)
    for method in ("occlusion", "integrated-gradients"):
        with pytest.raises(UserError, match=r"need captum: pip install 'effnet\[explain\]'"):
            heat_maps(model, pixels, classes, method)
    for method in LAYER_METHODS:
        assert heat_maps(model, pixels, classes, method).shape == (3, 33, 33)


def test_where_nothing_speaks_for_a_class_the_map_is_empty(spotter):
    grey = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        spotter.classifier.weight[2] = -spotter.features(grey)["head"].mean((0, 2, 3))
    heat = heat_maps(spotter, grey, torch.tensor([2]), "cam")
    assert np.array_equal(heat.numpy(), np.zeros((1, 32, 32), np.float32))
