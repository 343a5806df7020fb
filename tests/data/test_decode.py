import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from effnet.data import jpeg, pillow
from effnet.data.crops import Crop
from effnet.data.decode import decode_image, image_size, open_image
from effnet.data.jpeg import MAX_SCANS, decode_jpeg, read_header
from effnet.data.pillow import BadImageError, TruncatedImageError


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_truncated_file_is_an_error(picture, encode, kind, share):
    encoded = encode(picture(60, 80), kind)
    with pytest.raises(BadImageError):
        decode_image(encoded[: int(share * len(encoded))])


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_jpeg_with_missing_data_is_an_error_whatever_the_crop(picture, encode, mode, options, end):
    encoded = encode(Image.fromarray(picture(60, 80)).convert(mode), "JPEG", **options)
    part = encoded[: encoded.index(b"\xff\xda") + 60] + end

    def view(size, antialias):
        return open_image(part).decode(Crop(2, 3, 30, 20), size, antialias=antialias)

    for size in (1, 4, 12, 80):
        for antialias in (False, True):
            with pytest.raises(TruncatedImageError, match=r"^the JPEG data is truncated$"):
                view(size, antialias)


def _changed(encoded, marker, offset, *values):
    """Overwrite bytes behind a marker."""
    place = encoded.index(bytes((0xFF, marker))) + offset
    return encoded[:place] + bytes(values) + encoded[place + len(values) :]


def _jpegs_of_odd_form(encoded):
    scan = encoded.index(b"\xff\xda")
    return {
        "bytes before the end": encoded[:-2] + bytes(30) + encoded[-2:],
        "wrong end of spectrum": _changed(encoded, 0xDA, 11, 1),
        "unknown version": _changed(encoded, 0xE0, 9, 9),
        "without Huffman tables": encoded[: encoded.index(b"\xff\xc4")] + encoded[scan:],
        "bytes between segments": encoded[:scan] + b"\0\1\2" + encoded[scan:],
    }


@pytest.mark.parametrize(
    "form",
    ["bytes before the end", "wrong end of spectrum", "unknown version", "without Huffman tables",
     "bytes between segments"],
)  # fmt: skip
def test_jpeg_of_odd_form_is_read_but_not_if_it_is_truncated(picture, encode, form):
    encoded = encode(picture(60, 80), "JPEG")
    odd = _jpegs_of_odd_form(encoded)[form]
    assert np.array_equal(decode_image(odd), decode_image(encoded))
    with pytest.raises(TruncatedImageError, match=r"^the JPEG data is truncated$"):
        decode_image(odd[: len(odd) // 2])


def _restarts(picture, encode):
    encoded = encode(picture(60, 80), "JPEG", restart_marker_rows=1)
    return encoded, encoded.index(b"\xff\xd1")


def test_jpeg_that_lost_a_restart_marker_is_an_error(picture, encode):
    encoded, place = _restarts(picture, encode)
    with pytest.raises(BadImageError, match=r"JPEG file is damaged: .*(extraneous bytes|instead of RST)"):
        decode_image(encoded[:place] + encoded[place + 2 :])


def test_jpeg_with_bytes_that_belong_nowhere_is_an_error(picture, encode):
    encoded, place = _restarts(picture, encode)
    with pytest.raises(BadImageError, match="JPEG file is damaged: 20 extraneous bytes before marker 0xd1"):
        decode_image(encoded[:place] + bytes(20) + encoded[place:])


@pytest.mark.parametrize("shrink", [1, 2])
def test_pixels_that_nothing_was_written_to_are_no_picture(picture, encode, shrink):
    """Behind a first complaint the library also takes one at which it gives up for a matter of form."""
    encoded = encode(picture(60, 80), "JPEG", progressive=True)
    first = encoded.index(b"\xff\xda")
    second = encoded.index(b"\xff\xda", first + 2)
    # Bytes that belong nowhere, and a table that does not exist.
    spoilt = encoded[: second - 40] + bytes(60) + encoded[second - 40 : second + 6] + b"\x33"
    spoilt += encoded[second + 7 :]
    with pytest.raises(BadImageError, match="JPEG file is damaged: Huffman table 0x03 was not defined"):
        decode_jpeg(spoilt, read_header(spoilt), shrink=shrink)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((0xC0, 4, 12), "the JPEG file cannot be decoded: Unsupported JPEG data precision 12"),
        ((0xC0, 1, 0xC3), "the JPEG file cannot be decoded: Unsupported color conversion request"),
        ((0xC0, 12, 7), "the JPEG file cannot be decoded: Quantization table 0x07 was not defined"),
        ((0xC0, 9, 2), "the JPEG file is damaged"),
    ],
    ids=["12 bits", "lossless", "lacks a table", "two colors"],
)
def test_jpeg_of_a_kind_that_is_not_read_says_so(picture, encode, change, reason):
    with pytest.raises(BadImageError) as caught:
        decode_image(_changed(encode(picture(20, 30), "JPEG"), *change))
    assert caught.value.reason.startswith(reason)


