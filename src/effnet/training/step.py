"""One training step: a batch in, changed weights out.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from effnet.config import Config
from effnet.data.device_augment import augment_images
from effnet.data.loader import Batch, Share, prepare_images
from effnet.data.mixing import mix_batch
from effnet.nn import Network
from effnet.schedule.learning_rate import decay_factor
from effnet.schedule.points import rate_of_step
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.algorithms import try_algorithms
from effnet.training.allocator import keep_memory
from effnet.training.clipping import clip_gradients
from effnet.training.compiling import compile_network, own_gradients, replays_graphs
from effnet.training.ema import Ema
from effnet.training.experiment import Experiment
from effnet.training.graphs import RecordedPasses, records_passes
from effnet.training.loss import class_targets, classification_loss
from effnet.training.optimizers import build_optimizer, set_learning_rate, set_weight_decay
from effnet.training.parallel import (
    average_statistics,
    gradients_kept,
    join_norms,
    micro_batches,
    shard,
    wrap,
)


@dataclass(kw_only=True, slots=True)
class TrainState:
    """All that a step changes, and what it runs."""

    model: Network
    """The network itself: what is evaluated and saved."""
    runner: nn.Module
    """What a step calls with images: the network, or what wraps it for several processes; see `set_phase`."""
    optimizer: Optimizer
    ema: Ema | None
    """None where the moving average is switched off."""
    scaler: GradScaler
    """Of the loss; it does nothing but in fp16."""
    passes: RecordedPasses | None = None
    """What runs the network where its passes are recorded; None: ``runner``."""
    learning: frozenset[str] = frozenset()
    """The parameters that learn, for which ``runner`` was made."""


def initial_state(experiment: Experiment) -> TrainState:
    """Return the state before step 0."""
    config, processes = experiment.config, experiment.processes
    keep_memory(experiment.device)
    try_algorithms(experiment.device, experiment.schedule.stages)
    model = experiment.build_model()
    join_norms(model, config.distributed, processes)
    if processes.count > 1 and config.distributed.strategy == "fsdp":
        shard(model, processes, experiment.device)
    compile_network(model, config, experiment.schedule.stages)
    return TrainState(
        model=model,
        runner=model,
        optimizer=build_optimizer(
            model,
            config.optimizer,
            config.train.backbone_rate,
            config.train.layer_decay,
            experiment.kernels,
        ),
        ema=Ema(model, decay=config.ema.decay, warmup=config.ema.warmup) if config.ema.decay else None,
        scaler=GradScaler(experiment.device.type, enabled=config.train.precision == "fp16"),
        passes=(
            RecordedPasses(model, partial(_run_pass, model, experiment), experiment.device)
            if records_passes(experiment)
            else None
        ),
    )


def is_head_phase(config: Config, schedule: StageSchedule, step: int) -> bool:
    """Whether only the classifier learns at ``step``."""
    return schedule.epoch(step) < config.train.head_epochs


def set_phase(
    state: TrainState, experiment: Experiment, settings: StageSettings, *, is_head_only: bool
) -> None:
    """Put the network into training mode with the rates of a stage.

    While only the classifier learns, the rest of the network stays as it was loaded: no gradients, no
    drop-path, no moving statistics.
    """
    model = state.model
    model.train()
    model.set_dropout(settings.dropout_rate)
    model.set_drop_path(settings.drop_path_rate)
    for name, child in model.named_children():
        is_trained = name in {"classifier", "dropout"} or not is_head_only
        child.train(is_trained)
        child.requires_grad_(is_trained)
    if experiment.config.train.freeze_norm:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    learning = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    if experiment.processes.count > 1 and learning != state.learning:
        # The old wrapper must be gone, and its hooks with it, before there is another one.
        state.runner, state.learning = model, learning
        state.runner = wrap(model, experiment.config.distributed)


def rate_at(config: Config, schedule: StageSchedule, step: int) -> float:
    """Return the learning rate of the classifier at ``step``."""
    return rate_of_step(config.learning_rate, schedule, step)


def set_rates(optimizer: Optimizer, config: Config, schedule: StageSchedule, step: int) -> None:
    """Give an optimizer the learning rate of ``step``, and the decoupled weight decay that goes with it."""
    set_learning_rate(optimizer, rate_at(config, schedule, step))
    if config.optimizer.weight_decay_mode == "decoupled":
        batch_size = schedule.at(step).batch_size
        factor = decay_factor(config.learning_rate, batch_size, schedule.reference_batch_size)
        set_weight_decay(optimizer, config.optimizer.weight_decay * factor)


def update_average(ema: Ema | None, schedule: StageSchedule, batch: Batch) -> None:
    """Move the average, if there is one, by as much as the images of a step count for."""
    if ema is not None:
        share = batch.settings.batch_size / schedule.reference_batch_size
        ema.update(schedule.reference_step(batch.step), share)


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of all random numbers that one step draws in one process.

    A function of the step and not a generator that runs on: a run that is resumed needs no saved state.
    """
    entropy = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def train_step(state: TrainState, batch: Batch, experiment: Experiment) -> Tensor:
    """Run forward and backward pass and change weights, optimizer and moving average in place.

    Args:
        state: `set_phase` must have been called for the batch's stage.
        batch: This process's images and labels with the settings they were made by.
        experiment: The run.

    Returns:
        What this process's images contribute to the mean loss of the batch, a scalar on the device; it has
        not been waited for.
    """
    config, processes = experiment.config, experiment.processes
    seed = step_seed(config.train.seed, batch.step, processes.rank)
    torch.manual_seed(seed)
    images, targets = mixed_batch(batch, experiment, seed)
    state.optimizer.zero_grad(set_to_none=True)
    loss = _accumulate(state, images, targets, batch.settings.batch_size, experiment)
    state.scaler.unscale_(state.optimizer)
    clip_gradients(state.model, config.train)
    set_rates(state.optimizer, config, experiment.schedule, batch.step)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    average_statistics(state.model, config.distributed, processes)
    update_average(state.ema, experiment.schedule, batch)
    return loss


