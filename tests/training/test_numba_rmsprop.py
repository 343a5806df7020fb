import numpy as np
import pytest
import torch
from torch import nn

from effnet.config import OptimizerConfig
from effnet.native import has_numba
from effnet.training.optimizers import (
    RMSpropTF,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    set_learning_rate,
)

from .test_optimizers import transcribed_rmsprop

if not has_numba():
    pytest.skip("Numba is not installed; it comes with the extra 'cpu'", allow_module_level=True)

from effnet.kernels import numba_rmsprop

SHAPES = [(7,), (300, 120), (8, 5, 3, 3), ()]
"""The second one is of several blocks, and the third has its channels last."""
OPTIONS = {"lr": 0.01, "decay": 0.9, "momentum": 0.8, "epsilon": 1e-3}


def parameters(*, generator):
    params = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    params[2].data = params[2].data.contiguous(memory_format=torch.channels_last)
    return params


def give_gradients(params, *, generator):
    for param in params:
        param.grad = torch.empty_like(param).copy_(torch.randn(param.shape, generator=generator))


@pytest.mark.parametrize("mode", ["l2", "decoupled"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_one_pass_equals_a_transcription_of_tensorflows(mode, weight_decay):
    generator = torch.Generator().manual_seed(0)
    params = parameters(generator=generator)
    starts = [param.detach().double().numpy() for param in params]
    gradients, rates = [], np.linspace(0.0, 0.05, 20)
    optimizer = RMSpropTF(
        params, **OPTIONS | {"weight_decay": weight_decay, "weight_decay_mode": mode}, by_numba=True
    )
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        give_gradients(params, generator=generator)
        gradients.append([param.grad.double().numpy() for param in params])
        optimizer.step()
    for param, start, given in zip(params, starts, zip(*gradients, strict=True), strict=True):
        expected = transcribed_rmsprop(start, given, rates, weight_decay=weight_decay, mode=mode)
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_step_differs_from_torchs_operations_by_rounding_alone():
    results = []
    for by_numba in (False, True):
        generator = torch.Generator().manual_seed(0)
        params = parameters(generator=generator)
        optimizer = RMSpropTF(params, **OPTIONS, weight_decay=0.01, by_numba=by_numba)
        give_gradients(params, generator=generator)
        optimizer.step()
        results.append([*params, *(slot for param in params for slot in optimizer.state[param].values())])
    torch.testing.assert_close(*results, rtol=3e-7, atol=3e-8)


def test_updates_depend_neither_on_threads_nor_on_how_weights_are_cut(monkeypatch):
    run = numba_rmsprop.run
    monkeypatch.setattr(numba_rmsprop, "run", lambda *given, elements: run(*given, elements=10**9))
    results = []
    for threads, pieces in ((1, 1), (3, 1), (1, 7)):
        generator = torch.Generator().manual_seed(0)
        whole = torch.randn(4, 70001, generator=generator).abs()
        rows = list(zip(*(tensor.tensor_split(pieces) for tensor in whole), strict=True))
        torch.set_num_threads(threads)
        try:
            numba_rmsprop.update(
                rows, rate=0.1, decay=0.9, momentum=0.8, epsilon=1e-3, shrink=0.99, weight_decay=0.01
            )
        finally:
            torch.set_num_threads(1)
        results.append(whole)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_what_does_not_lie_alike_in_memory_is_updated_by_torch(monkeypatch):
    seen = []
    monkeypatch.setattr(numba_rmsprop, "update", lambda rows, **_: seen.extend(row[0] for row in rows))
    plain, turned, double, still = (nn.Parameter(torch.ones(3, 4)) for _ in range(4))
    double.data = double.data.double()
    plain.grad, double.grad = torch.ones(3, 4), torch.ones(3, 4, dtype=torch.float64)
    turned.grad = torch.ones(4, 3).T
    RMSpropTF([plain, turned, double, still], **OPTIONS, by_numba=True).step()
    assert [param is plain for param in seen] == [True]
    assert (turned != 1).all()
    assert (double != 1).all()
    assert (still == 1).all()


@pytest.mark.parametrize("is_turned", [False, True])
def test_strides_of_sides_of_one_pixel_do_not_matter(is_turned):
    shape = (3, 1, 2, 2) if is_turned else (3, 4, 1, 1)
    last = torch.empty(shape, memory_format=torch.channels_last)
    first = torch.ones(shape)
    assert last.stride() != first.stride()
    assert numba_rmsprop.can_update((first, last))
    turned = torch.ones(3, 2, 2, 2).contiguous(memory_format=torch.channels_last)
    assert numba_rmsprop.can_update((turned, turned))
    assert not numba_rmsprop.can_update((torch.ones(3, 2, 2, 2), turned))


def test_the_optimizer_of_a_run_goes_over_weights_once_and_continues_bit_for_bit(monkeypatch):
    steps = []
    update = numba_rmsprop.update
    monkeypatch.setattr(
        numba_rmsprop, "update", lambda rows, **given: (steps.append(len(rows)), update(rows, **given))
    )
    generator, results = torch.Generator(), []
    for is_interrupted in (False, True):
        generator.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1))
        for param in model.parameters():
            param.data.copy_(torch.randn(param.shape, generator=generator))
        optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.01), 1.0, kernels="numba")
        for step in range(4):
            if is_interrupted and step == 2:
                saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
                optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.01), 1.0, kernels="numba")
                load_optimizer_tensors(optimizer, saved)
            set_learning_rate(optimizer, 0.01)
            give_gradients(model.parameters(), generator=generator)
            optimizer.step()
        results.append([param.detach() for param in model.parameters()])
    assert all(map(torch.equal, *results))
    assert sum(steps) == 2 * 4 * 6


def test_torch_updates_where_kernels_are_plain(monkeypatch):
    monkeypatch.setattr(numba_rmsprop, "update", None)
    model = nn.Linear(2, 2)
    for optimizer in (
        build_optimizer(model, OptimizerConfig(), 1.0),
        build_optimizer(model, OptimizerConfig(), 1.0, kernels="triton"),
    ):
        give_gradients(model.parameters(), generator=torch.Generator())
        optimizer.step()
