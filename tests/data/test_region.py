"""A part of a JPEG file alone: the same pixels and verdicts as of all of it."""

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from effnet.config import AugmentConfig, DataConfig
from effnet.data import decode, jpeg, region
from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.data.pillow import BadImageError
from effnet.schedule.progressive import StageSchedule

installed = pytest.mark.skipif(
    not region.is_installed(), reason="needs nvImageCodec: pip install effnet[region]"
)


def _whole_by_simplejpeg(encoded, rows, columns):
    return simplejpeg.decode_jpeg(encoded)[rows, columns]


@pytest.fixture
def parts(monkeypatch):
    """Decode parts, by another library where nvImageCodec is not installed; list which."""
    asked = []
    decode_part = region.decode_region if region.is_installed() else _whole_by_simplejpeg

    def noting(encoded, rows, columns):
        asked.append((rows, columns))
        return decode_part(encoded, rows, columns)

    monkeypatch.setattr(decode, "decode_region", noting)
    monkeypatch.setattr(region, "is_installed", lambda: True)
    monkeypatch.setattr(region, "LEAST_SAVED_PIXELS", 20_000)
    return asked


@pytest.fixture
def tops(monkeypatch):
    """List how many rows are asked for from the top; there is no nvImageCodec."""
    asked = []

    def noting(encoded, header, rows):
        asked.append(rows)
        return jpeg.decode_top(encoded, header, rows)

    monkeypatch.setattr(decode, "decode_top", noting)
    monkeypatch.setattr(region, "is_installed", lambda: False)
    return asked


@installed
@pytest.mark.parametrize("chroma", ["444", "422", "420", "440", "411"])
def test_the_pixels_are_those_of_the_whole(picture, chroma):
    pixels = picture(171, 133)
    encoded = simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling=chroma)
    _assert_equal_parts(encoded)


@installed
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"keep_rgb": True},
        {"restart_marker_rows": 1},
        {"quality": 5},
        {"mode": "L"},
    ],
)
def test_the_pixels_are_those_of_the_whole_in_every_coding(picture, encode, options):
    for mode in ("RGB", "L"):
        _assert_equal_parts(encode(Image.fromarray(picture(171, 133)).convert(mode), "JPEG", **options))


def _assert_equal_parts(encoded):
    whole = simplejpeg.decode_jpeg(encoded)
    rng = np.random.default_rng(0)
    for _ in range(60):
        top, bottom = np.sort(rng.choice(172, 2, replace=False)).tolist()
        left, right = np.sort(rng.choice(134, 2, replace=False)).tolist()
        rows, columns = slice(top, bottom), slice(left, right)
        assert np.array_equal(region.decode_region(encoded, rows, columns), whole[rows, columns])


@pytest.mark.parametrize("chroma", ["444", "422", "420", "440", "411"])
def test_the_top_rows_are_those_of_the_whole(picture, chroma):
    pixels = picture(171, 133)
    _assert_equal_tops(simplejpeg.encode_jpeg(pixels, quality=90, colorspace="RGB", colorsubsampling=chroma))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"keep_rgb": True}, {"quality": 5}, {"quality": 100}])
def test_the_top_rows_are_those_of_the_whole_in_every_coding(picture, encode, options, mode):
    image = Image.fromarray(picture(171, 133)).convert(mode)
    _assert_equal_tops(encode(image, "JPEG", **options))


def _assert_equal_tops(encoded):
    header, whole = jpeg.read_header(encoded), simplejpeg.decode_jpeg(encoded)
    for rows in range(1, 172):
        assert np.array_equal(jpeg.decode_top(encoded, header, rows), whole[:rows])


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 3}]
)
def test_the_top_of_what_is_not_coded_in_one_go_is_not_asked_for(picture, encode, tops, options):
    encoded = encode(picture(200, 200), "JPEG", **options)
    assert jpeg.read_header(encoded).height_place is None
    open_image(encoded, is_whole=True).decode(Crop(0, 0, 90, 90), 80)
    assert tops == []


def test_the_top_of_a_picture_with_another_picture_inside_is_its_own(picture, encode):
    """A camera puts a small picture in front of the large one."""
    small, large = encode(picture(60, 80), "JPEG"), encode(picture(200, 160, seed=1), "JPEG")
    segment = b"\xff\xe1" + (len(small) + 8).to_bytes(2, "big") + b"Exif\0\0" + small
    encoded = large[:2] + segment + large[2:]
    top = jpeg.decode_top(encoded, jpeg.read_header(encoded), 100)
    assert np.array_equal(top[:100], simplejpeg.decode_jpeg(large)[:100])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("crop", [Crop(20, 30, 180, 90), Crop(0.25, 0.5, 199.75, 99.5), Crop(0, 0, 1, 1)])
def test_rows_below_a_crop_of_a_whole_file_are_left_out(picture, encode, tops, crop, antialias):
    encoded = encode(picture(200, 200), "JPEG")
    whole, place = open_image(encoded).decode(crop, 80, antialias=antialias)
    top, inside = open_image(encoded, is_whole=True).decode(crop, 80, antialias=antialias)
    assert len(tops) == 1
    assert crop.y + crop.height <= len(top) < 140
    assert np.array_equal(top, whole[: len(top)])
    assert inside == place


