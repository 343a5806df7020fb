"""Photos in class folders."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

CLASSES = ("lily", "rose")
COUNT = 5
"""Photos of each class."""


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """Ten JPEG files of 90 x 60 pixels, and one PNG file that comes first."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir()
        for index in range(COUNT):
            smooth = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (90, 60))
            Image.fromarray(smooth).save(folder / name / f"{index}.jpg", quality=95)
    Image.fromarray(smooth).save(folder / CLASSES[0] / "0-first.png")
    return folder
