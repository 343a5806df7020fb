"""Crops that are resized in a batch, against those that are resized one by one."""

import numpy as np
import pytest
import torch

from effnet.data.crops import Crop
from effnet.data.device_resize import resize_crops
from effnet.data.transforms import resize_crop


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 67), (3, 5), (1, 1)])
@pytest.mark.parametrize("size", [1, 16, 33])
def test_crops_are_those_of_the_workers(picture, interpolation, antialias, height, width, size):  # noqa: PLR0917
    rng = np.random.default_rng(size)
    images = np.stack([picture(height, width, seed) for seed in range(8)])
    images[1] = rng.integers(0, 256, images[1].shape)  # as rough as can be
    tops, lefts = rng.integers(0, height, 8), rng.integers(0, width, 8)
    heights, widths = rng.integers(1, height - tops + 1), rng.integers(1, width - lefts + 1)
    tops[0], lefts[0], heights[0], widths[0] = 0, 0, height, width
    tops[1], lefts[1], heights[1], widths[1] = 0, 0, height, width
    boxes = np.stack([tops, lefts, heights, widths], axis=1)
    expected = np.empty((8, size, size, 3), np.uint8)
    for image, (top, left, rows, columns), out in zip(images, boxes.tolist(), expected, strict=True):
        resize_crop(
            image, Crop(left, top, columns, rows), interpolation=interpolation, antialias=antialias, out=out
        )
    resized = resize_crops(
        torch.from_numpy(images),
        torch.from_numpy(boxes),
        size,
        interpolation=interpolation,
        antialias=antialias,
    ).numpy()
    difference = np.abs(resized.astype(int) - expected)
    assert difference.max() <= 1 + antialias
    assert (difference > 1).mean() < 1e-3
    assert (difference > 0).mean() < 0.2


def test_a_crop_of_its_own_size_is_cut_out_as_it_is(picture):
    images = torch.from_numpy(np.stack([picture(20, 30, seed) for seed in range(2)]))
    boxes = torch.tensor([[3, 5, 8, 8], [12, 22, 8, 8]])
    for interpolation in ("bilinear", "bicubic"):
        for antialias in (False, True):
            cut = resize_crops(images, boxes, 8, interpolation=interpolation, antialias=antialias)
            assert torch.equal(cut, torch.stack([images[0, 3:11, 5:13], images[1, 12:20, 22:30]]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_gpu_resizes_as_a_processor_does(picture, interpolation, antialias):
    images = torch.from_numpy(np.stack([picture(40, 50, seed) for seed in range(8)]))
    boxes = torch.tensor([[row, 2 * row, 30 - row, 25 + row] for row in range(8)])
    cpu, gpu = (
        resize_crops(
            images.to(device), boxes.to(device), 33, interpolation=interpolation, antialias=antialias
        ).cpu()
        for device in ("cpu", "cuda")
    )
    assert (cpu.int() - gpu.int()).abs().max() <= 1
