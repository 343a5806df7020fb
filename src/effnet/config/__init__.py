"""The one typed configuration of a run: every value has a unit, a range and a default.

A function receives its section, never the root. Recipes and run directories hold it as TOML; see
`effnet.recipes` for reading and for ``--set``.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import SPEC_CONFIG
from effnet.config.images import AugmentConfig, DataConfig, ModelConfig, WorkerChoice
from effnet.config.keeping import CheckpointConfig, EvaluateConfig, TrackingConfig
from effnet.config.progressive import COUPLED, Coupled, ProgressiveConfig
from effnet.config.train import (
    DistributedConfig,
    EmaConfig,
    LearningRateConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "COUPLED",
    "AugmentConfig",
    "CheckpointConfig",
    "Config",
    "Coupled",
    "DataConfig",
    "DistributedConfig",
    "EmaConfig",
    "EvaluateConfig",
    "LearningRateConfig",
    "ModelConfig",
    "OptimizerConfig",
    "ProgressiveConfig",
    "TrackingConfig",
    "TrainConfig",
    "WorkerChoice",
]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Config:
    """A complete run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    progressive: ProgressiveConfig = ProgressiveConfig()
    train: TrainConfig = TrainConfig()
    distributed: DistributedConfig = DistributedConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: LearningRateConfig = LearningRateConfig()
    ema: EmaConfig = EmaConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    preprocessing: Preprocessing | None = None
    """How images are normalised and evaluated, but for what `EvaluateConfig` says. Left out: as the weights
    say, or as the network was released."""
