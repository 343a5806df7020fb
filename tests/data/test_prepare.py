import io
import json
import os
import shutil
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from effnet.config import AugmentConfig, DataConfig
from effnet.data import copying, prepare, shards
from effnet.data.copies import Copies, CopySettings, make_copies, sides_for
from effnet.data.crops import Crop
from effnet.data.decode import decode_image, open_image
from effnet.data.loader import train_batches
from effnet.data.pillow import BadImageError
from effnet.data.prepare import predict_store, prepare_store
from effnet.data.shards import pack, write_table
from effnet.data.sources import open_data
from effnet.data.store import MANIFEST, open_store, read_manifest
from effnet.data.transforms import resize_crop
from effnet.data.verify import verify_store
from effnet.errors import UserError

SETTINGS = CopySettings(short_sides=(12, 20))


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture
def pets(class_folders):
    """Nine cats and four dogs of 20 to 28 x 24 px."""
    return class_folders({"cat": 9, "dog": 4})


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "MOST_IMAGES", 3)


@pytest.fixture
def spoil(pets):
    """Make images of the cats unreadable: ``spoil(0, 5)``."""

    def spoil(*numbers):
        for number in numbers:
            (pets / "cat" / f"cat_{number:02}.jpg").write_bytes(b"no image")

    return spoil


# Sizes


def test_copies_serve_every_stage_and_the_evaluation():
    assert sides_for((128, 192, 256, 320), 320) == (160, 240, 320, 400)
    assert sides_for((128, 185, 242, 300), 384) == (160, 232, 304, 384)
    assert sides_for((300,), 384) == (384,)
    assert sides_for((128,), 200) == (160, 200)
    assert sides_for((8, 16), 19) == (16, 24)


@given(sizes=st.lists(st.integers(8, 600), min_size=1, max_size=6), evaluated=st.integers(8, 600))
@settings(deadline=None)
def test_every_stage_has_a_copy_for_its_crops(sizes, evaluated):
    sides = sides_for(sizes, evaluated)
    assert list(sides) == sorted(sides)
    assert all(side % 8 == 0 for side in sides)
    for wanted in [1.25 * size for size in sizes] + [evaluated]:
        nearest = next(side for side in sides if side >= wanted)
        assert nearest < 1.1 * (wanted + 8)


# Copies of one image


def test_copies_have_the_shapes_of_their_levels(picture, encode):
    copies = make_copies(encode(picture(60, 90), "PNG"), CopySettings(short_sides=(16, 40, 60, 80)))
    assert (copies.height, copies.width) == (60, 90)
    assert [file and decode_image(file).shape for file in copies.files] == [
        (16, 24, 3),
        (40, 60, 3),
        (60, 90, 3),
        None,
    ]


def test_raw_copies_are_pixels(picture):
    pixels = picture(20, 30)
    copies = make_copies(pixels, CopySettings(short_sides=(10, 20), encoding="raw"))
    small, full = copies.files
    assert full == pixels.tobytes()
    shrunk = np.frombuffer(small, np.uint8).reshape(10, 15, 3)
    expected = Image.fromarray(pixels).resize((15, 10), Image.Resampling.BICUBIC)
    assert np.abs(shrunk.astype(int) - np.asarray(expected)).max() <= 1


