"""One step of a supernet: several networks learn from one batch, and their gradients add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from effnet.arch.spec import NetworkSpec, Output
from effnet.data.loader import Batch, Share
from effnet.data.processes import ONE_PROCESS
from effnet.search.supernet.envelope import Envelope
from effnet.search.supernet.network import Supernet
from effnet.training.clipping import clip_gradients
from effnet.training.ema import Ema
from effnet.training.experiment import Experiment
from effnet.training.loss import classification_loss
from effnet.training.optimizers import build_optimizer
from effnet.training.parallel import micro_batches
from effnet.training.step import mixed_batch, set_rates, step_seed, update_average


@dataclass(kw_only=True, slots=True)
class SupernetState:
    """All that a step changes."""

    model: Supernet
    optimizer: Optimizer
    ema: Ema | None
    """None where the moving average is switched off."""
    scaler: GradScaler
    """Of the loss; it does nothing but in fp16."""


def initial_state(experiment: Experiment, envelope: Envelope) -> SupernetState:
    """Return the state before step 0, drawn from the seed."""
    config = experiment.config
    torch.manual_seed(config.train.seed)
    is_last = config.train.memory_format != "contiguous"
    layout = torch.channels_last if is_last else torch.contiguous_format
    model = Supernet(envelope).to(experiment.device).to(memory_format=layout)  # type: ignore[call-overload]
    return SupernetState(
        model=model,
        optimizer=build_optimizer(model, config.optimizer, config.train.backbone_rate),
        ema=Ema(model, decay=config.ema.decay, warmup=config.ema.warmup) if config.ema.decay else None,
        scaler=GradScaler(experiment.device.type, enabled=config.train.precision == "fp16"),
    )


def sandwich_step(
    state: SupernetState,
    batch: Batch,
    experiment: Experiment,
    networks: Sequence[NetworkSpec],
    *,
    distillation: float,
) -> Tensor:
    """Run forward and backward pass of each network and change weights, optimizer and average in place.

    The first network learns from the labels, the others also from what it says of the same images (in-place
    distillation, 1903.05134 section 3.2, where they learn from that alone). Only the first one has dropout
    and drop-path (2003.11142 section 3.2).

    Args:
        state: Of the supernet.
        batch: Images and labels with the settings they were made by.
        experiment: The run.
        networks: The largest first; gradients are the mean over them, so that rates keep their sense.
        distillation: Share of the first network's answer in what the others learn, from 0 to 1.

    Returns:
        The first network's loss, a scalar on the device; it has not been waited for.
    """
    config, total = experiment.config.train, batch.settings.batch_size
    seed = step_seed(config.seed, batch.step)
    torch.manual_seed(seed)
    images, targets = mixed_batch(batch, experiment, seed)
    state.optimizer.zero_grad(set_to_none=True)
    parts = micro_batches(total, ONE_PROCESS, config.micro_batch_size)
    loss = torch.zeros((), device=experiment.device)
    for index in range(parts):
        rows = Share(index, parts).of(len(images))
        part = slice(rows.start, rows.stop)
        weight = len(rows) / total
        mean = _accumulate(
            state, images[part], targets[part], batch, experiment, networks, weight, distillation
        )
        loss += mean * weight
    state.scaler.unscale_(state.optimizer)
    clip_gradients(state.model, config)
    set_rates(state.optimizer, experiment.config, experiment.schedule, batch.step)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    update_average(state.ema, experiment.schedule, batch)
    return loss


def _accumulate(  # noqa: PLR0917 - what a forward pass needs
    state: SupernetState,
    images: Tensor,
    targets: Tensor,
    batch: Batch,
    experiment: Experiment,
    networks: Sequence[NetworkSpec],
    weight: float,
    distillation: float,
) -> Tensor:
    """Leave the gradients of some of the images; return the mean loss of the first network."""
    config, settings, autocast = experiment.config.train, batch.settings, experiment.autocast
    loss, answer = torch.zeros(()), targets
    for place, spec in enumerate(networks):
        rates = (settings.dropout_rate, settings.drop_path_rate) if place == 0 else (0.0, 0.0)
        with torch.autocast(experiment.device.type, autocast, enabled=autocast is not None):
            logits = state.model(images, spec, dropout_rate=rates[0], drop_path_rate=rates[1]).float()
        mean = classification_loss(logits, targets, loss=config.loss, label_smoothing=config.label_smoothing)
        if place and distillation:
            taught = classification_loss(logits, answer, loss=config.loss, label_smoothing=0.0)
            mean = torch.lerp(mean, taught, distillation)
        torch.autograd.backward(state.scaler.scale(mean * (weight / len(networks))))
        if place == 0:
            loss, answer = mean.detach(), probabilities(logits.detach(), config.loss)
    return loss


def probabilities(logits: Float[Tensor, "N K"], output: Output) -> Float[Tensor, "N K"]:
    """Return what a network says of each class, as targets for another one."""
    return logits.softmax(1) if output == "softmax" else logits.sigmoid()
