"""Gradients of micro-batches where the passes are CUDA graphs; without a GPU, as far as that can be known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from effnet.api import configure
from effnet.training import step
from effnet.training.algorithms import try_algorithms
from effnet.training.batches import noise_batch
from effnet.training.compiling import own_gradients, replays_graphs
from effnet.training.experiment import Experiment
from effnet.training.step import initial_state, set_phase, train_step
from effnet.training.unread import prepare_unread

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def experiment() -> Experiment:
    small = ("model.network=v2-b0", "model.width=0.1", "model.depth=0.2", "data.classes=10")
    stage = ("progressive.stages=1", "progressive.image_size=[32,32]", "train.batch_size=6")
    more = ("data.train_images=100", "train.device=cpu", "train.micro_batch_size=2")
    return prepare_unread(configure(recipe="scratch", changes=(*small, *stage, *more)))


def _after_two_steps(experiment: Experiment) -> dict[str, torch.Tensor]:
    state = initial_state(experiment)
    settings = experiment.schedule.stages[0]
    set_phase(state, experiment, settings, is_head_only=False)
    for _ in range(2):
        train_step(state, noise_batch(experiment, settings, 6), experiment)
    return state.model.state_dict()


def test_gradients_of_micro_batches_have_their_own_memory_where_graphs_are_replayed(experiment, monkeypatch):
    plain = _after_two_steps(experiment)
    begun, owned = [], []
    monkeypatch.setattr(step, "replays_graphs", lambda config, device: True)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(len(owned)))
    monkeypatch.setattr(step, "own_gradients", lambda model: (owned.append(1), own_gradients(model)))
    replayed = _after_two_steps(experiment)
    assert begun == [1, 1, 1, 2, 2, 2]  # Each of three micro-batches, behind the memory of its step.
    assert all(torch.equal(plain[name], value) for name, value in replayed.items())


def test_a_whole_batch_needs_no_memory_for_its_sum(experiment, monkeypatch):
    monkeypatch.setattr(step, "replays_graphs", lambda config, device: True)
    monkeypatch.setattr(step, "own_gradients", lambda model: pytest.fail("nothing is added up"))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    train = replace(experiment.config.train, micro_batch_size=0)
    _after_two_steps(replace(experiment, config=replace(experiment.config, train=train)))


def test_what_a_backward_pass_adds_to_is_not_what_it_returns():
    """As a graph that is replayed: every pass returns its gradient in the same memory."""
    memory = torch.empty(3)

    class Replayed(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, gradient):
            return memory.copy_(gradient.expand(3))

    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(torch.ones(3))
    layer.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    own_gradients(layer)
    for scale in (1.0, 2.0):
        (scale * Replayed.apply(layer.weight)).backward()
    assert layer.weight.grad.tolist() == [3.0] * 3
    assert layer.weight.grad.data_ptr() != memory.data_ptr()
    assert layer.frozen.grad is None


def test_graphs_are_replayed_on_a_gpu_only(experiment):
    graphed = replace(experiment.config, train=replace(experiment.config.train, compile="reduce-overhead"))
    assert replays_graphs(graphed, CUDA)
    assert not replays_graphs(graphed, CPU)
    assert not replays_graphs(experiment.config, CUDA)


def test_algorithms_are_tried_where_there_are_few_shapes(experiment, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    stages = experiment.schedule.stages
    try_algorithms(CPU, stages)
    assert not torch.backends.cudnn.benchmark
    try_algorithms(CUDA, stages)
    assert torch.backends.cudnn.benchmark
    try_algorithms(CUDA, [replace(stages[0], image_size=size) for size in range(32, 64)])
    assert not torch.backends.cudnn.benchmark