def rehearse_step(state: TrainState, batch: Batch, experiment: Experiment) -> None:
    """Run forward and backward pass and leave everything as it was; arguments as for `train_step`."""
    buffers = [(buffer, buffer.clone()) for buffer in state.model.buffers()]
    images, targets = mixed_batch(batch, experiment, step_seed(experiment.config.train.seed, batch.step))
    _accumulate(state, images, targets, batch.settings.batch_size, experiment)
    state.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def mixed_batch(batch: Batch, experiment: Experiment, seed: int) -> tuple[Tensor, Tensor]:
    """Return normalised images and the weights of their classes, mixed."""
    config, device = experiment.config, experiment.device
    pixels = batch.images.to(device, non_blocking=True)
    if batch.drawn is not None:
        pixels = augment_images(pixels, batch.drawn)
    is_channels_last = config.train.memory_format != "contiguous"
    images = prepare_images(pixels, experiment.preprocessing, device, channels_last=is_channels_last)
    labels = batch.labels.to(device, non_blocking=True)
    targets = class_targets(labels, experiment.spec.num_classes, config.train.loss)
    return mix_batch(images, targets, batch.settings, config.augment, seed=seed)


def _accumulate(
    state: TrainState, images: Tensor, targets: Tensor, batch_size: int, experiment: Experiment
) -> Tensor:
    """Leave the gradient of the mean loss over all processes; return this process's part of the loss."""
    config, processes = experiment.config.train, experiment.processes
    parts = micro_batches(batch_size, processes, config.micro_batch_size)
    loss = torch.zeros((), device=experiment.device)
    is_replayed = replays_graphs(experiment.config, experiment.device)
    if is_replayed and parts > 1:
        own_gradients(state.model)
    for index in range(parts):
        rows = Share(index, parts).of(len(images))
        part = slice(rows.start, rows.stop)
        # Processes' gradients are averaged, and their shares may differ by an image.
        weight = state.scaler.scale(torch.full_like(loss, len(rows) * processes.count / batch_size))
        if is_replayed:
            # Also where a step broke off before its backward pass, for which the graphs would wait.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        if state.passes is not None:
            mean = state.passes.run(images[part], targets[part], weight, is_part=parts > 1)
        else:
            with gradients_kept(state.runner, is_last=index == parts - 1):
                mean = _run_pass(state.runner, experiment, images[part], targets[part], weight)
        loss += mean * (len(rows) / batch_size)
    return loss


def _run_pass(
    runner: nn.Module, experiment: Experiment, images: Tensor, targets: Tensor, weight: Tensor
) -> Tensor:
    """Leave the gradients of ``weight`` times the mean loss of some images; return that mean."""
    config, is_mixed = experiment.config.train, experiment.autocast is not None
    with torch.autocast(experiment.device.type, experiment.autocast, enabled=is_mixed):
        logits = runner(images)
    mean = classification_loss(
        logits.float(), targets, loss=config.loss, label_smoothing=config.label_smoothing
    )
    torch.autograd.backward(mean, weight)
    return mean.detach()
