"""A part of a JPEG file alone, once it has an index: the same pixels and verdicts as of all of it."""

import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.data import jpeg_scan
from effnet.data.jpeg import decode_jpeg, read_header
from effnet.data.jpeg_scan import decode_part, index_scan
from effnet.data.pillow import BadImageError
from effnet.native import jpeg_index

pytest.importorskip("numba", reason="needs Numba: pip install effnet[cpu]")
from effnet.native import jpeg

CHROMAS = ("444", "422", "420", "440", "411")


def _index(encoded):
    return index_scan(encoded, read_header(encoded))


def _assert_equal_parts(encoded, *, shrinks=(1,), draws=40):
    header, index = read_header(encoded), _index(encoded)
    assert index is not None
    rng = np.random.default_rng(0)
    for shrink in shrinks:
        whole = decode_jpeg(encoded, header, shrink=shrink)
        for _ in range(draws):
            top, bottom = np.sort(rng.choice(header.height + 1, 2, replace=False)).tolist()
            left, right = np.sort(rng.choice(header.width + 1, 2, replace=False)).tolist()
            part = decode_part(encoded, index, slice(top, bottom), slice(left, right), shrink=shrink)
            assert part is not None
            first_row, first_column = part.top // shrink, part.left // shrink
            rows = slice(top // shrink, -(-bottom // shrink))
            columns = slice(left // shrink, -(-right // shrink))
            found = part.pixels[
                rows.start - first_row : rows.stop - first_row,
                columns.start - first_column : columns.stop - first_column,
            ]
            assert np.array_equal(found, whole[rows, columns])


@pytest.mark.parametrize("chroma", CHROMAS)
@pytest.mark.parametrize("shape", [(171, 133), (64, 64), (97, 258), (9, 300)])
def test_the_pixels_are_those_of_the_whole(picture, chroma, shape):
    pixels = picture(*shape)
    encoded = simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling=chroma)
    _assert_equal_parts(encoded, shrinks=(1, 2, 4, 8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options", [{"optimize": True}, {"keep_rgb": True}, {"quality": 1}, {"quality": 100}, {"subsampling": 0}]
)
def test_the_pixels_are_those_of_the_whole_in_every_coding(picture, encode, options, mode):
    _assert_equal_parts(encode(Image.fromarray(picture(171, 133)).convert(mode), "JPEG", **options))


@pytest.mark.parametrize("chroma", CHROMAS)
@pytest.mark.parametrize("shrink", [1, 2, 4])
def test_the_last_columns_are_those_of_the_whole(picture, chroma, shrink):
    for last in (1, 3, 4, 7, 8, 12, 16):
        encoded = simplejpeg.encode_jpeg(picture(40, 64 + last), colorspace="RGB", colorsubsampling=chroma)
        index, width = _index(encoded), 64 + last
        part = decode_part(encoded, index, slice(9, 30), slice(width - 1, width), shrink=shrink)
        whole = decode_jpeg(encoded, read_header(encoded), shrink=shrink)
        first, rows = part.top // shrink, slice(9 // shrink, -(-30 // shrink))
        assert np.array_equal(part.pixels[rows.start - first : rows.stop - first, -1], whole[rows, -1])


def _changed_head(encoded, marker, place, value):
    changed = bytearray(encoded)
    changed[encoded.index(marker) + place] = value
    return bytes(changed)


def test_what_grey_says_of_its_size_does_not_matter(picture, encode):
    encoded = encode(Image.fromarray(picture(71, 93)).convert("L"), "JPEG")
    _assert_equal_parts(_changed_head(encoded, b"\xff\xc0", 11, 0x22), shrinks=(1, 2, 4, 8))


def test_a_file_without_a_table_that_it_names_has_no_index(picture, encode):
    encoded = encode(picture(60, 80), "JPEG")
    assert _index(_changed_head(encoded, b"\xff\xc0", 12, 2)) is None


def test_means_that_no_difference_in_the_file_has_are_written(encode):
    """Fitted tables have codes for small differences alone; the first block of a part has a large one."""
    pixels = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[:, None], 256, axis=1)
    encoded = encode(np.stack([pixels] * 3, axis=-1), "JPEG", optimize=True, quality=100)
    _assert_equal_parts(encoded)


def test_means_beyond_what_a_difference_can_say_are_left_to_the_whole(encode):
    """Each is the largest difference above the one before; no encoder writes that."""

    def rising(blocks):
        encoded = encode(Image.new("L", (8 * blocks, 8)), "JPEG")
        bits = ("111111110" + 11 * "1" + "1010") * blocks
        scan = int(bits + "1" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")
        return encoded[: read_header(encoded).scan] + scan.replace(b"\xff", b"\xff\0") + encoded[-2:]

    encoded = rising(16)
    whole, index = simplejpeg.decode_jpeg(encoded), _index(encoded)
    part = decode_part(encoded, index, slice(0, 8), slice(0, 20))
    assert np.array_equal(part.pixels, whole[:, :32])
    assert decode_part(encoded, index, slice(0, 8), slice(100, 128)) is None
    assert _index(rising(17)) is None


@given(data=st.data(), height=st.integers(1, 90), width=st.integers(1, 150), chroma=st.sampled_from(CHROMAS))
@settings(max_examples=60, deadline=None)
def test_any_part_of_any_picture(picture, data, height, width, chroma):
    encoded = simplejpeg.encode_jpeg(
        picture(height, width), quality=80, colorspace="RGB", colorsubsampling=chroma
    )
    whole = simplejpeg.decode_jpeg(encoded)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom = data.draw(st.integers(top + 1, height))
    right = data.draw(st.integers(left + 1, width))
    part = decode_part(encoded, _index(encoded), slice(top, bottom), slice(left, right))
    found = part.pixels[top - part.top : bottom - part.top, left - part.left : right - part.left]
    assert np.array_equal(found, whole[top:bottom, left:right])


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}]
)
def test_what_is_not_coded_in_one_go_has_no_index(picture, encode, options):
    assert _index(encode(picture(60, 60), "JPEG", **options)) is None