def test_progressive_jpeg_of_endless_scans_is_refused_unread(picture, encode):
    encoded = encode(picture(20, 30), "JPEG", progressive=True)
    scan = encoded.rindex(b"\xff\xda")
    endless = encoded[:scan] + encoded[scan:-2] * MAX_SCANS + encoded[-2:]
    with pytest.raises(BadImageError, match=r"a progressive JPEG file of 1\d\d scans; at most 100 are read"):
        decode_image(endless)


def _with_scan_at(encoded, place):
    """Put a comment into a JPEG file, so that its first scan begins at a place."""
    gap = place - encoded.index(b"\xff\xda")
    return encoded[:2] + b"\xff\xfe" + (gap - 2).to_bytes(2, "big") + bytes(gap - 4) + encoded[2:]


@pytest.mark.parametrize("options", [{}, {"quality": 50}, {"subsampling": 0}, {"exif": Image.Exif()}])
def test_a_header_that_files_share_is_that_of_each(picture, encode, options):
    files = [encode(picture(37, width, seed), "JPEG", **options) for width in (53, 54) for seed in (0, 1)]
    for encoded in files * 2:
        header = jpeg.read_header(encoded)
        assert header == jpeg._header(encoded)
        assert header.width == simplejpeg.decode_jpeg(encoded).shape[1]


def test_what_stands_behind_a_header_counts_wherever_the_header_ends(picture, encode):
    progressive = encode(picture(16, 16), "JPEG", progressive=True)
    endless = _with_scan_at(progressive, jpeg._PLAIN_SCAN)
    assert jpeg.read_header(endless) == jpeg._header(endless)
    endless = endless[:-2] + endless[endless.rindex(b"\xff\xda") : -2] * MAX_SCANS + endless[-2:]
    with pytest.raises(BadImageError, match="scans; at most 100 are read"):
        open_image(endless)


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_the_size_is_read_from_the_header_alone(picture, encode, kind, monkeypatch):
    encoded = encode(picture(11, 17), kind)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", None)
    monkeypatch.setattr("simplejpeg.decode_jpeg", None)
    assert image_size(encoded) == (11, 17)


@pytest.mark.parametrize("encoded", [b"", b"no image", b"\xff\xd8\xff"])
def test_a_size_of_what_is_no_image_is_refused(encoded):
    with pytest.raises(BadImageError):
        image_size(encoded)


def test_colours_of_a_quarter_of_the_rows_are_read_by_pillow(picture):
    """The same blocks as of a quarter of the columns, one below the other."""
    grey = np.repeat(picture(8, 32)[:, :, :1], 3, axis=2)
    encoded = bytearray(simplejpeg.encode_jpeg(grey, colorspace="RGB", colorsubsampling="411"))
    expected = simplejpeg.decode_jpeg(encoded)
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 5 : frame + 9] = bytes((0, 32, 0, 8))
    assert encoded[frame + 11] == 0x41
    encoded[frame + 11] = 0x14
    assert np.array_equal(decode_image(bytes(encoded)), np.concatenate(np.split(expected, 4, axis=1)))


def test_floating_point_pixels_are_refused(encode):
    with pytest.raises(BadImageError, match="floating-point pixels have no known range"):
        decode_image(encode(np.zeros((4, 4), np.float32), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_too_many_pixels_are_refused_by_both_decoders(picture, encode, monkeypatch, kind):
    monkeypatch.setattr(pillow, "MAX_PIXELS", 599)
    with pytest.raises(BadImageError, match="30 x 20 pixels; at most 599 are read"):
        decode_image(encode(picture(20, 30), kind))


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize(
    ("side", "reason"), [(10_000, "10000 x 10000 pixels; at most"), (60_000, "far more pixels than")]
)
def test_decompression_bomb_is_refused_by_its_header(side, reason):
    header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 2, 0, 0, 0)
    encoded = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(BadImageError, match=reason):
        decode_image(encoded + struct.pack(">I4s", 99, b"IDAT"))


def test_decoding_needs_no_torch():
    imports = "import sys, effnet.data.decode, effnet.data.repair, effnet.data.reading"
    subprocess.run([sys.executable, "-c", f"{imports}; assert 'torch' not in sys.modules"], check=True)
