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
        batch_size: Images in this step; the rate is proportional to it.

    Returns:
        The rate. As released: warm-up rises linearly from 0 and then jumps onto the schedule, which has
        counted from step 0 (facts of the ``automl`` code; 0.256 falls to 0.2409 at epoch 5).
    """
    peak = config.base * batch_size / config.base_batch_size
    warmup_steps = config.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * step / warmup_steps
    if config.schedule == "constant":
        rate = peak
    elif config.schedule == "cosine":
        rate = 0.5 * peak * (1 + math.cos(math.pi * min(step / total_steps, 1.0)))
    else:
        decays = math.floor(step / (config.decay_epochs * steps_per_epoch))
        rate = peak * config.decay_rate**decays
    return max(rate, config.minimum)
