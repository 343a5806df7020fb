"""Batch norm and what follows it by Numba, against the same in plain PyTorch."""

from types import SimpleNamespace

import pytest
import torch

from effnet.kernels import batch_norm_act, batch_norm_act_squeeze_excite, dispatch

pytest.importorskip("numba", reason="it comes with the extra 'cpu'")
from effnet.kernels import norm_numba, numba_threads
from effnet.native import jit

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


@pytest.mark.parametrize("mean", [1e2, 1e4, -1e5])
def test_a_mean_far_from_zero_does_not_cancel(draw, mean):
    x = draw(4, 5, 9, 9, dtype=torch.float32) + mean
    _, found, variance = norm_numba.batch_norm_act(
        x, torch.ones(5), torch.zeros(5), epsilon=EPSILON, is_silu=False
    )
    torch.testing.assert_close(found.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(
        variance.double(), x.double().var((0, 2, 3), correction=0), rtol=1e-5, atol=0.0
    )


def test_gradients_agree_with_finite_differences(draw):
    tensors, keep = operands(draw, (2, 3, 2, 3), torch.float64, has_residual=True)

    def result(x, weight, bias, identity):
        return norm_numba.batch_norm_act(
            x, weight, bias, epsilon=EPSILON, is_silu=True, keep=keep, identity=identity
        )[0]

    torch.autograd.gradcheck(result, tuple(tensors.values()))
    gated = gated_operands(draw, (2, 3, 2, 3), torch.float64)

    def gated_result(*values):
        named = dict(zip(gated, values, strict=True))
        return norm_numba.batch_norm_act_squeeze_excite(**named, epsilon=EPSILON)[0]

    torch.autograd.gradcheck(gated_result, tuple(gated.values()))


def test_sigmoid_is_exact_to_a_few_units_of_the_last_place_and_has_no_bounds():
    x = torch.cat([torch.linspace(-86, 86, 200_001), torch.tensor([-1e3, 0.0, 1e3, 3e38])])
    norm = norm_numba._Normalization(torch.zeros(1), torch.ones(1), torch.ones(1), torch.zeros(1))
    found = norm_numba._activate(x[:, None, None, None], norm, is_silu=True).flatten()
    exact = x.double() * x.double().sigmoid()
    assert ((found - exact).abs() <= 4 * torch.finfo(torch.float32).eps * exact.abs() + 1e-30).all()


def test_a_number_that_is_none_is_seen_in_the_result(draw):
    x = draw(2, 3, 4, 4, dtype=torch.float32)
    x[0, 1, 2, 2] = torch.nan
    out, _, _ = norm_numba.batch_norm_act(x, torch.ones(3), torch.zeros(3), epsilon=EPSILON, is_silu=True)
    assert out[:, 1].isnan().all()
    assert out[:, [0, 2]].isfinite().all()


def learned(draw):
    """Return results and gradients of layers that are large enough for several threads."""
    found = []
    for shape in ((8, 24, 32, 32), (3, 144, 17, 19)):
        gated, upstream = gated_operands(draw, shape, torch.float32), draw(*shape, dtype=torch.float32)
        out, *statistics = norm_numba.batch_norm_act_squeeze_excite(**gated, epsilon=EPSILON)
        found += [out, *statistics, *torch.autograd.grad(out, list(gated.values()), upstream)]
        tensors, keep = operands(draw, shape, torch.float32, has_residual=True)
        out, *statistics = norm_numba.batch_norm_act(**tensors, epsilon=EPSILON, is_silu=True, keep=keep)
        found += [out, *statistics, *torch.autograd.grad(out, list(tensors.values()), upstream)]
    return found


@pytest.mark.parametrize("has_openmp", [True, False])
def test_the_number_of_threads_changes_no_bit(monkeypatch, has_openmp):
    def draw(*shape, dtype):
        values = torch.randn(shape, generator=generator, dtype=dtype)
        return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values

    generator = torch.Generator().manual_seed(0)
    expected = learned(draw)
    if not has_openmp:
        monkeypatch.setattr(numba_threads, "_torch_threads", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    generator = torch.Generator().manual_seed(0)
    assert all(map(torch.equal, learned(draw), expected))


@pytest.mark.parametrize(
    "error", [RuntimeError("cannot cache function: no locator available"), OSError("no space left on device")]
)
def test_what_is_compiled_need_not_be_kept(monkeypatch, error):
    def refuse(*_, **options):
        if options.get("cache"):
            raise error
        return lambda function: SimpleNamespace(address=7)

    monkeypatch.setattr(jit, "cfunc", refuse)
    assert jit.program(lambda block, arguments: None) == 7
