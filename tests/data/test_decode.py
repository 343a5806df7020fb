import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from effnet.data import decode
from effnet.data.decode import decode_image
from effnet.data.pillow import BadImageError


def _pillow(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
def test_jpeg_pixels_are_those_of_pillow(picture, encode, options):
    encoded = encode(picture(37, 53), "JPEG", **options)
    assert np.array_equal(decode_image(encoded), _pillow(encoded))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_give_back_their_pixels(picture, encode, kind):
    pixels = picture(11, 17)
    assert np.array_equal(decode_image(encode(pixels, kind)), pixels)


def test_webp_is_read(picture, encode):
    pixels = picture(11, 17)
    assert np.array_equal(decode_image(encode(pixels, "WEBP", lossless=True)), pixels)


def test_pixels_pass_through(picture):
    pixels = picture(3, 4)
    assert decode_image(pixels) is pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_is_repeated(encode, kind):
    encoded = encode(np.arange(64, dtype=np.uint8).reshape(8, 8), kind)
    pixels = decode_image(encoded)
    assert pixels.shape == (8, 8, 3)
    assert np.array_equal(pixels, _pillow(encoded))


def test_sixteen_bit_grey_keeps_its_high_byte(encode):
    levels = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    assert decode_image(encode(levels, "PNG"))[0, :, 0].tolist() == [0, 0, 1, 156, 255]


def test_cmyk_jpeg_is_converted(picture, encode):
    encoded = encode(Image.fromarray(picture(16, 16)).convert("CMYK"), "JPEG", quality=100)
    pixels = decode_image(encoded)
    assert np.array_equal(pixels, _pillow(encoded))
    assert np.abs(pixels.astype(int) - picture(16, 16)).mean() < 6  # As raw channels it would be over 50.


def test_transparent_pixels_lie_on_white(encode):
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 128]]], np.uint8)
    assert decode_image(encode(rgba, "PNG")).tolist() == [[[10, 20, 30], [255, 255, 255], [127, 127, 127]]]


def test_palette_with_a_transparent_color_lies_on_white(encode):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    assert decode_image(encode(image, "PNG", transparency=1)).tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_first_frame_of_a_gif_counts(encode):
    frames = [Image.new("RGB", (4, 3), color) for color in ("red", "blue")]
    encoded = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.array_equal(decode_image(encoded), np.full((3, 4, 3), (255, 0, 0), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_by_both_decoders(picture, encode, kind, orientation):
    stored = Image.fromarray(picture(20, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    plain, turned = (
        decode_image(encoded)
        for encoded in (encode(stored, kind, **options), encode(stored, kind, exif=exif, **options))
    )
    method = [None, None, *(Image.Transpose(index) for index in (0, 3, 1, 5, 4, 6, 2))][orientation]
    expected = Image.fromarray(plain).transpose(method) if method is not None else plain
    assert np.array_equal(turned, np.asarray(expected))


def test_damaged_exif_does_not_cost_the_picture(picture, encode):
    encoded = encode(picture(20, 30), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode_image(encoded).shape == (20, 30, 3)


def test_one_pixel_is_an_image(encode):
    for kind in ("JPEG", "PNG"):
        assert decode_image(encode(np.full((1, 1, 3), 128, np.uint8), kind)).tolist() == [[[128] * 3]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_an_error(picture, encode, kind, share):
    encoded = encode(picture(60, 80), kind)
    with pytest.raises(BadImageError):
        decode_image(encoded[: int(share * len(encoded))])


def test_jpeg_with_missing_data_before_its_end_marker_is_an_error(picture, encode):
    encoded = encode(picture(60, 80), "JPEG")
    with pytest.raises(BadImageError, match="the JPEG data is truncated"):
        decode_image(encoded[: len(encoded) // 2] + b"\xff\xd9")


def test_bytes_after_a_jpeg_do_no_harm(picture, encode):
    encoded = encode(picture(20, 30), "JPEG")
    assert np.array_equal(decode_image(encoded + b"\0" * 40), decode_image(encoded))


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),
    ],
)
def test_reason_is_short(encoded, reason):
    with pytest.raises(BadImageError) as caught:
        decode_image(encoded)
    assert caught.value.reason == reason


def test_floating_point_pixels_are_refused(encode):
    with pytest.raises(BadImageError, match="floating-point pixels have no known range"):
        decode_image(encode(np.zeros((4, 4), np.float32), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_too_many_pixels_are_refused_by_both_decoders(picture, encode, monkeypatch, kind):
    monkeypatch.setattr(decode, "MAX_PIXELS", 599)
    with pytest.raises(BadImageError, match="30 x 20 pixels; at most 599 are read"):
        decode_image(encode(picture(20, 30), kind))


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb_is_refused_by_its_header(side):
    header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 2, 0, 0, 0)
    encoded = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(BadImageError, match="exceeds limit"):
        decode_image(encoded + struct.pack(">I4s", 99, b"IDAT"))
