from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from effnet.kernels import batch_norm_act, dispatch, norm

EPSILON = 1e-3
# Odd sizes, channels that are no multiple of 8, one image, one channel, one pixel.
SHAPES = [(2, 7, 5, 3), (1, 19, 5, 7), (3, 16, 1, 1), (2, 1, 4, 5), (1, 5, 9, 11), (5, 3, 2, 2)]
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def layers(x, weight, bias, *, is_silu, keep=None, identity=None):
    """What the operation stands for, layer by layer."""
    value = functional.batch_norm(x, None, None, weight, bias, training=True, eps=EPSILON)
    value = functional.silu(value) if is_silu else value
    value = value if keep is None else value * keep[:, None, None, None]
    return value if identity is None else identity + value


def operands(draw, shape, dtype=torch.float64, *, has_residual=True):
    exact = dispatch.exact_dtype(dtype)
    x = draw(*shape, dtype=dtype) * 3 + 1
    tensors = {"x": x, "weight": draw(shape[1], dtype=exact), "bias": draw(shape[1], dtype=exact)}
    tensors |= {"identity": draw(*shape, dtype=dtype)} if has_residual else {}
    keep = draw(shape[0], dtype=exact) if has_residual else None
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}, keep


def gradients(outputs, tensors, upstream):
    return torch.autograd.grad(outputs, list(tensors.values()), upstream)


@pytest.mark.parametrize(
    ("shape", "is_silu", "has_residual"),
    [(shape, True, True) for shape in SHAPES]
    + [(SHAPES[0], *options) for options in ((True, False), (False, True), (False, False))],
    ids=str,
)
def test_result_and_gradients_are_those_of_the_layers(backend, draw, shape, is_silu, has_residual):
    tensors, keep = operands(draw, shape, has_residual=has_residual)
    out, mean, variance = batch_norm_act(**tensors, epsilon=EPSILON, is_silu=is_silu, keep=keep)
    expected = layers(**tensors, is_silu=is_silu, keep=keep)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(mean, tensors["x"].mean((0, 2, 3)))
    torch.testing.assert_close(variance, tensors["x"].var((0, 2, 3), correction=0))
    assert out.is_contiguous(memory_format=torch.channels_last)
    upstream = draw(*shape)
    torch.testing.assert_close(
        gradients(out, tensors, upstream), gradients(expected, tensors, upstream), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
def test_lower_precision_is_exact_up_to_the_rounding_of_its_results(backend, draw, dtype):
    shape, tolerance = (3, 9, 3, 5), TOLERANCES[dtype]
    tensors, keep = operands(draw, shape, dtype)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in tensors.items()}
    out, mean, _ = batch_norm_act(**tensors, epsilon=EPSILON, is_silu=True, keep=keep)
    expected = layers(**exact, is_silu=True, keep=keep.double())
    assert (out.dtype, mean.dtype) == (dtype, torch.float32)
    upstream = draw(*shape, dtype=dtype)
    found = (out, *gradients(out, tensors, upstream))
    right = (expected, *gradients(expected, exact, upstream.double()))
    for value, correct in zip(found, right, strict=True):
        torch.testing.assert_close(value.double(), correct, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mean", [1e2, 1e4, -1e5])
def test_a_mean_far_from_zero_does_not_cancel(backend, draw, mean):
    x = draw(2, 5, 5, 6, dtype=torch.float32) + mean
    ones, zeros = torch.ones(5), torch.zeros(5)
    out, _, variance = batch_norm_act(x, ones, zeros, epsilon=EPSILON, is_silu=False)
    torch.testing.assert_close(
        variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-3, atol=0.0
    )
    # What remains is the rounding of the mean.
    expected = layers(x.double(), ones.double(), zeros.double(), is_silu=False)
    torch.testing.assert_close(out.double(), expected, rtol=0.0, atol=max(abs(mean) * 2e-7, 1e-5))


def test_gradients_agree_with_finite_differences(backend, draw):
    tensors, keep = operands(draw, (2, 3, 2, 3))

    def result(x, weight, bias, identity):
        return batch_norm_act(x, weight, bias, epsilon=EPSILON, is_silu=True, keep=keep, identity=identity)[0]

    torch.autograd.gradcheck(result, tuple(tensors.values()), fast_mode=backend == "triton")


def test_large_values_neither_overflow_nor_lose_their_gradient(backend):
    x = torch.tensor([-300.0, 300.0]).reshape(2, 1, 1, 1).requires_grad_()
    weight = torch.tensor([500.0], requires_grad=True)
    out, _, _ = batch_norm_act(x, weight, torch.zeros(1), epsilon=EPSILON, is_silu=True)
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 500.0]))
    (gradient,) = torch.autograd.grad(out.sum(), weight)
    torch.testing.assert_close(gradient, torch.tensor([1.0]))