def test_an_image_on_its_side_is_stored_upright(picture, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    copies = make_copies(encode(picture(20, 40), "JPEG", exif=exif), CopySettings(short_sides=(10, 99)))
    assert (copies.height, copies.width) == (40, 20)
    assert [decode_image(file).shape for file in copies.files] == [(20, 10, 3), (40, 20, 3)]


@pytest.mark.parametrize(("chroma", "quality"), [("444", 95), ("422", 80), ("420", 50)])
def test_quality_and_chroma_are_those_asked_for(picture, chroma, quality):
    def copy(quality):
        asked = CopySettings(short_sides=(64,), quality=quality, chroma=chroma)
        return make_copies(picture(64, 64), asked).files[0]

    assert simplejpeg.decode_jpeg_header(copy(quality))[3] == chroma
    assert len(copy(quality)) > len(copy(quality - 20))


def test_a_small_plain_original_is_kept_as_it_is(picture, encode):
    original = encode(picture(30, 30), "JPEG", quality=60)
    small, full = make_copies(original, CopySettings(short_sides=(16, 32))).files
    assert full == original
    assert small != original


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 98, "subsampling": "4:4:4"}),
        ("JPEG", {"quality": 60, "progressive": True}),
        ("JPEG", {"quality": 60, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}),
        ("JPEG", {"quality": 60, "icc_profile": b"a profile"}),
        ("WEBP", {"quality": 20}),
    ],
)
def test_an_original_that_is_large_or_slow_to_read_is_written_anew(picture, encode, kind, options):
    original = encode(picture(30, 30), kind, **options)
    (full,) = make_copies(original, CopySettings(short_sides=(32,))).files
    assert full != original
    with Image.open(io.BytesIO(full)) as image:
        assert (image.format, set(image.info) & {"progressive", "exif", "icc_profile"}) == ("JPEG", set())


def test_an_original_that_another_reader_would_show_differently_is_written_anew(picture, encode):
    original = encode(Image.fromarray(picture(30, 30)).convert("CMYK"), "JPEG", quality=10)
    (full,) = make_copies(original, CopySettings(short_sides=(32,), quality=100)).files
    assert len(original) < len(full)
    with Image.open(io.BytesIO(full)) as image:
        assert image.mode == "RGB"


def test_raw_copies_never_are_the_original_file(picture, encode):
    original = encode(picture(30, 30), "JPEG", quality=20)
    (full,) = make_copies(original, CopySettings(short_sides=(32,), encoding="raw")).files
    assert full == decode_image(original).tobytes()


def test_an_image_too_long_for_jpeg_is_a_bad_one():
    long = np.zeros((1, 70_000, 3), np.uint8)
    with pytest.raises(BadImageError, match="a copy of 70000 x 1 pixels; JPEG has 65500 a side"):
        make_copies(long, CopySettings(short_sides=(8,)))
    raw = make_copies(long, CopySettings(short_sides=(8,), encoding="raw"))
    assert raw.files == (long.tobytes(),)


@pytest.mark.parametrize(
    "changes", [{"short_sides": ()}, {"short_sides": (20, 12)}, {"short_sides": (0,)}, {"quality": 101}]
)
def test_settings_that_make_no_sense_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        CopySettings(**({"short_sides": (12,)} | changes))


