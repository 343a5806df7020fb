import io

import cv2
import numpy as np
import pytest
from PIL import Image

from effnet.data.images import Pyramid
from effnet.data.pillow import BadImageError
from effnet.inspection.fingerprint import distances, fingerprint, mirrored, perceptual_hash
from effnet.inspection.neighbours import MOST_BITS, MOST_LOW_BITS


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def bits(first, second):
    """In how many bits of the first word, and of all, two hashes differ."""
    return np.bitwise_count(first[0] ^ second[0]), distances(first[None], second[None])[0]


CHANGES = {
    "half as large": lambda pixels: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "twice as large": lambda pixels: cv2.resize(pixels, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC),
    "squashed": lambda pixels: cv2.resize(pixels, (80, 80), interpolation=cv2.INTER_AREA),
    "brighter": lambda pixels: cv2.convertScaleAbs(pixels, alpha=1, beta=20),
    "of less contrast": lambda pixels: cv2.convertScaleAbs(pixels, alpha=0.6, beta=50),
    "blurred": lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 1.5),
    "cropped": lambda pixels: pixels[2:-1, 1:-2],
    "grey": lambda pixels: cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_changed_copy_keeps_most_bits(picture, jpeg, change, seed):
    pixels = picture(seed, 192, 256)
    copy = jpeg(change(pixels), quality=60)
    low, every = bits(perceptual_hash(pixels), fingerprint(copy).hash)
    assert low <= MOST_LOW_BITS
    assert every <= MOST_BITS


def test_other_pictures_share_half_of_the_bits(picture):
    hashes = np.stack([perceptual_hash(picture(seed)) for seed in range(60)])
    first, second = np.triu_indices(60, 1)
    differing = distances(hashes[first], hashes[second])
    assert abs(differing.mean() - 127.5) < 2
    assert differing.min() > 1.4 * MOST_BITS
    assert distances(hashes[first], mirrored(hashes[second])).min() > 1.4 * MOST_BITS


@pytest.mark.parametrize("seed", range(5))
def test_a_mirror_images_hash_is_known(picture, seed):
    pixels = picture(seed)
    assert bits(mirrored(perceptual_hash(pixels)[None])[0], perceptual_hash(pixels[:, ::-1]))[1] <= 2


def test_a_negative_shares_hardly_a_bit_and_average_brightness_is_none(picture):
    hashes = np.stack([perceptual_hash(picture(0)), perceptual_hash(255 - picture(0))])
    assert bits(*hashes)[1] > 240
    assert (hashes.view(np.uint8).reshape(2, -1)[:, 0] < 128).all()


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_image_of_one_brightness_has_no_hash(jpeg, level):
    found = fingerprint(jpeg(np.full((64, 64, 3), level, np.uint8)))
    assert found.hash is None


@pytest.mark.parametrize(("side", "has_hash"), [(15, False), (16, True)])
def test_an_image_without_the_frequencies_has_no_hash(picture, side, has_hash):
    assert (fingerprint(picture(0, side, 40)).hash is not None) == has_hash


def test_size_is_upright_and_of_the_original(picture, jpeg):
    turned = Image.Exif()
    turned[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(picture(0, 40, 60)).save(file, "JPEG", exif=turned)
    assert fingerprint(file.getvalue())[:2] == (60, 40)

    copies = [jpeg(picture(0, 40, 60)), jpeg(picture(0, 80, 120))]
    found = fingerprint(
        Pyramid(height=400, width=600, short_sides=(40, 80), read=lambda place: copies[place])
    )
    assert (found.height, found.width) == (400, 600)
    assert found.digest == fingerprint(copies[0]).digest


def test_equal_digests_are_equal_images(picture):
    pixels = picture(0, 32, 32)
    assert fingerprint(pixels).digest == fingerprint(pixels.copy()).digest
    other = pixels.copy()
    other[0, 0, 0] ^= 1
    assert fingerprint(pixels).digest != fingerprint(other).digest
    assert fingerprint(pixels).digest != fingerprint(pixels.reshape(16, 64, 3)).digest


def test_format_and_colors_are_what_the_file_has(picture, jpeg):
    image = Image.fromarray(picture(0))
    files = {
        ("JPEG", "color"): jpeg(picture(0)),
        ("PNG", "color"): png(image),
        ("PNG", "grey"): png(image.convert("L")),
    }
    for mode, expected in (("L", "grey"), ("CMYK", "CMYK")):
        file = io.BytesIO()
        image.convert(mode).save(file, "JPEG")
        files["JPEG", expected] = file.getvalue()
    for expected, content in files.items():
        assert fingerprint(content)[2:4] == expected
    sixteen = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    assert fingerprint(png(sixteen))[2:4] == ("PNG", "grey")
    assert fingerprint(picture(0)).format == "pixels"


def test_a_file_that_breaks_off_is_noticed_at_any_scale(jpeg, picture):
    content = jpeg(picture(0, 600, 800))
    with pytest.raises(BadImageError, match="truncated"):
        fingerprint(content[: len(content) * 9 // 10])
