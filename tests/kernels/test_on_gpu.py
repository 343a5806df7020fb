"""What the other tests do in the interpreter, compiled and at the sizes of real networks."""

import pytest
import torch
from torch.nn import functional

from effnet.kernels import batch_norm_act, batch_norm_act_squeeze_excite, depthwise_conv2d, dispatch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
# Stem, expansion, squeeze-excite stages of V2-S at 300 px and V1-B4 at 380 px; the last has odd numbers.
SHAPES = [(16, 24, 150, 150), (16, 192, 75, 75), (32, 256, 38, 38), (32, 960, 19, 19), (3, 1001, 7, 11)]


def operands(shape, dtype):
    torch.manual_seed(0)
    x = torch.randn(shape, device="cuda", dtype=dtype).to(memory_format=torch.channels_last) * 2 + 1
    identity = torch.randn_like(x)
    weight, bias = torch.randn(2, shape[1], device="cuda").unbind()
    tensors = [tensor.detach().requires_grad_() for tensor in (x, weight, bias, identity)]
    keep = (torch.rand(shape[0], device="cuda") < 0.8) / 0.8
    assert dispatch.runs_on(tensors[0])
    assert not dispatch.is_interpreted()
    return tensors, keep, torch.randn_like(x)


def assert_close(found, right, dtype):
    tolerance = TOLERANCES[dtype]
    for value, correct in zip(found, right, strict=True):
        error = (value.double() - correct.double()).norm() / correct.double().norm()
        assert error < tolerance


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_norm_activation_and_residual_sum(shape, dtype):
    tensors, keep, upstream = operands(shape, dtype)
    x, weight, bias, identity = tensors
    out, _, _ = batch_norm_act(x, weight, bias, epsilon=1e-3, is_silu=True, keep=keep, identity=identity)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    value = functional.silu(functional.batch_norm(exact[0], None, None, *exact[1:3], training=True, eps=1e-3))
    expected = exact[3] + value * keep.double()[:, None, None, None]
    found = (out, *torch.autograd.grad(out, tensors, upstream))
    assert_close(found, (expected, *torch.autograd.grad(expected, exact, upstream.double())), dtype)


@pytest.mark.parametrize("shape", SHAPES[2:], ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_norm_and_squeeze_excite(shape, dtype):
    (x, weight, bias, _), _, upstream = operands(shape, dtype)
    channels, squeezed = shape[1], 24
    layers = [torch.randn(squeezed, channels), torch.randn(squeezed), torch.randn(channels, squeezed)]
    layers = [layer.div(layer.shape[-1] ** 0.5).cuda().requires_grad_() for layer in layers]
    layers.append(torch.zeros(channels, device="cuda", requires_grad=True))
    names = ("reduce_weight", "reduce_bias", "expand_weight", "expand_bias")
    out, _, _ = batch_norm_act_squeeze_excite(
        x, weight, bias, **dict(zip(names, layers, strict=True)), epsilon=1e-3
    )
    tensors = [x, weight, bias, *layers]
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    value = functional.silu(functional.batch_norm(exact[0], None, None, *exact[1:3], training=True, eps=1e-3))
    reduced = functional.silu(functional.linear(value.mean((2, 3)), exact[3], exact[4]))
    expected = value * functional.linear(reduced, exact[5], exact[6]).sigmoid()[:, :, None, None]
    found = (out, *torch.autograd.grad(out, tensors, upstream))
    assert_close(found, (expected, *torch.autograd.grad(expected, exact, upstream.double())), dtype)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_depthwise_convolution(shape, dtype, size, stride):
    (x, *_), _, _ = operands(shape, dtype)
    weight = torch.randn(shape[1], 1, size, size, device="cuda", requires_grad=True)
    out = depthwise_conv2d(x, weight, stride=stride, padding=(1, 2, 1, 2))
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight)]
    padded = functional.pad(exact[0], (1, 2, 1, 2))
    expected = functional.conv2d(padded, exact[1], stride=stride, groups=shape[1])
    upstream = torch.randn_like(out)
    found = (out, *torch.autograd.grad(out, (x, weight), upstream))
    assert_close(found, (expected, *torch.autograd.grad(expected, exact, upstream.double())), dtype)


def test_a_captured_graph_replays_the_kernels():
    (x, weight, bias, _), _, _ = operands((4, 64, 20, 20), torch.bfloat16)
    x = x.detach()

    def run():
        return batch_norm_act(x, weight.detach(), bias.detach(), epsilon=1e-3, is_silu=True)[0]

    run()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        captured = run()
    x.mul_(3).add_(1)
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, run())
