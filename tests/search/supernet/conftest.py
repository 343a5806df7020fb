"""A space of two stages, and photos of noisy squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.arch import NetworkSpec, StageSpec
from effnet.config import (
    AugmentConfig,
    Config,
    DataConfig,
    EmaConfig,
    EvaluateConfig,
    LearningRateConfig,
    OptimizerConfig,
    ProgressiveConfig,
    TrackingConfig,
    TrainConfig,
)
from effnet.search.space import SearchSpace, StageChoices

COLORS = {"blue": (20, 40, 220), "green": (30, 210, 40), "red": (220, 30, 30)}


@pytest.fixture(scope="session")
def space() -> SearchSpace:
    first = StageSpec(
        operation="fused_mbconv", kernel_size=3, stride=1, expand_ratio=1, channels=8, repeats=1
    )
    second = StageSpec(
        operation="mbconv", kernel_size=3, stride=1, expand_ratio=4, channels=8, repeats=1, se_ratio=0.25
    )
    backbone = NetworkSpec(
        name="tiny",
        stages=(first, second),
        stem_channels=8,
        head_channels=16,
        image_size=16,
        train_size=16,
        num_classes=3,
    )
    both = StageChoices(
        operation=("mbconv", "fused_mbconv"),
        kernel_size=(3, 5),
        expand_ratio=(1, 2, 3),
        repeats=(1, 2),
        channels=(8, 12),
        se_ratio=(0.25,),
    )
    droppable = StageChoices(
        operation=("mbconv",),
        kernel_size=(3, 5),
        expand_ratio=(2, 3),
        repeats=(0, 1, 2),
        channels=(8,),
        se_ratio=(0.0, 0.25),
        residual=(True, False),
    )
    return SearchSpace(name="tiny", backbone=backbone, stages=(both, droppable))


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Twenty noisy squares of each colour."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for index in range(20):
            pixels = np.clip(np.array(color) + rng.normal(0, 25, (18, 18, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="session")
def config(photos) -> Config:
    """14 steps of 8 images at 8 and 16 px."""
    return Config(
        data=DataConfig(source=str(photos), crop_area=(0.5, 1.0), workers=1, minival_fraction=0.2),
        augment=AugmentConfig(operations=0),
        progressive=ProgressiveConfig(
            stages=2, image_size=(8, 16), dropout_rate=(0.1, 0.1), drop_path_rate=(0.0, 0.2)
        ),
        train=TrainConfig(epochs=3.0, batch_size=8),
        optimizer=OptimizerConfig(name="adamw", epsilon=1e-8),
        learning_rate=LearningRateConfig(base=0.01, base_batch_size=8, schedule="cosine", warmup_epochs=0.5),
        ema=EmaConfig(decay=0.9),
        evaluate=EvaluateConfig(every_epochs=100.0, batch_size=8),
        tracking=TrackingConfig(tensorboard=False),
    )
