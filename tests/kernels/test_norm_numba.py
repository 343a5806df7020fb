"""Batch norm and what follows it by Numba, against the same in plain PyTorch."""

import pytest
import torch

from effnet.kernels import batch_norm_act, batch_norm_act_squeeze_excite, dispatch

pytest.importorskip("numba", reason="it comes with the extra 'cpu'")
from effnet.kernels import norm_numba

EPSILON = 1e-3
# Odd sizes, channels that are no multiple of 8 or very many, one image, one channel, one pixel.
SHAPES = [
    (2, 7, 5, 3),
    (1, 19, 5, 7),
    (3, 16, 1, 1),
    (2, 1, 4, 5),
    (5, 3, 2, 2),
    (2, 40, 9, 9),
    (1, 1100, 2, 3),
]
TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-9}
SQUEEZED = 3


@pytest.fixture(autouse=True)
def plain_twins(monkeypatch):
    """The operators that are compared with are computed in plain PyTorch."""
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)


@pytest.fixture
def small_blocks(monkeypatch):
    """Small tensors have several blocks, also within an image."""
    monkeypatch.setattr(norm_numba, "_BLOCK", 40)
    norm_numba._blocks.cache_clear()
    yield
    norm_numba._blocks.cache_clear()


def operands(draw, shape, dtype, *, has_residual):
    x = draw(*shape, dtype=dtype) * 3 + 1
    tensors = {"x": x, "weight": draw(shape[1], dtype=dtype), "bias": draw(shape[1], dtype=dtype)}
    tensors |= {"identity": draw(*shape, dtype=dtype)} if has_residual else {}
    keep = draw(shape[0], dtype=dtype).abs() if has_residual else None
    return {name: tensor.requires_grad_() for name, tensor in tensors.items()}, keep


def gated_operands(draw, shape, dtype):
    tensors, _ = operands(draw, shape, dtype, has_residual=False)
    sizes = {
        "reduce_weight": (SQUEEZED, shape[1]),
        "reduce_bias": (SQUEEZED,),
        "expand_weight": (shape[1], SQUEEZED),
        "expand_bias": (shape[1],),
    }
    layers = {name: draw(*size, dtype=dtype) / size[-1] ** 0.5 for name, size in sizes.items()}
    return tensors | {name: layer.requires_grad_() for name, layer in layers.items()}


def assert_same(compute, twin, tensors, upstream, **options):
    found, right = (function(**tensors, epsilon=EPSILON, **options) for function in (compute, twin))
    tolerance = TOLERANCES[upstream.dtype]
    torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance)
    assert found[0].stride() == right[0].stride()
    gradients = [torch.autograd.grad(out, list(tensors.values()), upstream) for out, *_ in (found, right)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("options", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_result_and_gradients_are_those_of_the_twin(draw, small_blocks, shape, dtype, options):
    is_silu, has_residual = options
    tensors, keep = operands(draw, shape, dtype, has_residual=has_residual)
    upstream = draw(*shape, dtype=dtype)
    assert_same(norm_numba.batch_norm_act, batch_norm_act, tensors, upstream, is_silu=is_silu, keep=keep)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gate_and_its_gradients_are_those_of_the_twin(draw, small_blocks, shape, dtype):
    tensors, upstream = gated_operands(draw, shape, dtype), draw(*shape, dtype=dtype)
    assert_same(norm_numba.batch_norm_act_squeeze_excite, batch_norm_act_squeeze_excite, tensors, upstream)
