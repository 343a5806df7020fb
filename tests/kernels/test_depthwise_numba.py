import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.kernels import dispatch
from effnet.native import has_numba

from .test_depthwise import layer

if not has_numba():
    pytest.skip("Numba is not installed; it comes with the extra 'cpu'", allow_module_level=True)

from effnet.kernels import depthwise_numba as numba
from effnet.kernels import depthwise_numba_programs as programs

# One pixel, one channel, full vectors and others; padding as TensorFlow's, symmetric, and neither.
CASES = [
    ((2, 5, 7, 6), 5, 1, (2, 2, 2, 2)),
    ((1, 16, 6, 9), 3, 2, (0, 1, 1, 1)),
    ((3, 40, 9, 8), 5, 2, (2, 2, 1, 2)),
    ((2, 33, 5, 4), 5, 1, (2, 2, 2, 2)),
    ((3, 2, 1, 1), 3, 2, (1, 1, 1, 1)),
    ((1, 1, 2, 3), 5, 2, (2, 2, 2, 2)),
    ((1, 2, 7, 7), 3, 2, (0, 0, 2, 0)),
    ((1, 24, 9, 13), 7, 1, (3, 3, 3, 3)),
    ((1, 8, 4, 5), 5, 1, (1, 3, 4, 0)),
]
MANY_ROWS = ((1, 16, 40, 120), 5, 1, (2, 2, 2, 2))
MANY_ROWS_APART = ((1, 48, 41, 121), 5, 2, (1, 2, 2, 2))


def operands(draw, shape, size, dtype=torch.float32):
    x, weight = draw(*shape, dtype=dtype), draw(shape[1], size, size, dtype=dispatch.exact_dtype(dtype))
    return x.requires_grad_(), weight[:, None].requires_grad_()


def assert_is_the_layer(draw, shape, size, stride, padding, *, dtype=torch.float32):
    """Compare with double precision, by the largest number of each result."""
    tensors = operands(draw, shape, size, dtype)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    out = numba.convolve(*tensors, stride=stride, padding=padding)
    expected = layer(*exact, stride=stride, padding=padding)
    upstream = draw(*out.shape, dtype=dtype)
    found = (out, *torch.autograd.grad(out, tensors, upstream))
    right = (expected, *torch.autograd.grad(expected, exact, upstream.double()))
    assert [value.dtype for value in found] == [dtype, dtype, dispatch.exact_dtype(dtype)]
    for value, correct, tolerance in zip(found, right, TOLERANCES[dtype], strict=True):
        assert value.shape == correct.shape
        assert (value.double() - correct).abs().max() <= tolerance * correct.abs().max()


TOLERANCES = {torch.float32: (1e-6, 1e-6, 1e-5), torch.bfloat16: (1e-2, 5e-3, 1e-5)}


@pytest.mark.parametrize("case", [*CASES, MANY_ROWS, MANY_ROWS_APART], ids=str)
def test_result_and_gradients_are_those_of_the_layer(draw, case):
    assert_is_the_layer(draw, *case)


@pytest.mark.parametrize("case", [CASES[2], CASES[3]], ids=str)
def test_lower_precision_is_exact_up_to_the_rounding_of_its_results(draw, case):
    assert_is_the_layer(draw, *case, dtype=torch.bfloat16)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 50), st.integers(1, 19), st.integers(1, 19)),
    kind=st.sampled_from([(5, 1), (5, 2), (3, 2)]),
    is_same=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_of_any_padding_is_computed(shape, kind, is_same, seed):
    size, stride = kind
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape, dtype):
        values = torch.randn(shape, generator=generator).to(dtype)
        return layout_of_the_kernels(values) if len(shape) == 4 else values

    sides = [size // 2 * 2] * 2
    if is_same:
        sides = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in shape[2:]]
    top, left = (side // 2 for side in sides)
    assert_is_the_layer(draw, shape, size, stride, (top, sides[0] - top, left, sides[1] - left))


def test_gradients_agree_with_finite_differences(draw):
    tensors = operands(draw, (2, 2, 3, 4), 3, torch.float64)

    def result(x, weight):
        return numba.convolve(x, weight, stride=2, padding=(0, 1, 1, 1))

    torch.autograd.gradcheck(result, tensors)


@pytest.mark.parametrize(("size", "stride"), [(5, 1), (3, 2)])
def test_results_do_not_depend_on_the_number_of_threads(draw, monkeypatch, size, stride):
    monkeypatch.setattr(numba, "run", running := Threads(numba.run))
    tensors = operands(draw, (5, 48, 15, 16), size)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            out = numba.convolve(*tensors, stride=stride, padding=(size // 2, 1, 1, 1))
            results.append((out, *torch.autograd.grad(out.square().sum(), tensors)))
        finally:
            torch.set_num_threads(1)
    assert running.most == 3
    assert all(map(torch.equal, *results))


class Threads:
    """Notes by how many threads programs could run."""

    def __init__(self, run):
        self.run, self.most = run, 0

    def __call__(self, address, blocks, arguments, *, elements):
        self.most = max(self.most, min(torch.get_num_threads(), blocks))
        self.run(address, blocks, arguments, elements=10**9)


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_gradients_that_are_wanted_are_computed(draw, monkeypatch, frozen):
    def refuse(*_, **__):
        raise AssertionError("nobody needs this")

    monkeypatch.setattr(numba, ("input_gradient", "weight_gradient")[frozen], refuse)
    tensors = operands(draw, (1, 2, 4, 3), 5)
    tensors[frozen].requires_grad_(False)
    numba.convolve(*tensors, stride=1, padding=(2, 2, 2, 2)).sum().backward()
    assert tensors[1 - frozen].grad is not None


def test_ties_and_what_is_no_number_or_too_large_are_rounded_as_by_torch():
    x = torch.ones(1, 16, 3, 3)
    x[:, :, 1, 1] = 1 + torch.arange(16) / 128
    x[:, 1] = 3e38
    x = layout_of_the_kernels(x.to(torch.bfloat16))
    weight = torch.zeros(16, 1, 3, 3)
    # Half of what is between two numbers; for every other channel the even one is above.
    weight[:, 0, 1, 1], weight[:, 0, 0, 0] = 1, 1 / 256
    weight[1] = -2
    weight[2] = torch.tensor(0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    out = numba.convolve(x, weight, stride=2, padding=(0, 1, 0, 1))
    expected = layer(x.float(), weight, stride=2, padding=(0, 1, 0, 1)).to(torch.bfloat16)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def layout_of_the_kernels(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "size", "stride"),
    [
        (lambda x: x, 3, 1),
        (lambda x: x, 5, 3),
        (lambda x: x, 9, 1),
        (lambda x: x.contiguous(), 5, 1),
        (lambda x: x.half(), 5, 1),
        (lambda x: x.to("meta"), 5, 1),
        (lambda x: layout_of_the_kernels(x.new_zeros(1, 3, 1, programs.BUFFER // 64)), 5, 1),
    ],
    ids=["torch is fast", "stride", "kernel", "layout", "type", "device", "width"],
)
def test_what_torch_has_to_compute_is_left_to_it(draw, change, size, stride):
    x = draw(2, 3, 4, 5, dtype=torch.float32)
    assert numba.can_convolve(x, 5, 1)
    assert not numba.can_convolve(change(x), size, stride)
