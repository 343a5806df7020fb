import pytest
import torch
from torch import nn

from effnet.kernels import dispatch
from effnet.native import has_numba
from effnet.nn.depthwise import can_convolve, convolve
from effnet.nn.layers import SameConv2d


def depthwise(size=3, stride=1, *, channels=4, **changes) -> nn.Conv2d:
    options = {"groups": channels, "bias": False, "padding": size // 2} | changes
    return nn.Conv2d(channels, channels, size, stride, **options)


def test_depthwise_convolutions_of_every_stage_can_be_convolved():
    assert all(can_convolve(depthwise(size, stride), "triton") for size in (3, 5) for stride in (1, 2))


@pytest.mark.parametrize(
    "conv",
    [
        depthwise(7),
        depthwise(3, 3),
        depthwise(groups=2),
        depthwise(bias=True),
        depthwise().eval(),
        nn.Identity(),
    ],
    ids=["kernel", "stride", "groups", "bias", "evaluation", "other layer"],
)
def test_what_the_kernels_do_not_know_stays_with_torch(conv):
    assert not can_convolve(conv, "triton")


@pytest.mark.parametrize("size", [7, 8])
def test_mixed_precision_rounds_the_activation_alone(monkeypatch, size):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    torch.manual_seed(0)
    conv = SameConv2d(4, 4, 3, 2, groups=4, bias=False)
    x = torch.randn(2, 4, size, size).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, conv, "triton", padding=conv.padding_of(x))
    out.sum().backward()
    assert (out.dtype, conv.weight.grad.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.float(), conv(x), rtol=0.05, atol=0.05)


def same_layer(size, stride, channels=24):
    torch.manual_seed(0)
    if stride == 1:
        return depthwise(size, channels=channels)
    return SameConv2d(channels, channels, size, stride, groups=channels, bias=False)


def padding_of(conv, x):
    return conv.padding_of(x) if isinstance(conv, SameConv2d) else (conv.padding[0],) * 4


needs_numba = pytest.mark.skipif(not has_numba(), reason="needs the extra 'cpu'")


@needs_numba
@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 1)])
def test_numbas_kernels_compute_what_the_layer_computes(monkeypatch, size, stride, precision):
    from effnet.kernels import depthwise_numba

    calls, compute = [], depthwise_numba.convolve
    monkeypatch.setattr(depthwise_numba, "convolve", lambda *x, **y: (calls.append(x), compute(*x, **y))[1])
    conv = same_layer(size, stride)
    x = torch.randn(2, 24, 8, 7).contiguous(memory_format=torch.channels_last).requires_grad_()
    assert can_convolve(conv, "numba")
    with torch.autocast("cpu", precision, enabled=precision is not None):
        out = convolve(x, conv, "numba", padding=padding_of(conv, x))
    expected = conv(x)
    assert len(calls) == 1
    assert out.dtype == (precision or torch.float32)
    tolerance = 1e-5 if precision is None else 0.03
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)
    found, right = (torch.autograd.grad(y.square().sum(), (x, conv.weight)) for y in (out, expected))
    for one, other in zip(found, right, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).abs().max() <= tolerance * other.abs().max()


@needs_numba
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (9, 1), (3, 3)])
def test_numbas_kernels_leave_other_layers_to_torch(monkeypatch, size, stride):
    from effnet.kernels import depthwise_numba

    monkeypatch.setattr(depthwise_numba, "convolve", None)
    conv = depthwise(size, stride)
    x = torch.randn(1, 4, 9, 9).contiguous(memory_format=torch.channels_last)
    assert torch.equal(convolve(x, conv, "numba", padding=(size // 2,) * 4), conv(x))


def test_without_numba_and_without_kernels_torch_convolves(monkeypatch):
    monkeypatch.setattr("effnet.nn.depthwise.has_numba", lambda: False)
    conv = depthwise()
    assert not any(can_convolve(conv, kernels) for kernels in ("numba", "plain", "triton-norm"))
