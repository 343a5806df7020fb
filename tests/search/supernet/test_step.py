"""One step: in-place distillation, gradients that add up, what changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from effnet.arch import spec_to_json
from effnet.config import ModelConfig
from effnet.search.supernet.envelope import envelope_of
from effnet.search.supernet.step import initial_state, probabilities, sandwich_step
from effnet.training.batches import noise_batch
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.step import mixed_batch, step_seed


@pytest.fixture
def experiment(space, config, tmp_path) -> Experiment:
    path = Path(tmp_path) / "largest.json"
    path.write_text(spec_to_json(envelope_of(space).largest))
    train = replace(config.train, label_smoothing=0.2)
    progressive = replace(config.progressive, dropout_rate=(0.0, 0.0), drop_path_rate=(0.0, 0.0))
    return prepare_experiment(
        replace(config, model=ModelConfig(network=str(path)), train=train, progressive=progressive)
    )


@pytest.fixture
def networks(space) -> list:
    largest = space.spec(space.canonical(tuple(len(one.values) - 1 for one in space.variables)))
    return [largest, space.backbone]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_others_learn_what_the_first_network_says(space, experiment, networks, share):
    state = initial_state(experiment, envelope_of(space))
    batch = noise_batch(experiment, experiment.schedule.stages[0], 8)
    images, targets = mixed_batch(batch, experiment, step_seed(experiment.config.train.seed, 0))
    state.model.zero_grad()
    logits = [state.model(images, spec) for spec in networks]
    first = functional.cross_entropy(logits[0], targets, label_smoothing=0.2)
    second = functional.cross_entropy(logits[1], logits[0].detach().softmax(1))
    third = functional.cross_entropy(logits[1], targets, label_smoothing=0.2)
    torch.autograd.backward((first + share * second + (1 - share) * third) / 2)
    expected = {name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None}

    loss = sandwich_step(state, batch, experiment, networks, distillation=share)
    torch.testing.assert_close(loss, first.detach())
    for name, parameter in state.model.named_parameters():
        assert (parameter.grad is None) == (name not in expected), name
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, expected[name], msg=name)


def test_a_step_changes_weights_and_average_of_what_it_trained(space, experiment, networks):
    state = initial_state(experiment, envelope_of(space))
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    batch = replace(noise_batch(experiment, experiment.schedule.stages[0], 8), step=3)
    sandwich_step(state, batch, experiment, networks, distillation=0.5)
    changed = {
        name for name, tensor in state.model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert "classifier.weight" in changed
    assert any(name.startswith("stages.0.0.fused_mbconv_plain") for name in changed)
    unused = [name for name in changed if ".mbconv_plain." in name or name.startswith("heads.1")]
    assert unused == []
    averages = state.ema.state_dict()
    assert {name for name, tensor in averages.items() if not torch.equal(tensor, before[name])} == changed


def test_micro_batches_give_the_same_loss_but_for_the_norms(space, experiment, networks):
    """Batch norm sees fewer images at once, so a network without it would be needed for equality."""
    batch = noise_batch(experiment, experiment.schedule.stages[0], 8)
    train = replace(experiment.config.train, micro_batch_size=4)
    parts = replace(experiment, config=replace(experiment.config, train=train))
    losses = [
        float(sandwich_step(initial_state(one, envelope_of(space)), batch, one, networks, distillation=0.5))
        for one in (experiment, parts)
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_the_same_step_gives_the_same_weights(space, experiment, networks):
    states = [initial_state(experiment, envelope_of(space)) for _ in range(2)]
    for state in states:
        sandwich_step(
            state,
            noise_batch(experiment, experiment.schedule.stages[1], 8),
            experiment,
            networks,
            distillation=0.5,
        )
    first, second = (state.model.state_dict() for state in states)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_with_a_sigmoid_each_class_is_taught_for_itself():
    logits = torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(probabilities(logits, "sigmoid"), logits.sigmoid())
    assert float(probabilities(logits, "softmax").sum()) == pytest.approx(1.0)