@given(
    data=st.data(),
    height=st.integers(60, 120),
    width=st.integers(60, 120),
    size=st.sampled_from([16, 24, 32]),
)
@settings(max_examples=30, deadline=None)
def test_a_crop_of_a_copy_looks_like_that_of_the_original(data, height, width, size):
    rows, columns = np.mgrid[0:height, 0:width] * (2 * np.pi)
    waves = [np.sin(rows / height), np.cos(columns / width), np.sin(rows / height + columns / width)]
    pixels = np.stack([127 + 90 * wave for wave in waves], axis=-1).astype(np.uint8)
    side = data.draw(st.integers(40, min(height, width)))
    x, y = data.draw(st.integers(0, width - side)), data.draw(st.integers(0, height - side))
    made = make_copies(pixels, CopySettings(short_sides=(40, 160), chroma="444"))
    crop = Crop(x, y, side, side)
    shown = []
    for encoded in (pixels, made.files[0]):
        picture = open_image(encoded)
        scaled = crop.scaled(picture.width / width, picture.height / height)
        out = np.empty((size, size, 3), np.uint8)
        resize_crop(pixels_of(picture), scaled, interpolation="bicubic", antialias=True, out=out)
        shown.append(out.astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 2.5


def pixels_of(picture):
    return picture.decode(Crop(0, 0, picture.width, picture.height), max(picture.width, picture.height))[0]


# Whole stores


def test_a_store_has_the_images_in_order_with_names_and_labels(pets, tmp_path):
    result = prepare_store(str(pets), tmp_path / "store", SETTINGS)
    assert (result.images, result.bad_images, result.made) == ({"train": 13}, 0, 13)
    original = open_data(str(pets), val_fraction=0.3, split_seed=0)
    stored = open_data(str(tmp_path / "store"), val_fraction=0.3, split_seed=0)
    assert stored.class_names == original.class_names
    for part, expected in ((stored.train, original.train), (stored.val, original.val)):
        assert list(part.names) == list(expected.names)
        assert part.labels.tolist() == expected.labels.tolist()
        for index in range(len(part)):
            pyramid, pixels = part.read(index), decode_image(expected.read(index))
            assert (pyramid.height, pyramid.width) == pixels.shape[:2]
            copies = [decode_image(pyramid.read(place)) for place in range(len(pyramid.short_sides))]
            assert [min(copy.shape[:2]) for copy in copies] == list(pyramid.short_sides)
    manifest = read_manifest(tmp_path / "store")
    assert (manifest.source, manifest.short_sides, manifest.quality) == (str(pets), (12, 20), 90)


def test_a_validation_split_is_kept(class_folders, tmp_path):
    class_folders({"cat": 3, "dog": 2}, under="train")
    source = class_folders({"cat": 1, "dog": 2}, under="val")
    result = prepare_store(str(source), tmp_path / "store", SETTINGS)
    assert result.images == {"train": 5, "val": 3}
    train, val = open_store(tmp_path / "store")
    assert (train.labels.tolist(), val.labels.tolist()) == ([0, 0, 0, 1, 1], [0, 1, 1])
    assert val.names[0] == "val/cat/cat_00.jpg"
    assert train.read(0).read(0) != val.read(1).read(0)


def test_digits_are_their_own_small_copies(tmp_path):
    prepare_store("digits", tmp_path / "store", CopySettings(short_sides=(32,), encoding="raw"))
    original, stored = (
        open_data(source, val_fraction=0.2, split_seed=0) for source in ("digits", str(tmp_path / "store"))
    )
    assert list(stored.val.names) == list(original.val.names)
    assert all(
        np.array_equal(stored.val.read(index).read(0), original.val.read(index))
        for index in range(len(stored.val))
    )


def test_parquet_files_can_be_prepared(picture, encode, tmp_path):
    images = [{"bytes": encode(picture(20, 24, seed), "PNG")} for seed in range(4)]
    pq.write_table(pa.table({"image": images, "label": [1, 0, 1, 0]}), tmp_path / "train.parquet")
    prepare_store(str(tmp_path / "train.parquet"), tmp_path / "store", SETTINGS)
    train, _ = open_store(tmp_path / "store")
    assert (train.class_names, train.labels.tolist()) == (("0", "1"), [1, 0, 1, 0])
    assert train.names[2] == "train.parquet[2]"


def test_batches_of_a_store_show_the_same_crops(pets, tmp_path, two_stages):
    prepare_store(
        str(pets), tmp_path / "store", CopySettings(short_sides=(20, 32), quality=100, chroma="444")
    )

    def batches(source):
        train, _ = prepare.open_splits(source)
        return list(
            train_batches(
                train, two_stages(len(train)), DataConfig(workers=1), AugmentConfig(operations=0), seed=3
            )
        )

    pairs = list(zip(batches(str(pets)), batches(str(tmp_path / "store")), strict=True))
    for original, stored in pairs:
        assert original.labels.tolist() == stored.labels.tolist()
    differences = [np.abs(a.images.numpy().astype(int) - b.images.numpy()).mean() for a, b in pairs]
    assert np.mean(differences) < 6


@pytest.mark.parametrize("antialias", [False, True])
def test_pixels_of_a_raw_store_are_read_but_not_written_to(pets, tmp_path, two_stages, antialias):
    prepare_store(str(pets), tmp_path / "store", CopySettings(short_sides=(20,), encoding="raw"))
    before = contents(tmp_path / "store")
    train, _ = open_store(tmp_path / "store")
    config = DataConfig(workers=1, antialias=antialias, crop_area=(1.0, 1.0))
    for batch in train_batches(train, two_stages(13), config, AugmentConfig(), seed=0):
        assert batch.bad == ()
    assert contents(tmp_path / "store") == before


# The same however it is made


@pytest.mark.usefixtures("small_shards")
def test_workers_do_not_change_a_store(pets, spoil, tmp_path):
    spoil(4)
    for workers, kind in ((1, "auto"), (3, "auto"), (4, "threads"), (2, "processes")):
        prepare_store(
            str(pets),
            tmp_path / str(workers),
            SETTINGS,
            workers=workers,
            worker_kind=kind,
            max_bad_fraction=0.2,
        )
    for workers in (2, 3, 4):
        assert contents(tmp_path / str(workers)) == contents(tmp_path / "1")
    names = set(contents(tmp_path / "1"))
    assert {name for name in names if name.endswith("-12.arrow")} == {
        f"train-{number:05}-12.arrow" for number in range(4)
    }


def test_processes_that_cannot_read_the_originals_are_refused_before_anything_is_written(
    monkeypatch, tmp_path
):
    train, _ = prepare.open_splits("digits")
    unsendable = replace(train, read=lambda index: b"")
    monkeypatch.setattr(prepare, "open_splits", lambda *_: (unsendable, None))
    with pytest.raises(UserError, match=r"--worker-kind is 'processes', but .*; set --worker-kind=threads"):
        prepare_store("digits", tmp_path / "store", SETTINGS, worker_kind="processes")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(("workers", "fewest", "count"), [(4, 9, 1), (3, 9, 0), (4, 99, 0)])
def test_processes_copy_many_images_by_themselves(pets, monkeypatch, workers, fewest, count):
    processes = MagicMock()
    monkeypatch.setattr(copying, "FEWEST_IMAGES", fewest)
    monkeypatch.setattr(copying, "WorkerProcesses", processes)
    splits = {"train": prepare.open_splits(str(pets))[0]}
    with copying.copier(splits, SETTINGS, workers=workers, worker_kind="auto"):
        assert processes.__getitem__.return_value.call_count == count


class Killed(BaseException):
    """Ends the work as if by a signal."""


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("at", [1, 4, 7, 13])
def test_an_interrupted_store_is_continued_to_the_same_bytes(pets, spoil, tmp_path, at):
    spoil(1, 8)
    prepare_store(str(pets), tmp_path / "whole", SETTINGS, max_bad_fraction=0.2)

    def kill(done, total):
        assert total == 13
        if done == at:
            raise Killed

    with pytest.raises(Killed):
        prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.2, report=kill)
    assert not (tmp_path / "store" / MANIFEST).exists()
    with pytest.raises(UserError, match="is not prepared to its end"):
        open_store(tmp_path / "store")
    seen = []
    result = prepare_store(
        str(pets),
        tmp_path / "store",
        SETTINGS,
        max_bad_fraction=0.2,
        report=lambda done, _: seen.append(done),
    )
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert seen == list(range(14 - result.made, 14))
    assert (result.made < 13) == (at > 4)  # A shard ends with the fourth image, for the second is bad.