def test_the_gradient_may_come_expanded(backend, draw):
    tensors, keep = operands(draw, (2, 5, 3, 3))
    found = batch_norm_act(**tensors, epsilon=EPSILON, is_silu=True, keep=keep)[0].mean((2, 3)).sum()
    expected = layers(**tensors, is_silu=True, keep=keep).mean((2, 3)).sum()
    torch.testing.assert_close(gradients(found, tensors, None), gradients(expected, tensors, None))


def test_another_layout_is_kept_and_left_to_plain_pytorch(small_tiles, draw):
    x = draw(2, 5, 3, 4).contiguous().requires_grad_()
    assert not dispatch.runs_on(x)
    out, _, _ = batch_norm_act(x, draw(5), draw(5), epsilon=EPSILON, is_silu=True)
    (gradient,) = torch.autograd.grad(out.square().sum(), x)
    assert out.is_contiguous()
    assert gradient.is_contiguous()


def test_statistics_pass_no_gradient(backend, draw):
    tensors, _ = operands(draw, (2, 3, 2, 2), has_residual=False)
    _, mean, variance = batch_norm_act(**tensors, epsilon=EPSILON, is_silu=True)
    assert not mean.requires_grad
    assert not variance.requires_grad


def test_only_the_input_is_kept_for_the_backward_pass(backend, draw):
    tensors, keep = operands(draw, (4, 6, 8, 8), torch.float32)
    kept = []

    def note(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        batch_norm_act(**tensors, epsilon=EPSILON, is_silu=True, keep=keep)
    large = [tensor for tensor in kept if tensor.numel() == tensors["x"].numel()]
    assert [tensor.data_ptr() for tensor in large] == [tensors["x"].data_ptr()]


def test_the_operators_keep_their_promises_to_the_compiler(backend, draw):
    tensors, keep = operands(draw, (2, 3, 3, 2))
    x, weight, bias, identity = tensors.values()
    torch.library.opcheck(norm._norm_act, (x, weight, bias, keep, identity, True, EPSILON))
    torch.library.opcheck(norm._norm_act, (x, weight, bias, None, None, False, EPSILON))
    mean = torch.zeros(3, dtype=x.dtype)
    plain = [tensor.detach() for tensor in (x, x, weight, bias, mean, mean + 1, keep)]
    torch.library.opcheck(norm._norm_act_backward, (*plain, True))


class Sum(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5, 1.0, 2.0]))
        self.bias = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return batch_norm_act(x, self.weight, self.bias, epsilon=EPSILON, is_silu=True, identity=x)[0]


def test_the_compiler_sees_one_operator_and_its_gradient(backend, draw, untyped):
    module, x = Sum(), draw(2, 3, 4, 4, dtype=torch.float32).requires_grad_()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=False)
    found, expected = compiled(x), module(x)
    torch.testing.assert_close(found, expected)
    upstream = draw(2, 3, 4, 4, dtype=torch.float32)
    torch.testing.assert_close(
        torch.autograd.grad(found, x, upstream), torch.autograd.grad(expected, x, upstream)
    )


def test_an_exported_graph_has_the_operator(draw, untyped):
    exported = torch.export.export(Sum(), (draw(2, 3, 4, 4, dtype=torch.float32),))
    targets = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert torch.ops.effnet.norm_act.default in targets


def test_shapes_are_known_without_values():
    x = torch.empty(2, 3, 4, 4, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    parameters = torch.empty(3, device="meta")
    out, mean, _ = batch_norm_act(x, parameters, parameters, epsilon=EPSILON, is_silu=True)
    found = SimpleNamespace(shape=out.shape, dtype=out.dtype, strides=out.stride())
    assert found == SimpleNamespace(shape=x.shape, dtype=x.dtype, strides=x.stride())
    assert (mean.shape, mean.dtype) == ((3,), torch.float32)


@pytest.mark.parametrize("weight", [0.1, 0.01])
def test_moving_statistics_become_those_of_torch(backend, draw, weight):
    layer = torch.nn.BatchNorm2d(9, momentum=weight, dtype=torch.float32)
    moving = layer.running_mean.clone(), layer.running_var.clone()
    for _ in range(3):
        x = draw(2, 9, 3, 4, dtype=torch.float32) * 5 - 2
        layer(x)
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        norm.move_statistics(*moving, mean, variance, weight, 24 / 23)
    torch.testing.assert_close(moving, (layer.running_mean, layer.running_var))


def test_moving_statistics_of_another_type_are_left_to_plain_pytorch(small_tiles, draw):
    moving = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    mean, variance = draw(2, 3, dtype=torch.float32).unbind()
    norm.move_statistics(*moving, mean, variance, 0.25, 1.5)
    torch.testing.assert_close(moving[0], mean.double() * 0.25)
    torch.testing.assert_close(moving[1], 0.75 + variance.double() * 1.5 * 0.25)
