"""Pictures, and folders of them with something wrong inside."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from effnet.config import DataConfig
from effnet.inspection.check import check_data
from effnet.inspection.report import DataReport


def _picture(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(
            rng.normal(0, 160 / cells, (cells, cells, 3)), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for cells in (3, 6, 12, 24, 48)
    ]
    return (128 + sum(layers)).clip(0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="session")
def picture() -> Callable[..., np.ndarray]:
    """Make a picture with as much detail of each size as a photo has: ``picture(seed, height, width)``."""
    return _picture


@pytest.fixture(scope="session")
def jpeg() -> Callable[..., bytes]:
    """Write pixels as a JPEG file: ``jpeg(pixels, quality)``."""
    return _jpeg


@pytest.fixture
def folder(tmp_path) -> Callable[..., Path]:
    """Make a folder of two classes: ``folder({"train/cat/a.jpg": b"..."}, train=12, val=4)``.

    It has so many different pictures of each, and the files that are given. With ``val=0`` it has no splits.
    """

    def make(files: Mapping[str, bytes] | None = None, *, train: int = 12, val: int = 4) -> Path:
        contents = {
            f"{split}/{name}/{index:02}.jpg": _jpeg(_picture(1000 * label + 100 * place + index))
            for label, name in enumerate(("cat", "dog"))
            for place, (split, count) in enumerate((("train", train), ("val", val)))
            for index in range(count)
        }
        for name, content in {**contents, **(files or {})}.items():
            path = tmp_path / "pets" / (name if val else name.removeprefix("train/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "pets"

    return make


@pytest.fixture(scope="session")
def check() -> Callable[..., DataReport]:
    """Check data: ``check(source)``."""
    return lambda source: check_data(DataConfig(source=str(source), workers=2))
