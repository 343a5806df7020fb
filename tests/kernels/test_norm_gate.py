import pytest
import torch
from torch.nn import functional

from effnet.kernels import batch_norm_act_squeeze_excite, dispatch, norm_gate

EPSILON = 1e-3
SHAPES = [(2, 7, 5, 3), (1, 9, 5, 7), (3, 16, 1, 1), (2, 1, 4, 5)]
SQUEEZED = 3


def layers(x, weight, bias, *, reduce_weight, reduce_bias, expand_weight, expand_bias):
    """What the operation stands for, layer by layer."""
    value = functional.batch_norm(x, None, None, weight, bias, training=True, eps=EPSILON)
    value = functional.silu(value)
    squeezed = functional.conv2d(
        value.mean((2, 3), keepdim=True), reduce_weight[:, :, None, None], reduce_bias
    )
    gate = functional.conv2d(functional.silu(squeezed), expand_weight[:, :, None, None], expand_bias)
    return value * gate.sigmoid()


def operands(draw, shape, dtype=torch.float64):
    channels, exact = shape[1], dispatch.exact_dtype(dtype)
    tensors = {
        "x": draw(*shape, dtype=dtype) * 2 - 1,
        "weight": draw(channels, dtype=exact),
        "bias": draw(channels, dtype=exact),
        "reduce_weight": draw(SQUEEZED, channels, dtype=exact),
        "reduce_bias": draw(SQUEEZED, dtype=exact),
        "expand_weight": draw(channels, SQUEEZED, dtype=exact),
        "expand_bias": draw(channels, dtype=exact),
    }
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_are_those_of_the_layers(backend, draw, shape):
    tensors, upstream = operands(draw, shape), draw(*shape)
    out, mean, variance = batch_norm_act_squeeze_excite(**tensors, epsilon=EPSILON)
    expected = layers(**tensors)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(mean, tensors["x"].mean((0, 2, 3)))
    torch.testing.assert_close(variance, tensors["x"].var((0, 2, 3), correction=0))
    torch.testing.assert_close(
        torch.autograd.grad(out, list(tensors.values()), upstream),
        torch.autograd.grad(expected, list(tensors.values()), upstream),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
def test_lower_precision_is_exact_up_to_the_rounding_of_its_results(backend, draw, dtype, tolerance):
    shape = (3, 9, 3, 5)
    tensors, upstream = operands(draw, shape, dtype), draw(*shape, dtype=dtype)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        out, _, _ = batch_norm_act_squeeze_excite(**tensors, epsilon=EPSILON)
    expected = layers(**exact)
    found = (out, *torch.autograd.grad(out, list(tensors.values()), upstream))
    right = (expected, *torch.autograd.grad(expected, list(exact.values()), upstream.double()))
    assert [value.dtype for value in found] == [dtype, dtype] + [torch.float32] * 6
    for value, correct in zip(found, right, strict=True):
        torch.testing.assert_close(value.double(), correct, rtol=tolerance, atol=tolerance)


def test_gradients_agree_with_finite_differences(backend, draw):
    tensors = operands(draw, (2, 3, 2, 3))

    def result(*values):
        return batch_norm_act_squeeze_excite(**dict(zip(tensors, values, strict=True)), epsilon=EPSILON)[0]

    torch.autograd.gradcheck(result, tuple(tensors.values()), fast_mode=backend == "triton")


def test_only_input_and_small_tensors_are_kept_for_the_backward_pass(backend, draw):
    tensors = operands(draw, (4, 6, 8, 8), torch.float32)
    kept = []

    def note(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch_norm_act_squeeze_excite(**tensors, epsilon=EPSILON)
    large = [tensor for tensor in kept if tensor.numel() == tensors["x"].numel()]
    assert [tensor.data_ptr() for tensor in large] == [tensors["x"].data_ptr()]


def test_the_operators_keep_their_promises_to_the_compiler(backend, draw):
    tensors = list(operands(draw, (2, 3, 3, 2)).values())
    torch.library.opcheck(norm_gate._norm_act_gate, (*tensors, EPSILON))
    plain = [tensor.detach() for tensor in tensors]
    mean, gate = torch.zeros(3, dtype=torch.float64), (draw(2, 3), draw(2, SQUEEZED), draw(2, 3))
    torch.library.opcheck(
        norm_gate._norm_act_gate_backward, (plain[0].clone(), *plain, mean, mean + 1, *gate)
    )