@pytest.mark.parametrize(
    ("crop", "orientation", "size"),
    [(Crop(0, 0, 90, 190), 1, 80), (Crop(0, 0, 90, 90), 6, 80), (Crop(0, 0, 140, 140), 1, 20)],
    ids=["most of it", "turned", "at a scale"],
)
def test_the_top_is_not_asked_for_where_it_is_not_worth_it(encode, tops, crop, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(Image.linear_gradient("L").resize((200, 200)), "JPEG", exif=exif)
    open_image(encoded, is_whole=True).decode(crop, size)
    assert tops == []


def test_damage_above_is_found_and_damage_below_is_left_out(picture, encode, tops):
    encoded = encode(picture(200, 200), "JPEG", quality=95)
    crop = Crop(0, 0, 100, 100)
    whole = open_image(encoded).decode(crop, 80)[0]
    for place in range(1000, len(encoded) - 200, 500):
        spoilt = encoded[:place] + jpeg.JPEG_END + encoded[place + 2 :]
        if place < len(encoded) * 0.4:
            with pytest.raises(BadImageError, match="truncated"):
                open_image(spoilt, is_whole=True).decode(crop, 80)
        elif place > len(encoded) * 0.7:
            top = open_image(spoilt, is_whole=True).decode(crop, 80)[0]
            assert np.array_equal(top[:100], whole[:100])
    assert len(tops) > 5


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("crop", [Crop(20, 30, 100, 90), Crop(100.25, 100.5, 99.75, 99.5), Crop(0, 0, 1, 1)])
def test_a_part_of_a_whole_file_is_decoded_alone(picture, encode, parts, crop, antialias):
    encoded = encode(picture(200, 200), "JPEG")
    whole, place = open_image(encoded).decode(crop, 80, antialias=antialias)
    part, inside = open_image(encoded, is_whole=True).decode(crop, 80, antialias=antialias)
    assert len(parts) == 1
    assert part.size < 0.5 * whole.size
    rows, columns = parts[0]
    assert np.array_equal(part, whole[rows, columns])
    assert (inside.x + columns.start, inside.y + rows.start) == (place.x, place.y)
    assert [edge.start for edge in inside.rounded(*part.shape[:2])] == [
        edge.start - start
        for edge, start in zip(place.rounded(*whole.shape[:2]), (rows.start, columns.start), strict=True)
    ]
    assert (inside.width, inside.height) == (place.width, place.height)


@pytest.mark.parametrize(
    ("crop", "orientation", "size"),
    [(Crop(0, 0, 180, 180), 1, 80), (Crop(0, 0, 90, 90), 6, 80), (Crop(0, 0, 140, 140), 1, 20)],
    ids=["most of it", "turned", "at a scale"],
)
def test_a_part_is_not_asked_for_where_it_is_not_worth_it(encode, parts, crop, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(Image.linear_gradient("L").resize((200, 200)), "JPEG", exif=exif)
    open_image(encoded, is_whole=True).decode(crop, size)
    assert parts == []


def test_a_small_picture_is_decoded_whole(picture, encode, parts):
    open_image(encode(picture(100, 100), "JPEG"), is_whole=True).decode(Crop(0, 0, 9, 9), 9)
    assert parts == []


def test_a_file_that_was_cut_off_since_is_bad(picture, encode, parts):
    encoded = encode(picture(200, 200), "JPEG")
    with pytest.raises(BadImageError, match="truncated"):
        open_image(encoded[:-200], is_whole=True).decode(Crop(0, 0, 90, 90), 80)


def test_a_run_leaves_rows_out_of_files_that_it_found_whole(picture, encode, stage, tops, monkeypatch):
    _check_a_run(picture, encode, stage, tops, monkeypatch, name="saves_rows")


def test_a_run_decodes_parts_of_files_that_it_found_whole(picture, encode, stage, parts, monkeypatch):
    _check_a_run(picture, encode, stage, parts, monkeypatch, name="saves_enough")


def _check_a_run(picture, encode, stage, asked, monkeypatch, *, name):
    """The damaged file has its damage below every crop; without parts it is found, so it must be with."""
    files = [encode(picture(200, 200, index), "JPEG") for index in range(4)]
    files[2] = files[2][:-200] + b"\xff\xd9"
    images = LabelledImages(
        class_names=("even", "odd"),
        labels=np.arange(4, dtype=np.int64) % 2,
        names=("0", "1", "2", "3"),
        read=lambda index: files[index],
    )
    schedule = StageSchedule((stage(end_step=6, batch_size=2, image_size=64),), 4, 2)
    data = DataConfig(workers=1, crop_area=(0.1, 0.3), max_bad_fraction=0.5)
    with_parts = list(train_batches(images, schedule, data, AugmentConfig(), seed=1))
    assert len(asked) >= 8
    monkeypatch.setattr(decode, name, lambda *place: False)
    times = len(asked)
    without = list(train_batches(images, schedule, data, AugmentConfig(), seed=1))
    assert len(asked) == times
    for one, other in zip(with_parts, without, strict=True):
        assert one.images.equal(other.images)
        assert one.bad == other.bad
    assert [bad.name for batch in with_parts for bad in batch.bad] == ["2"]
