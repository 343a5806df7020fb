import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effnet.data.device_augment import channel_levels
from effnet.data.patches import (
    ERASED_AREA,
    ERASED_ASPECT,
    Patch,
    cover,
    draw_cutout,
    draw_erasing,
    noise,
)


@given(size=st.integers(1, 80), share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_cutout_is_a_square_around_a_place_in_the_image(size, share, seed):
    patch = draw_cutout(size, share, np.random.default_rng(seed))
    half = int(share * size)
    assert 0 <= patch.left <= patch.right <= size
    assert 0 <= patch.top <= patch.bottom <= size
    for start, end in ((patch.left, patch.right), (patch.top, patch.bottom)):
        assert end - start <= 2 * half
        if start and end < size:
            assert end - start == 2 * half
        assert end - start >= min(half, size) - (half == size)


@pytest.mark.parametrize(("size", "half"), [(224, 56), (300, 75), (127, 31)])
def test_a_quarter_is_the_releases_half_side(size, half):
    rng = np.random.default_rng(0)
    drawn = [draw_cutout(size, 0.25, rng) for _ in range(100)]
    assert max(patch.right - patch.left for patch in drawn) == 2 * half


def test_the_place_of_cutout_is_uniform_in_the_image():
    rng = np.random.default_rng(0)
    patches = [draw_cutout(10, 0.1, rng) for _ in range(1000)]
    # A patch at 0 reaches over the border: its one remaining column is the first.
    centres = np.bincount([patch.right - 1 for patch in patches], minlength=10)
    assert np.abs(centres - 100).max() < 5 * np.sqrt(100)
    assert len({patch.key for patch in patches}) == 1000


@given(size=st.integers(1, 80), probability=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_what_is_erased_lies_in_the_image(size, probability, seed):
    patch = draw_erasing(size, probability, np.random.default_rng(seed))
    assert 0 <= patch.left <= patch.right <= size
    assert 0 <= patch.top <= patch.bottom <= size
    assert patch.lowest == 0
    assert 0 <= patch.key < 2**32


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.99])
def test_images_are_erased_with_the_probability(probability):
    rng = np.random.default_rng(0)
    erased = sum(draw_erasing(64, probability, rng) != Patch() for _ in range(2000))
    assert abs(erased - 2000 * probability) <= 5 * np.sqrt(2000 * probability * (1 - probability))


def test_area_and_aspect_of_what_is_erased_are_uniform_where_it_fits():
    rng = np.random.default_rng(0)
    size = 1000
    patches = [draw_erasing(size, 1.0, rng) for _ in range(3000)]
    heights = np.array([patch.bottom - patch.top for patch in patches])
    widths = np.array([patch.right - patch.left for patch in patches])
    area, aspect = heights * widths / size**2, heights / widths
    assert area.min() == pytest.approx(ERASED_AREA[0], abs=0.005)
    assert area.max() <= ERASED_AREA[1] + 0.001
    assert aspect.min() == pytest.approx(ERASED_ASPECT[0], abs=0.02)
    assert aspect.max() == pytest.approx(ERASED_ASPECT[1], abs=0.1)
    # The same by rejecting rectangles of a plain sample.
    plain = np.random.default_rng(1)
    areas, aspects = plain.uniform(*ERASED_AREA, 40_000), plain.uniform(*ERASED_ASPECT, 40_000)
    x, y = plain.random((2, 40_000))
    fits = (x + np.sqrt(areas / aspects) <= 1) & (y + np.sqrt(areas * aspects) <= 1)
    assert area.mean() == pytest.approx(areas[fits].mean(), abs=0.01)
    assert aspect.mean() == pytest.approx(aspects[fits].mean(), abs=0.08)
    assert (heights > size * 0.5).mean() == pytest.approx(
        (np.sqrt(areas * aspects)[fits] > 0.5).mean(), abs=0.04
    )


@pytest.mark.parametrize("lowest", [0, 128])
def test_noise_is_uniform_from_the_lowest_level_to_255(lowest):
    image = np.full((300, 300, 3), 7, np.uint8)
    cover(image, Patch(0, 0, 300, 300, 12345, lowest))
    expected = 300 * 300 / (256 - lowest)
    for channel in range(3):
        counts = np.bincount(image[..., channel].ravel(), minlength=256)
        assert counts[:lowest].sum() == 0
        chi_square = ((counts[lowest:] - expected) ** 2 / expected).sum()
        assert chi_square < 256 - lowest + 5 * np.sqrt(2 * (256 - lowest))


def test_noise_of_channels_neighbours_and_keys_is_unrelated():
    images = []
    for key in (1, 2, 10**9):
        image = np.zeros((200, 200, 3), np.uint8)
        cover(image, Patch(0, 0, 200, 200, key))
        images.append(image.astype(float) - 127.5)
    first = images[0][..., 0]
    others = [first[:, ::-1], images[0][..., 1], images[0][..., 2], images[1][..., 0], images[2][..., 0]]
    pairs = [(first, other) for other in others]
    pairs += [(first[1:], first[:-1]), (first[:, 1:], first[:, :-1])]
    for one, other in pairs:
        assert abs((one * other).mean()) / one.var() < 5 / 200


def test_covers_nothing_but_the_patch(picture):
    image = picture(20, 20)
    covered = image.copy()
    cover(covered, Patch(3, 5, 9, 20, 4, 128))
    changed = np.zeros((20, 20), bool)
    changed[5:20, 3:9] = True
    assert np.array_equal(covered[~changed], image[~changed])
    assert covered[changed].min() >= 128
    assert (covered != image)[changed].mean() > 0.9


@pytest.mark.parametrize("patch", [Patch(), Patch(4, 0, 4, 9), Patch(0, 9, 9, 9, 77)])
def test_an_empty_patch_covers_nothing(picture, patch):
    image = picture(9, 9)
    cover(image, patch)
    assert np.array_equal(image, picture(9, 9))


def test_a_pixels_noise_depends_on_its_place_only():
    small, large = np.zeros((2, 30, 30, 3), np.uint8)
    cover(large, Patch(0, 0, 30, 30, 99))
    cover(small, Patch(7, 8, 20, 21, 99))
    assert np.array_equal(small[8:21, 7:20], large[8:21, 7:20])


@given(numbers=st.lists(st.integers(0, 2**33), min_size=1, max_size=20))
def test_noise_is_the_same_in_numpy_and_torch(numbers):
    array = noise(np.array(numbers, np.int64))
    tensor = noise(torch.tensor(numbers))
    assert array.tolist() == tensor.tolist() == [_hash(number) for number in numbers]
    for channel in range(3):
        levels = channel_levels(tensor, channel, 128)
        assert levels.tolist() == [128 | number >> 8 * channel & 255 for number in array.tolist()]
        assert levels.min() >= 128
        assert levels.max() <= 255


def _hash(number):
    """In Python's integers, which have no largest."""
    number %= 2**32
    for _ in range(2):
        number = ((number >> 16) ^ number) * 0x45D9F3B % 2**32
    return (number >> 16) ^ number
