"""The upper rows of a JPEG file alone: the same pixels and verdicts as of all of it."""

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from effnet.config import AugmentConfig, DataConfig
from effnet.data import decode, jpeg, jpeg_scan
from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import LabelledImages
from effnet.data.loader import train_batches
from effnet.data.pillow import BadImageError
from effnet.schedule.progressive import StageSchedule


@pytest.fixture
def tops(monkeypatch):
    """List how many rows are asked for from the top; no file has an index."""
    asked = []

    def noting(encoded, header, rows):
        asked.append(rows)
        return jpeg.decode_top(encoded, header, rows)

    monkeypatch.setattr(decode, "decode_top", noting)
    monkeypatch.setattr(jpeg_scan, "index_scan", lambda encoded, header: None)
    return asked


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


def test_a_file_that_was_cut_off_since_is_bad(picture, encode):
    encoded = encode(picture(200, 200), "JPEG")
    with pytest.raises(BadImageError, match="truncated"):
        open_image(encoded[:-200], is_whole=True).decode(Crop(0, 0, 90, 90), 80)


def test_a_run_leaves_rows_out_of_files_that_it_found_whole(picture, encode, stage, tops, monkeypatch):
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
    assert len(tops) >= 8
    monkeypatch.setattr(decode, "saves_rows", lambda *place: False)
    times = len(tops)
    without = list(train_batches(images, schedule, data, AugmentConfig(), seed=1))
    assert len(tops) == times
    for one, other in zip(with_parts, without, strict=True):
        assert one.images.equal(other.images)
        assert one.bad == other.bad
    assert [bad.name for batch in with_parts for bad in batch.bad] == ["2"]
