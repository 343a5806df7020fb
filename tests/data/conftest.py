"""Pictures and stages for the tests of this folder."""

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from effnet.schedule.progressive import StageSchedule, StageSettings


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), (width, height))
    return np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """Make a smooth picture with some noise: ``picture(height, width, seed)``."""
    return _picture


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Write pixels or a Pillow image as a file: ``encode(image, "JPEG", quality=90)``."""

    def encode(image: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
        file = io.BytesIO()
        (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
        return file.getvalue()

    return encode


@pytest.fixture
def class_folders(tmp_path: Path, encode: Callable[..., bytes]) -> Callable[..., Path]:
    """Make a folder of class folders: ``class_folders({"cat": 3, "dog": 2}, under="train")``."""

    def make(counts: dict[str, int], under: str = "") -> Path:
        for label, (name, count) in enumerate(counts.items()):
            folder = tmp_path / "pets" / under / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture = _picture(20 + index, 24, seed=100 * label + index)
                (folder / f"{name}_{index:02}.jpg").write_bytes(encode(picture, "JPEG"))
        return tmp_path / "pets"

    return make


@pytest.fixture(scope="session")
def stage() -> Callable[..., StageSettings]:
    """Make the settings of a stage: ``stage(image_size=16, start_step=2)``."""

    def make(**changes: float) -> StageSettings:
        values: dict[str, float] = {
            "stage": 0,
            "start_step": 0,
            "end_step": 4,
            "image_size": 16,
            "batch_size": 5,
            "randaugment_magnitude": 5.0,
            "mixup_alpha": 0.0,
            "cutmix_alpha": 0.0,
            "dropout_rate": 0.0,
            "drop_path_rate": 0.0,
        }
        return StageSettings(**(values | changes))

    return make


@pytest.fixture(scope="session")
def two_stages(stage: Callable[..., StageSettings]) -> Callable[[int], StageSchedule]:
    """Make a schedule of 4 steps of 5 images at 16 px and 3 steps of 3 at 24 px."""

    def make(train_images: int) -> StageSchedule:
        second = stage(
            stage=1, start_step=4, end_step=7, image_size=24, batch_size=3, randaugment_magnitude=10.0
        )
        return StageSchedule((stage(), second), train_images, 5)

    return make