def test_four_colours_have_no_index(picture, encode):
    assert _index(encode(Image.fromarray(picture(60, 60)).convert("CMYK"), "JPEG")) is None


def test_without_numba_there_is_no_index(picture, encode, monkeypatch):
    monkeypatch.setattr(jpeg_scan, "has_numba", lambda: False)
    assert _index(encode(picture(60, 60), "JPEG")) is None


def test_a_last_byte_of_ones_is_within_the_scan(encode):
    noise = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    files = [encode(pixels, "JPEG", quality=100) for pixels in noise]
    ends = [file for file in files if file.endswith(b"\xff\x00\xff\xd9")]
    assert ends
    for file in ends:
        _assert_equal_parts(file, draws=4)


def test_a_segment_with_too_short_a_length_has_one(picture, encode):
    encoded = encode(picture(60, 80), "JPEG", keep_rgb=True)
    _assert_equal_parts(encoded[:2] + b"\xff\xe0\x00\x01" + encoded[2:], draws=4)


def test_a_table_without_codes_replaces_another(picture, encode):
    encoded = encode(picture(60, 80), "JPEG")
    scan = encoded.index(b"\xff\xda")
    assert _index(encoded[:scan] + b"\xff\xc4\x00\x13" + bytes(17) + encoded[scan:]) is None


@pytest.mark.parametrize(("height", "width"), [(33, 37), (68, 1)])
def test_a_part_of_a_few_pixels_is_decoded_at_the_scale_of_the_whole(picture, height, width):
    encoded = simplejpeg.encode_jpeg(picture(height, width), colorspace="RGB", colorsubsampling="444")
    last = slice(height - 1, height), slice(width - 1, width)
    part = decode_part(encoded, _index(encoded), *last, shrink=4)
    assert np.array_equal(part.pixels[-1, -1], decode_jpeg(encoded, read_header(encoded), shrink=4)[-1, -1])