@pytest.mark.usefixtures("small_shards")
def test_a_line_that_was_cut_off_is_written_again(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    before = contents(tmp_path / "store")
    journal = tmp_path / "store" / "prepared.jsonl"
    os.truncate(journal, journal.stat().st_size - 40)
    (tmp_path / "store" / MANIFEST).unlink()
    assert prepare_store(str(pets), tmp_path / "store", SETTINGS).made == 1
    assert contents(tmp_path / "store") == before


@pytest.mark.usefixtures("small_shards")
def test_a_finished_store_is_left_as_it_is(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    result = prepare_store(str(pets), tmp_path / "store", SETTINGS)
    assert (result.made, result.prediction, result.images) == (0, None, {"train": 13})


@pytest.mark.usefixtures("small_shards")
def test_lost_files_alone_are_written_again(pets, spoil, tmp_path):
    spoil(4)
    prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.1)
    before = contents(tmp_path / "store")
    (tmp_path / "store" / "train-00001-12.arrow").unlink()
    (tmp_path / "store" / "train-index.arrow").unlink()
    os.truncate(tmp_path / "store" / "train-00003-20.arrow", 10)
    result = prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.1)
    assert (result.made, result.bad_images) == (4 + 3, 1)
    assert contents(tmp_path / "store") == before


