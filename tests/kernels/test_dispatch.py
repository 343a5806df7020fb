import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.kernels import batch_norm_act, dispatch, norm_plain

from .conftest import skip_without_interpreter


def activation(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)


def test_without_triton_plain_pytorch_computes_the_same(monkeypatch):
    x = activation(2, 3, 4, 4)
    expected, _, _ = batch_norm_act(x, torch.ones(3), torch.zeros(3), epsilon=1e-3, is_silu=True)
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "effnet.kernels.norm_triton", raising=False)
    dispatch.has_triton.cache_clear()
    try:
        assert not dispatch.runs_on(x)
        found, _, _ = batch_norm_act(x, torch.ones(3), torch.zeros(3), epsilon=1e-3, is_silu=True)
    finally:
        dispatch.has_triton.cache_clear()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("is_interpreted", [True, False])
def test_a_processor_runs_triton_only_in_its_interpreter(monkeypatch, is_interpreted):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", str(int(is_interpreted)))
    assert dispatch.runs_on(activation(2, 3, 4, 4)) == is_interpreted


def test_unfit_tensors_are_left_to_plain_pytorch(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    fit = activation(2, 3, 4, 4)
    assert dispatch.runs_on(fit, None, fit)
    assert not dispatch.runs_on(fit.contiguous())
    assert not dispatch.runs_on(fit, fit.bfloat16())
    assert not dispatch.runs_on(fit.to(torch.int32))
    assert not dispatch.runs_on(fit[:, :, ::2])


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
    is_silu=st.booleans(),
    has_factor=st.booleans(),
    has_offset=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_kernels_and_their_twins_agree(*, shape, seed, is_silu, has_factor, has_offset, dtype):
    skip_without_interpreter()
    from effnet.kernels import norm_triton

    torch.manual_seed(seed)
    x, gradient, identity = (activation(*shape, dtype=dtype) for _ in range(3))
    weight, bias = torch.randn(2, shape[1]).unbind()
    factor = torch.rand(shape[:2]) if has_factor else None
    offset = torch.randn(shape[:2]) if has_offset else None
    upstream = norm_plain.Upstream(gradient=gradient, factor=factor, offset=offset)
    without_offset = norm_plain.Upstream(gradient=gradient, factor=factor)
    results = []
    for passes in (norm_plain, norm_triton):
        found = passes.statistics(x, 1e-3)
        norm = norm_plain.Normalization(
            mean=found.mean, inverse_deviation=found.inverse_deviation, weight=weight, bias=bias
        )
        sums = passes.gradient_sums(x, norm, without_offset, is_silu=is_silu)
        of_images = passes.image_sums(x, norm, gradient)
        results.append(
            (
                found.mean,
                found.variance,
                passes.activate(x, norm, is_silu=is_silu, factor=factor, identity=identity).float(),
                passes.pooled(x, norm),
                of_images,
                *passes.joined_sums(of_images, of_images[1], of_images[2]),
                *sums,
                passes.input_gradient(x, norm, upstream, sums, is_silu=is_silu).float(),
            )
        )
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(*results, rtol=tolerance, atol=20 * tolerance)
