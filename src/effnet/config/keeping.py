"""Sections about what a run measures, saves and tells while it trains."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from effnet.arch.preprocessing import CropMode, Interpolation
from effnet.arch.spec import SPEC_CONFIG
from effnet.config.ranges import Positive, PositiveInt


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class EvaluateConfig:
    """How a network is evaluated while it trains and afterwards."""

    image_size: PositiveInt | None = None
    """Pixels; left out: the preprocessing of the weights, or the last training size from scratch."""
    crop_mode: CropMode | None = None
    """Left out: the preprocessing of the weights."""
    interpolation: Interpolation | None = None
    """Left out: the preprocessing of the weights."""
    batch_size: PositiveInt = 64
    every_epochs: Positive = 1.0
    """The end of the run and, in mode ``staged``, of each stage are always evaluated."""
    raw: bool = False
    """Evaluate the weights themselves as well where there is a moving average of them, which can be behind in
    short runs; the best weights are still the average's."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class CheckpointConfig:
    """When the state of a run is saved, and which of the saved states are kept."""

    every_minutes: Positive = 5.0
    """Save at least this often, besides each evaluation."""
    keep_last: PositiveInt = 2
    """Newest checkpoints to keep: where one is damaged, the run continues from the one before."""
    keep_stage_ends: bool = True
    """Also keep the checkpoint at the end of each stage, from which the next one can be tried again."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class TrackingConfig:
    """Where else the metrics of a run go, besides its ``metrics.jsonl``."""

    tensorboard: bool = True
    """Write the run's folder ``tensorboard``. To show it, the package ``tensorboard`` is needed as well."""
    wandb: str = ""
    """Project at Weights & Biases; empty: none. Needs the extra ``wandb``, and its environment variables say
    who and where, as ``WANDB_MODE=offline``."""
    mlflow: str = ""
    """Experiment at MLflow; empty: none. Needs the extra ``mlflow``; ``MLFLOW_TRACKING_URI`` says where."""