@pytest.mark.usefixtures("small_shards")
def test_lost_files_cannot_be_made_of_other_images(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    (tmp_path / "store" / "train-00000-12.arrow").unlink()
    shutil.copy(pets / "dog" / "dog_00.jpg", pets / "cat" / "cat_01.jpg")
    with pytest.raises(
        UserError, match=r"have changed since '.*store' was prepared from them; delete the store"
    ):
        prepare_store(str(pets), tmp_path / "store", SETTINGS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"short_sides": (12, 16)}, r"was begun with short_sides \[12, 20\], not \[12, 16\]; choose"),
        ({"encoding": "raw"}, r"was begun with encoding jpeg, not raw; choose another folder with --out"),
        ({"quality": 80}, "was begun with quality 90, not 80"),
        ({"chroma": "444"}, "was begun with chroma 420, not 444"),
    ],
)
def test_a_store_keeps_its_settings(pets, tmp_path, changes, message):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    with pytest.raises(UserError, match=message):
        prepare_store(str(pets), tmp_path / "store", CopySettings(**({"short_sides": (12, 20)} | changes)))


def test_a_store_keeps_its_source(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    with pytest.raises(UserError, match=r"was begun from '.*/pets', not 'digits'"):
        prepare_store("digits", tmp_path / "store", SETTINGS)
    (pets / "dog" / "dog_00.jpg").rename(pets / "cat" / "dog_00.jpg")
    with pytest.raises(UserError, match=r"was begun when '.*/pets' had other images"):
        prepare_store(str(pets), tmp_path / "store", SETTINGS)


def test_a_store_without_a_shard_may_be_begun_anew(pets, tmp_path):
    def kill(done, total):
        raise Killed

    with pytest.raises(Killed):
        prepare_store(str(pets), tmp_path / "store", SETTINGS, report=kill)
    (tmp_path / "store" / "train-00000-12.arrow").write_bytes(b"a shard that was not noted")
    prepare_store(str(pets), tmp_path / "store", CopySettings(short_sides=(16,)))
    assert set(contents(tmp_path / "store")) == {
        "bad-images.jsonl",
        "prepared.jsonl",
        "store.json",
        "train-00000-16.arrow",
        "train-index.arrow",
    }


def test_a_damaged_journal_is_told(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    with (tmp_path / "store" / "prepared.jsonl").open("a") as file:
        file.write('{"split": "test"}\n')
    with pytest.raises(
        UserError, match=r"prepared.jsonl' is damaged \(.*\); delete the store and prepare it"
    ):
        prepare_store(str(pets), tmp_path / "store", SETTINGS)


@given(lengths=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=30))
@settings(deadline=None)
def test_shards_divide_the_images_and_end_by_count_or_size(lengths):
    made = ["bad" if n is None else Copies(1, 1, (bytes(n), None)) for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "MOST_IMAGES", 4)
        patch.setattr(shards, "MOST_BYTES", 12)
        packed = list(pack(made, 5, (8, 16)))
    assert [shard.start for shard in packed] == [5, *(shard.stop for shard in packed)][: len(packed)]
    assert (packed[-1].stop if packed else 5) == 5 + len(lengths)
    for shard in packed:
        own = lengths[shard.start - 5 : shard.stop - 5]
        assert shard.columns[0] == [bytes(n) for n in own if n is not None]
        assert set(shard.bad) == {shard.start + i for i, n in enumerate(own) if n is None}
        assert len(shard.sizes) <= 4
        assert sum(n or 0 for n in own[:-1]) < 12
    assert all(len(shard.sizes) == 4 or shard.level_bytes[0] >= 12 for shard in packed[:-1])


# Bad images


@pytest.mark.usefixtures("small_shards")
def test_bad_images_are_left_out_and_named_once(pets, spoil, tmp_path):
    spoil(0, 5)
    (pets / "dog" / "dog_03.jpg").unlink()
    (pets / "dog" / "dog_03.jpg").mkdir()
    (pets / "dog" / "dog_02.jpg").write_bytes(b"")
    result = prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.4)
    assert (result.images, result.bad_images) == ({"train": 9}, 4)
    records = [
        json.loads(line) for line in (tmp_path / "store" / "bad-images.jsonl").read_text().splitlines()
    ]
    assert records == [
        {"name": "cat/cat_00.jpg", "reason": "not an image of a known format"},
        {"name": "cat/cat_05.jpg", "reason": "not an image of a known format"},
        {"name": "dog/dog_02.jpg", "reason": "the file is empty"},
        {"name": "dog/dog_03.jpg", "reason": "is a folder"},
    ]
    train, _ = open_store(tmp_path / "store")
    assert set(train.names).isdisjoint(record["name"] for record in records)
    assert train.names[-1] == "dog/dog_01.jpg"
    assert [min(train.read(index).height, 24) for index in (0, 1)] == [21, 22]