def test_what_says_which_colours_these_are_is_copied(picture, encode):
    """Numbers of components that say nothing, and a mark of Adobe that says: not converted."""
    encoded = encode(picture(60, 80), "JPEG", subsampling=0)
    start = 20  # Behind JFIF's mark, which would count for more.
    assert encoded[2:4] == b"\xff\xe0"
    _assert_equal_parts(encoded[:2] + b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5) + encoded[start:])


def test_parts_need_no_torch():
    code = "import sys, effnet.native.jpeg; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_comes_behind_the_picture_does_not_matter(picture, encode):
    """Cameras put a second picture there."""
    first, second = encode(picture(60, 80), "JPEG"), encode(picture(30, 40), "JPEG")
    _assert_equal_parts(first + second)


def test_a_file_that_is_cut_off_has_no_index(picture, encode):
    encoded = encode(picture(40, 60), "JPEG")
    start = read_header(encoded).scan
    for end in range(start, len(encoded) - 2, 7):
        assert _index(encoded[:end]) is None
        assert _index(encoded[:end] + b"\xff\xd9") is None


def test_a_byte_between_the_scan_and_the_end_is_damage(picture, encode):
    encoded = encode(picture(40, 60), "JPEG")
    assert _index(encoded[:-2] + b"\0" + encoded[-2:]) is None


def test_a_file_with_an_index_is_decoded_without_complaint(picture, encode):
    """What was found sound here, libjpeg-turbo must find sound as well; mutations are seldom harmless."""
    rng = np.random.default_rng(0)
    files = [
        encode(picture(40, 60), "JPEG", quality=50, optimize=optimize, subsampling=subsampling)
        for optimize in (False, True)
        for subsampling in (0, 2)
    ]
    sound = 0
    for _ in range(400):
        mutated = bytearray(files[rng.integers(len(files))])
        for place in rng.integers(len(mutated), size=rng.integers(1, 3)):
            mutated[place] = rng.integers(256)
        encoded = bytes(mutated)
        try:
            header = encoded[:2] == b"\xff\xd8" and read_header(encoded)
        except BadImageError:
            continue
        index = index_scan(encoded, header) if header else None
        if index is not None:
            sound += 1
            whole = simplejpeg.decode_jpeg(encoded, "RGB")
            rows, columns = slice(9, min(30, header.height)), slice(17, min(50, header.width))
            part = decode_part(encoded, index, rows, columns)
            if part is not None:
                found = part.pixels[rows.start - part.top :, columns.start - part.left :]
                assert np.array_equal(found[:21, :33], whole[rows, columns])
    assert sound > 40


def test_a_part_that_is_all_of_a_file_has_its_scan(picture):
    """Also the ones that fill up the last byte."""
    for height in range(17, 33):
        encoded = simplejpeg.encode_jpeg(picture(height, 70), colorspace="RGB", colorsubsampling="420")
        part = jpeg.cut(encoded, _index(encoded), jpeg.Part(0, 2, 0, 3, height, 70)).tobytes()
        assert part[part.index(b"\xff\xda") :] == encoded[encoded.index(b"\xff\xda") :]


def test_the_index_of_another_file_is_not_used(picture, encode):
    encoded = encode(picture(60, 80), "JPEG")
    index = _index(encoded)
    for place in (200, len(encoded) // 2, len(encoded) - 3):
        changed = bytearray(encoded)
        changed[place] ^= 1
        assert decode_part(bytes(changed), index, slice(0, 9), slice(0, 9)) is None
    assert decode_part(encoded + b"\0", index, slice(0, 9), slice(0, 9)) is None


def test_an_index_is_small(picture):
    encoded = simplejpeg.encode_jpeg(picture(375, 500), quality=90, colorspace="RGB", colorsubsampling="444")
    index = _index(encoded)
    assert len(index) == jpeg_index.numbers(47 * 16, 3)
    assert index.nbytes < 8000
