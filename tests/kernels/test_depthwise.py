import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from effnet.kernels import depthwise, depthwise_conv2d, depthwise_plain, dispatch

from .conftest import skip_without_interpreter

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
# Odd sizes, one image, one channel, one pixel; padding that is symmetric, TensorFlow's, and neither.
CASES = [
    ((2, 5, 7, 6), 3, 1, (1, 1, 1, 1)),
    ((1, 9, 6, 9), 3, 2, (0, 1, 1, 1)),
    ((1, 3, 9, 8), 5, 2, (2, 2, 1, 2)),
    ((1, 10, 5, 4), 5, 1, (2, 2, 2, 2)),
    ((3, 2, 1, 1), 3, 2, (1, 1, 1, 1)),
    ((1, 1, 2, 3), 5, 2, (2, 2, 2, 2)),
    ((1, 2, 7, 7), 3, 2, (0, 0, 2, 0)),
]


def layer(x, weight, *, stride, padding):
    """What the operation stands for."""
    top, bottom, left, right = padding
    padded = functional.pad(x, (left, right, top, bottom))
    return functional.conv2d(padded, weight, stride=stride, groups=x.shape[1])


def operands(draw, shape, size, dtype=torch.float64):
    x, weight = draw(*shape, dtype=dtype), draw(shape[1], size, size, dtype=dispatch.exact_dtype(dtype))
    return x.requires_grad_(), weight[:, None].requires_grad_()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_result_and_gradients_are_those_of_the_layer(backend, draw, case):
    shape, size, stride, padding = case
    tensors = operands(draw, shape, size)
    out = depthwise_conv2d(*tensors, stride=stride, padding=padding)
    expected = layer(*tensors, stride=stride, padding=padding)
    torch.testing.assert_close(out, expected)
    assert out.is_contiguous(memory_format=torch.channels_last)
    upstream = draw(*out.shape)
    torch.testing.assert_close(
        torch.autograd.grad(out, tensors, upstream), torch.autograd.grad(expected, tensors, upstream)
    )


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_lower_precision_is_exact_up_to_the_rounding_of_its_results(backend, draw, dtype):
    shape, size, stride, padding = CASES[1]
    tensors = operands(draw, shape, size, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = depthwise_conv2d(*tensors, stride=stride, padding=padding)
    expected = layer(*exact, stride=stride, padding=padding)
    upstream = draw(*out.shape, dtype=dtype)
    found = (out, *torch.autograd.grad(out, tensors, upstream))
    right = (expected, *torch.autograd.grad(expected, exact, upstream.double()))
    assert [value.dtype for value in found] == [dtype, dtype, torch.float32]
    for value, correct in zip(found, right, strict=True):
        error = (value.double() - correct).abs().max() / correct.abs().max()
        assert error < TOLERANCES[dtype]


@settings(max_examples=5)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    size=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2]),
    is_same=st.booleans(),
    seed=st.integers(0, 99),
)
def test_kernels_and_their_twins_agree(*, shape, size, stride, is_same, seed):
    skip_without_interpreter()
    from effnet.kernels import depthwise_triton

    torch.manual_seed(seed)
    sides = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in shape[2:]]
    if not is_same:
        sides = [size // 2 * 2] * 2
    top, left = (side // 2 for side in sides)
    geometry = depthwise_plain.Geometry(
        kernel_size=size, stride=stride, top=top, bottom=sides[0] - top, left=left, right=sides[1] - left
    )
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], 1, size, size)
    gradient = torch.randn_like(depthwise_plain.convolve(x, weight, geometry))
    results = [
        (
            passes.convolve(x, weight, geometry),
            passes.input_gradient(gradient, weight, geometry, height=shape[2], width=shape[3]),
        )
        for passes in (depthwise_plain, depthwise_triton)
    ]
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_gradients_agree_with_finite_differences(backend, draw):
    tensors = operands(draw, (1, 2, 3, 2), 3)

    def result(x, weight):
        return depthwise_conv2d(x, weight, stride=2, padding=(0, 1, 1, 1))

    torch.autograd.gradcheck(result, tensors, fast_mode=backend == "triton")


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_gradients_that_are_wanted_are_computed(draw, monkeypatch, frozen):
    def refuse(*_, **__):
        raise AssertionError("nobody needs this")

    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    monkeypatch.setattr(depthwise_plain, ("input_gradient", "weight_gradient")[frozen], refuse)
    tensors = operands(draw, (1, 2, 4, 3), 3)
    tensors[frozen].requires_grad_(False)
    depthwise_conv2d(*tensors, stride=1, padding=(1, 1, 1, 1)).sum().backward()
    assert tensors[1 - frozen].grad is not None


def test_another_layout_is_kept(draw):
    x, weight = operands(draw, (2, 3, 5, 4), 3)
    x = x.detach().contiguous().requires_grad_()
    out = depthwise_conv2d(x, weight, stride=2, padding=(1, 1, 1, 1))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.is_contiguous()
    assert gradient.is_contiguous()


def test_the_operators_keep_their_promises_to_the_compiler(backend, draw, untyped):
    x, weight = operands(draw, (2, 3, 5, 4), 3)
    padding = [0, 1, 1, 1]
    torch.library.opcheck(depthwise._convolve, (x, weight, 2, padding))
    x, weight = x.detach(), weight.detach()
    gradient = torch.randn_like(depthwise_conv2d(x, weight, stride=2, padding=tuple(padding)))
    torch.library.opcheck(depthwise._input_gradient, (gradient, weight, 5, 4, 2, padding))
    torch.library.opcheck(depthwise._weight_gradient, (gradient, x, weight, 2, padding))


@pytest.mark.parametrize(("size", "stride"), [(7, 1), (3, 3)])
def test_other_kernels_and_strides_are_refused(draw, size, stride):
    x, weight = operands(draw, (1, 2, 9, 9), size)
    with pytest.raises(ValueError, match="kernels are 3 x 3 or 5 x 5 and strides 1 or 2, got"):
        depthwise_conv2d(x, weight, stride=stride, padding=(0, 0, 0, 0))
