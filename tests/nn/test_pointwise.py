import pytest
import torch
from torch import nn
from torch.nn import functional

from effnet.arch.io import load_spec
from effnet.nn import layers
from effnet.nn.layers import ConvNorm
from effnet.nn.pointwise import can_multiply, multiply

X = torch.randn(2, 12, 5, 3).contiguous(memory_format=torch.channels_last)


def pointwise(in_channels=12, out_channels=20, size=1, stride=1, **changes) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, stride, **({"bias": False} | changes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1, 3), (1, 7, 5, 1, 2), (2, 12, 5, 3, 20), (3, 24, 1, 1, 5), (2, 19, 7, 9, 19)],
    ids=str,
)
def test_products_are_the_convolution_with_its_gradients(shape, layout, dtype):
    torch.manual_seed(0)
    images, channels, height, width, out_channels = shape
    conv = pointwise(channels, out_channels).to(dtype=dtype, memory_format=layout)
    x = torch.randn(images, channels, height, width, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert can_multiply(conv, x, "numba")
    outs = multiply(x, conv), functional.conv2d(x, conv.weight)
    assert outs[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(*outs)
    found, expected = (torch.autograd.grad(out.square().sum(), (x, conv.weight)) for out in outs)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        (pointwise().eval(), X),
        (pointwise(size=3, padding=1), X),
        (pointwise(stride=2), X),
        (pointwise(padding=1), X),
        (pointwise(groups=2), X),
        (pointwise(bias=True), X),
        (nn.Identity(), X),
        (pointwise(), X.contiguous()),
        (pointwise(), X.double()),
        (pointwise().bfloat16(), X.bfloat16()),
        (pointwise(12, 13), X.new_zeros(2, 12, 64, 65).contiguous(memory_format=torch.channels_last)),
    ],
    ids=[
        "evaluation",
        "kernel",
        "stride",
        "padding",
        "groups",
        "bias",
        "other layer",
        "layout",
        "types that differ",
        "rounded type",
        "many pixels into more channels",
    ],
)
def test_other_layers_stay_with_torch(conv, x):
    assert can_multiply(pointwise(), X, "numba")
    assert not can_multiply(conv, x, "numba")


def test_many_pixels_into_fewer_channels_are_multiplied():
    x = X.new_zeros(2, 12, 64, 65).contiguous(memory_format=torch.channels_last)
    assert can_multiply(pointwise(12, 12), x, "numba")


@pytest.mark.parametrize("kernels", ["plain", "triton", "triton-norm"])
def test_only_the_kernels_of_processors_multiply(kernels):
    assert not can_multiply(pointwise(), X, kernels)


def test_mixed_precision_and_compilation_stay_with_torch(monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_multiply(pointwise(), X, "numba")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not can_multiply(pointwise(), X, "numba")


@pytest.mark.parametrize("way", ["forward", "gated", "added"])
def test_a_layer_multiplies_in_each_of_its_ways(monkeypatch, way):
    calls = []
    monkeypatch.setattr(layers, "multiply", lambda x, conv: (calls.append(conv), multiply(x, conv))[1])
    spec = load_spec("v2-b0")
    layer = ConvNorm(spec, 12, 12).to(memory_format=torch.channels_last)
    layer.kernels = "numba"
    more = {
        "forward": (),
        "gated": (layers.SqueezeExcite(spec, 12, 3),),
        "added": (X, layers.StochasticDepth()),
    }[way]
    getattr(layer, way)(X, *more)
    assert calls == [layer.conv]
