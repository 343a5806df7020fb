"""Where a run is: all that a resumed one needs besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class Progress:
    """What `effnet.training.step.TrainState` does not hold of the state of a run."""

    step: int = 0
    processes: int = 1
    """Which trained it."""
    seconds: float = 0.0
    step_seconds: float = 0.0
    """Of ``seconds``, those in training steps, waiting included."""
    wait_seconds: float = 0.0
    """Of ``step_seconds``, those spent waiting for images."""
    val_top1: float = 0.0
    best_val_top1: float = -1.0
    best_step: int = 0
    improved_step: int = 0
    """Of the last evaluation that was better than all before it; an equal one moves ``best_step`` alone."""
    stopped_early: bool = False
    """Whether the run has ended because it no longer improved."""
    scaler: dict[str, float] = field(default_factory=dict)
    """Of the loss in fp16, as it was at the last checkpoint."""
    non_finite: int = 0
    """Steps so far that were left out, or before which the learning rate was lowered."""
    rate_scale: float = 1.0
    """What the learning rate is multiplied by behind setbacks."""
    micro_batch_size: int = 0
    """As ``train.micro_batch_size`` behind setbacks; 0: as configured."""
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last journal record, of a run that was interrupted between two."""
