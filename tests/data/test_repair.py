import numpy as np
import pytest
from PIL import Image

from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.bad_images import BadImage
from effnet.data.decode import decode_image
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, train_batches
from effnet.data.pillow import BadImageError, TruncatedImageError
from effnet.data.repair import GREY, repair_image
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule

REASON = "the JPEG data is truncated"


def _rows_of(reason):
    """Return how many rows are grey, and of how many."""
    head, _, tail = reason.partition("; repaired, ")
    missing, total = (int(word) for word in tail.removesuffix(" rows are grey").split(" of "))
    return head, missing, total


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "restart_marker_rows": 1}),
        ("JPEG", {"quality": 90, "mode": "L"}),
        ("JPEG", {"quality": 90, "mode": "CMYK"}),
        ("PNG", {}),
        ("PNG", {"mode": "RGBA"}),
        ("PNG", {"mode": "P"}),
    ],
)
def test_what_is_there_is_kept_and_the_rest_is_grey(picture, encode, kind, options):
    mode = options.get("mode", "RGB")
    image = Image.fromarray(picture(120, 90)).convert(mode)
    encoded = encode(image, kind, **{key: value for key, value in options.items() if key != "mode"})
    whole = decode_image(encoded)
    part = encoded[: len(encoded) * 3 // 4]
    with pytest.raises(TruncatedImageError) as caught:
        decode_image(part)
    repaired = repair_image(part, caught.value.reason)
    head, missing, total = _rows_of(repaired.reason)
    assert head == caught.value.reason == f"the {kind} data is truncated"
    assert total == 120
    assert 15 < missing < 60
    assert (repaired.pixels[-missing:] == GREY).all()
    # The last rows may be there in part: a row of blocks and the colour next to it, or a row.
    complete = 120 - missing - (18 if kind == "JPEG" else 1)
    assert np.array_equal(repaired.pixels[:complete], whole[:complete])


def test_a_jpeg_that_lost_only_its_end_marker_is_complete(picture, encode):
    encoded = encode(picture(60, 80), "JPEG")
    repaired = repair_image(encoded[:-2], REASON)
    assert np.array_equal(repaired.pixels, decode_image(encoded))
    assert repaired.reason == f"{REASON}; repaired, 0 of 60 rows are grey"


def test_a_progressive_jpeg_becomes_coarse(picture, encode):
    encoded = encode(picture(120, 90), "JPEG", progressive=True)
    repaired = repair_image(encoded[: len(encoded) * 3 // 4], REASON)
    difference = np.abs(repaired.pixels.astype(int) - decode_image(encoded)).mean()
    assert 0 < difference < 8


def test_a_repaired_image_is_upright(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(picture(120, 90), "JPEG", exif=exif, quality=90)
    repaired = repair_image(encoded[: len(encoded) * 3 // 4], REASON)
    assert repaired.pixels.shape == (90, 120, 3)
    _, missing, total = _rows_of(repaired.reason)
    assert total == 120  # Of the stored rows, which are columns now.
    assert (repaired.pixels[:, :missing] == GREY).all()


def test_a_file_with_less_than_half_of_its_rows_is_bad(picture, encode):
    for kind in ("JPEG", "PNG"):
        encoded = encode(picture(120, 90), kind)
        with pytest.raises(BadImageError, match=r"^broken; only [1-5]\d of 120 rows are there$"):
            repair_image(encoded[: len(encoded) * 2 // 5], "broken")


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "GIF", "BMP", "TIFF"])
def test_a_file_of_another_format_is_not_repaired(picture, encode, kind):
    encoded = encode(picture(60, 80), kind)
    with pytest.raises(BadImageError, match=r"broken|damaged"):
        repair_image(encoded[: len(encoded) * 9 // 10], "broken")


def test_damage_that_is_no_break_is_not_repaired(picture, encode):
    encoded = encode(picture(60, 80), "PNG")
    changed = bytearray(encoded)
    changed[len(encoded) // 2] ^= 255
    with pytest.raises(BadImageError, match=r"^the PNG file is damaged: a checksum is wrong$") as caught:
        decode_image(bytes(changed))
    assert not isinstance(caught.value, TruncatedImageError)


# In a run


@pytest.fixture
def images(picture, encode):
    """Eight images, of which 2 can be repaired, 4 has too little to show and 5 is no image."""
    files = [encode(picture(60, 80, index), "JPEG", quality=90) for index in range(8)]
    files[2] = files[2][: len(files[2]) * 4 // 5]
    files[4] = files[4][: len(files[4]) * 2 // 5]
    files[5] = b"nothing"
    return LabelledImages(
        class_names=("even", "odd"),
        labels=np.arange(8, dtype=np.int64) % 2,
        names=tuple(f"image {index}" for index in range(8)),
        read=lambda index: files[index],
    )


def _train(images, stage, workers=2, **options):
    schedule = StageSchedule((stage(end_step=6, batch_size=4, image_size=32),), 8, 4)
    data = DataConfig(workers=workers, crop_area=(1.0, 1.0), flip=False, **options)
    return list(train_batches(images, schedule, data, AugmentConfig(operations=0), seed=1))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_that_repairs_uses_and_reports_it_once(images, stage, workers):
    batches = _train(images, stage, workers, damaged="repair", max_bad_fraction=0.5)
    reports = {bad.name: bad.reason for batch in batches for bad in batch.bad}
    assert sum(len(batch.bad) for batch in batches) == len(reports) == 3
    assert reports["image 2"].startswith("the JPEG data is truncated; repaired, ")
    assert reports["image 4"].startswith("the JPEG data is truncated; only ")
    assert reports["image 5"] == "not an image of a known format"
    greys = [(image[-4:] == GREY).all(dtype=bool) for batch in batches for image in batch.images.numpy()]
    assert sum(greys) == 3  # Once in each of three epochs.


def test_a_run_that_skips_replaces_it(images, stage):
    batches = _train(images, stage, damaged="skip", max_bad_fraction=0.5)
    reports = [bad for batch in batches for bad in batch.bad]
    assert BadImage("image 2", "the JPEG data is truncated") in reports
    assert not any((image[-4:] == GREY).all() for batch in batches for image in batch.images.numpy())


def test_repaired_images_count_as_bad(images, stage):
    with pytest.raises(UserError, match=r"3 of 8 .*image 2: the JPEG data is truncated; repaired"):
        _train(images, stage, damaged="repair", max_bad_fraction=0.25)


def test_evaluation_repairs_nothing(images):
    batches = list(eval_batches(images, Preprocessing(image_size=16), batch_size=8))
    assert [bad.name for batch in batches for bad in batch.bad] == ["image 2", "image 4", "image 5"]