def test_too_many_bad_images_stop_the_work(pets, spoil, tmp_path):
    spoil(0, 1, 2)
    with pytest.raises(
        UserError,
        match=r"2 images cannot be read, more than --max-bad-fraction allows; .*bad-images.jsonl, the first "
        r"is cat/cat_00.jpg: not an image",
    ):
        prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.1)
    assert (tmp_path / "store" / "bad-images.jsonl").read_text().count("\n") == 2
    assert prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.3).bad_images == 3
    with pytest.raises(UserError, match="3 images cannot be read"):
        prepare_store(str(pets), tmp_path / "store", SETTINGS, max_bad_fraction=0.1)


def test_a_split_without_a_readable_image_is_told(class_folders, tmp_path):
    source = class_folders({"cat": 2, "dog": 2}, under="train")
    class_folders({"cat": 1}, under="val")
    (source / "val" / "cat" / "cat_00.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the images that were tried can be read"):
        prepare_store(str(source / "val"), tmp_path / "val", SETTINGS, max_bad_fraction=1.0)
    with pytest.raises(UserError, match="none of the 1 images of split 'val' can be read"):
        prepare_store(str(source), tmp_path / "store", SETTINGS, max_bad_fraction=1.0)


# What is refused


def test_a_store_cannot_be_prepared_from_a_store(pets, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    for source in (str(tmp_path / "store"), "https://host.invalid/store"):
        with pytest.raises(UserError, match=f"'{source}' is a prepared store; give the originals"):
            prepare_store(source, tmp_path / "again", SETTINGS)


def test_a_store_may_not_lie_where_it_would_do_harm(pets, tmp_path):
    with pytest.raises(
        UserError, match=r"would lie among its images in .*; choose another folder with --out"
    ):
        prepare_store(str(pets), pets / "cat" / "store", SETTINGS)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"'.*file' is a file; choose a new or empty folder with --out"):
        prepare_store(str(pets), tmp_path / "file", SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"'.*full' has files but is no store; choose a new or empty folder"):
        prepare_store(str(pets), tmp_path / "full", SETTINGS)
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_a_disk_that_is_too_full_is_told_before_the_work(pets, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2000))
    with pytest.raises(
        UserError, match=r"needs some 0.0 GB more, but the disk of '.*store' has 0.0 GB; give fewer"
    ):
        prepare_store(str(pets), tmp_path / "store", SETTINGS)
    assert not list((tmp_path / "store").glob("*.arrow"))


def test_a_disk_that_gives_back_something_else_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "file_sha256", lambda _: "0" * 64)
    batch = pa.record_batch([pa.array([b"a"], pa.large_binary())], schema=shards.IMAGE_SCHEMA)
    with pytest.raises(
        OSError, match=r"images.arrow' reads differently from what was written; check the disk"
    ):
        write_table(tmp_path / "images.arrow", [batch])


# Prediction


def test_a_prediction_of_few_images_is_exact_and_writes_nothing(pets, tmp_path):
    prediction = predict_store(str(pets), SETTINGS)
    assert prediction.images == 13
    train, _ = prepare.open_splits(str(pets))
    copies = [make_copies(train.read(index), SETTINGS) for index in range(13)]
    sizes = [sum(len(copy.files[level] or b"") for copy in copies) for level in (0, 1)]
    assert prediction.level_bytes == dict(zip((12, 20), sizes, strict=True))
    assert prediction.bytes == sum(sizes)
    assert prediction.seconds > 0
    assert [file.name for file in tmp_path.iterdir()] == ["pets"]
    result = prepare_store(str(pets), tmp_path / "store", SETTINGS)
    assert result.prediction.level_bytes == prediction.level_bytes
    assert result.bytes == sum(file.stat().st_size for file in (tmp_path / "store").glob("train-0*.arrow"))


