"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from effnet.config import LearningRateConfig


def learning_rate(
    config: LearningRateConfig, step: float, *, steps_per_epoch: float, total_steps: float, batch_size: int
) -> float:
    """Return the rate for the update at ``step``.

    Args:
        config: The schedule.
        step: Steps done before this one, in units of the reference batch.
        steps_per_epoch: Not rounded: images over reference batch.
        total_steps: The run's length, in units of the reference batch.
        batch_size: Images in this step, see `peak_rate`.

    Returns:
        The rate. As released: warm-up rises linearly from 0 and then jumps onto the schedule, which has
        counted from step 0 (facts of the ``automl`` code; 0.256 falls to 0.2409 at epoch 5).
    """
    peak = peak_rate(config, batch_size)
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * step / warmup_steps
    if config.counted_from == "warmup":
        step, total_steps = step - warmup_steps, total_steps - warmup_steps
    return max(peak * _share_of_peak(config, step, steps_per_epoch, total_steps), config.minimum)


def peak_rate(config: LearningRateConfig, batch_size: int) -> float:
    """Return the rate at the end of the warm-up for steps of ``batch_size`` images."""
    if config.batch_scaling == "linear":
        return config.base * batch_size / config.base_batch_size
    if config.batch_scaling == "sqrt":
        return config.base * math.sqrt(batch_size / config.base_batch_size)
    return config.base


def decay_factor(config: LearningRateConfig, batch_size: int, reference_batch_size: int) -> float:
    """Return by what decoupled weight decay is multiplied in steps of ``batch_size`` images.

    A step shrinks the weights by rate times decay. Where the rate grows less than the batch, as with
    ``sqrt``, larger batches would shrink them less over the same images; this factor makes up for it, and is
    1 for ``linear`` and for the reference batch.
    """
    if batch_size == reference_batch_size or config.batch_scaling == "linear":
        return 1.0
    growth = batch_size / reference_batch_size
    return growth * peak_rate(config, reference_batch_size) / peak_rate(config, batch_size)


def _share_of_peak(
    config: LearningRateConfig, step: float, steps_per_epoch: float, total_steps: float
) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "exponential":
        return config.decay_rate ** math.floor(step / (config.decay_epochs * steps_per_epoch))
    progress = min(step / total_steps, 1.0) if total_steps > 0 else 1.0
    return 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
