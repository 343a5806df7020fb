"""One training step: a batch in, changed weights out.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from effnet.config import Config
from effnet.data.device_augment import augment_images
from effnet.data.loader import Batch, prepare_images
from effnet.data.mixing import mix_batch
from effnet.nn import EfficientNet
from effnet.schedule.learning_rate import learning_rate
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.clipping import clip_gradients
from effnet.training.ema import Ema
from effnet.training.experiment import Experiment
from effnet.training.loss import class_targets, classification_loss
from effnet.training.optimizers import build_optimizer, set_learning_rate


@dataclass(kw_only=True, slots=True)
class TrainState:
    """All that a step changes."""

    model: EfficientNet
    optimizer: Optimizer
    ema: Ema | None
    """None where the moving average is switched off."""


def initial_state(experiment: Experiment) -> TrainState:
    """Return the state before step 0."""
    config = experiment.config
    model = experiment.build_model()
    return TrainState(
        model=model,
        optimizer=build_optimizer(
            model, config.optimizer, config.train.backbone_rate, config.train.layer_decay
        ),
        ema=Ema(model, decay=config.ema.decay, warmup=config.ema.warmup) if config.ema.decay else None,
    )


def is_head_phase(config: Config, schedule: StageSchedule, step: int) -> bool:
    """Whether only the classifier learns at ``step``."""
    return schedule.epoch(step) < config.train.head_epochs


def set_phase(model: EfficientNet, config: Config, settings: StageSettings, *, is_head_only: bool) -> None:
    """Put the network into training mode with the rates of a stage.

    While only the classifier learns, the rest of the network stays as it was loaded: no gradients, no
    drop-path, no moving statistics.
    """
    model.train()
    model.set_dropout(settings.dropout_rate)
    model.set_drop_path(settings.drop_path_rate)
    for name, child in model.named_children():
        is_trained = name in {"classifier", "dropout"} or not is_head_only
        child.train(is_trained)
        child.requires_grad_(is_trained)
    if config.train.freeze_norm:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def rate_at(config: Config, schedule: StageSchedule, step: int) -> float:
    """Return the learning rate of the classifier at ``step``."""
    return learning_rate(
        config.learning_rate,
        schedule.reference_step(step),
        steps_per_epoch=schedule.train_images / schedule.reference_batch_size,
        total_steps=schedule.total_reference_steps,
        batch_size=schedule.at(step).batch_size,
    )


def step_seed(seed: int, step: int) -> int:
    """Return the seed of all random numbers that one step draws.

    A function of the step and not a generator that runs on: a run that is resumed needs no saved state.
    """
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def train_step(state: TrainState, batch: Batch, experiment: Experiment) -> Tensor:
    """Run forward and backward pass and change weights, optimizer and moving average in place.

    Args:
        state: `set_phase` must have been called for the batch's stage.
        batch: Images and labels with the settings they were made by.
        experiment: The run.

    Returns:
        The loss, a scalar on the device; it has not been waited for.
    """
    config, device = experiment.config, experiment.device
    seed = step_seed(config.train.seed, batch.step)
    torch.manual_seed(seed)
    pixels = batch.images.to(device, non_blocking=True)
    if batch.drawn is not None:
        pixels = augment_images(pixels, batch.drawn)
    is_channels_last = config.train.memory_format != "contiguous"
    images = prepare_images(pixels, experiment.preprocessing, device, channels_last=is_channels_last)
    labels = batch.labels.to(device, non_blocking=True)
    targets = class_targets(labels, experiment.spec.num_classes, config.train.loss)
    images, targets = mix_batch(images, targets, batch.settings, config.augment, seed=seed)
    with torch.autocast(device.type, torch.bfloat16, enabled=experiment.uses_bf16):
        logits = state.model(images)
    loss = classification_loss(
        logits.float(), targets, loss=config.train.loss, label_smoothing=config.train.label_smoothing
    )
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    clip_gradients(state.model, config.train)
    set_learning_rate(state.optimizer, rate_at(config, experiment.schedule, batch.step))
    state.optimizer.step()
    if state.ema is not None:
        state.ema.update(batch.step)
    return loss.detach()