def test_a_prediction_tries_images_from_the_whole_range(monkeypatch):
    tried = []

    def read_digit(index):
        tried.append(index)
        return np.zeros((8, 8, 3), np.uint8)

    train, _ = prepare.open_splits("digits")
    monkeypatch.setattr(prepare, "open_splits", lambda *_: (replace(train, read=read_digit), None))
    prediction = predict_store("digits", CopySettings(short_sides=(8,), encoding="raw"))
    assert prediction.level_bytes == {8: 1797 * 8 * 8 * 3}
    assert (len(tried), min(tried), max(tried)) == (128, 0, 1796)
    assert len(np.unique(np.array(tried) // 200)) == 8


# Verifying


@pytest.fixture
def stored(pets, small_shards, tmp_path):
    prepare_store(str(pets), tmp_path / "store", SETTINGS)
    return tmp_path / "store"


def test_a_whole_store_is_found_whole(stored):
    seen = []
    assert verify_store(stored, report=lambda done, total: seen.append((done, total))) == ()
    assert seen[-1] == (1 + 2 * 5 + 13, 1 + 2 * 5 + 13)


def test_damaged_files_are_found_and_their_images_not_looked_at(stored):
    changed = bytearray((stored / "train-00001-12.arrow").read_bytes())
    changed[len(changed) // 2] ^= 1
    (stored / "train-00001-12.arrow").write_bytes(changed)
    (stored / "train-00002-20.arrow").unlink()
    size = (stored / "train-00003-20.arrow").stat().st_size
    os.truncate(stored / "train-00003-20.arrow", 8)
    damages = [(damage.name, damage.reason) for damage in verify_store(stored)]
    assert damages == [
        ("train-00001-12.arrow", "its checksum is not the one that was written"),
        ("train-00002-20.arrow", "No such file or directory"),
        ("train-00003-20.arrow", f"it has 8 of {size} bytes"),
    ]


def test_a_damaged_index_is_found(stored):
    with (stored / "train-index.arrow").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    assert [damage.name for damage in verify_store(stored)] == ["train-index.arrow"]


@pytest.mark.parametrize(
    ("copy", "reason"), [(b"", "the file is empty"), ("large", "it has 30 x 30 pixels, not 12 x 12")]
)
def test_a_copy_that_is_not_what_the_index_says_is_found(stored, picture, encode, copy, reason):
    manifest = json.loads((stored / MANIFEST).read_text())
    copies = [make_copies(picture(24, 24), SETTINGS).files[0]] * 3
    copies[1] = encode(picture(30, 30), "JPEG") if copy == "large" else copy
    schema = shards.IMAGE_SCHEMA
    file = write_table(
        stored / "train-00001-12.arrow",
        [pa.record_batch([pa.array(copies, pa.large_binary())], schema=schema)],
    )
    manifest["splits"]["train"]["shards"][1]["levels"]["12"] |= {"bytes": file.bytes, "sha256": file.sha256}
    (stored / MANIFEST).write_text(json.dumps(manifest))
    damages = verify_store(stored)
    assert ("cat/cat_04.jpg at 12 px", reason) in [(damage.name, damage.reason) for damage in damages]


def test_what_is_no_store_cannot_be_verified(tmp_path):
    with pytest.raises(UserError, match="is not prepared to its end"):
        verify_store(tmp_path)


def test_a_folder_is_prepared_by_one_process_at_a_time(pets, tmp_path):
    out = tmp_path / "store"
    out.mkdir()
    with prepare._alone_in(out):
        with pytest.raises(UserError, match="another process is preparing"):
            prepare_store(str(pets), out, SETTINGS)
        assert [file.name for file in out.iterdir()] == [prepare.LOCK]
    (out / prepare.LOCK).touch()  # Of a process that was ended.
    prepare_store(str(pets), out, SETTINGS)
    assert not (out / prepare.LOCK).exists()
