"""Crops and runs of JPEG files of which places are remembered: the same as without."""

import logging
from functools import partial
from operator import getitem
from threading import Event, Thread
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from effnet.config import AugmentConfig, DataConfig
from effnet.data import decode, jpeg_scan, loader
from effnet.data.copies import CopySettings
from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.images import LabelledImages
from effnet.data.jpeg import read_header
from effnet.data.jpeg_scan import ScanMemory, can_cut, decode_part, index_scan, saves_enough
from effnet.data.loader import train_batches
from effnet.data.prepare import prepare_store
from effnet.data.sources import open_data
from effnet.data.transforms import resize_crop
from effnet.data.worker_processes import can_start_processes
from effnet.schedule.progressive import StageSchedule

pytest.importorskip("numba", reason="needs Numba: pip install effnet[cpu]")
from effnet.native import jpeg_programs


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Cut small files too, from the first on; list the parts that are asked for."""
    assert can_cut()
    asked = []

    def noting(encoded, index, rows, columns, *, shrink=1):
        asked.append((rows, columns))
        return decode_part(encoded, index, rows, columns, shrink=shrink)

    monkeypatch.setattr(decode, "decode_part", noting)
    monkeypatch.setattr(jpeg_scan, "_LEAST_SAVED_BYTES", 0)
    return asked


def _index(encoded):
    return index_scan(encoded, read_header(encoded))


def _scans():
    return ScanMemory(1 << 20).of_image(0)


def test_files_are_whole_as_long_as_numba_compiles(picture, encode, parts, monkeypatch):
    encoded, may_end = encode(picture(200, 200), "JPEG"), Event()
    monkeypatch.setattr(jpeg_scan, "_TRIED", Event())
    for function in (jpeg_scan._begin_to_compile, jpeg_scan._compiles, jpeg_scan._compile):
        function.cache_clear()
    compiled = jpeg_programs.find_program
    monkeypatch.setattr(jpeg_programs, "find_program", lambda: may_end.wait(60) and compiled())
    scans, crop = _scans(), Crop(20, 30, 100, 90)
    whole = open_image(encoded, scans=scans).decode(crop, 80)[0]
    assert whole.shape == (200, 200, 3)
    assert parts == []
    may_end.set()
    (compiling,) = (thread for thread in enumerate_threads() if thread.name == "effnet-compile")
    compiling.join(60)
    part, inside = open_image(encoded, scans=scans).decode(crop, 80)
    rows, columns = inside.rounded(*part.shape[:2])
    assert part.size < whole.size
    assert np.array_equal(part[rows, columns], whole[30:120, 20:120])


def test_where_numba_cannot_compile_that_is_told_once_and_files_are_whole(
    picture, encode, parts, monkeypatch, caplog
):
    encoded = encode(picture(200, 200), "JPEG")
    index = _index(encoded)

    def fail():
        raise OSError("no room\nanywhere")

    monkeypatch.setattr(jpeg_programs, "find_program", fail)
    jpeg_scan._compiles.cache_clear()
    jpeg_scan._compile.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            open_image(encoded, scans=_scans()).decode(Crop(0, 0, 90, 90), 80)
        assert decode_part(encoded, index, slice(0, 9), slice(0, 9)) is None
    jpeg_scan._compiles.cache_clear()
    jpeg_scan._compile.cache_clear()
    assert parts == []
    reason = "JPEG files are decoded whole, because Numba cannot compile here: OSError: no room"
    assert caplog.messages == [reason]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "case",
    [
        (Crop(20, 30, 60, 51), 40),
        (Crop(0.5, 3.25, 90, 70.5), 16),
        (Crop(30.25, 41.25, 60, 60.5), 24),
        (Crop(40.25, 30.25, 50, 52.5), 5),
    ],
)
def test_a_crop_is_that_of_the_whole_whichever_way_up(picture, encode, parts, orientation, case):
    crop, size = case
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(picture(241, 251), "JPEG", exif=exif)
    whole, place = open_image(encoded).decode(crop, size)
    part, inside = open_image(encoded, scans=_scans()).decode(crop, size)
    assert len(parts) == 1
    assert part.size < 0.7 * whole.size
    assert (inside.width, inside.height) == (place.width, place.height)
    rows, columns = inside.rounded(*part.shape[:2])
    assert np.array_equal(part[rows, columns], whole[place.rounded(*whole.shape[:2])])
    assert np.array_equal(_resized(part, inside, size), _resized(whole, place, size))


def _resized(pixels, crop, size):
    out = np.empty((size, size, 3), np.uint8)
    resize_crop(pixels, crop, interpolation="bicubic", antialias=True, out=out)
    return out


def test_few_bytes_or_a_small_share_of_them_are_not_worth_a_part(picture, encode, monkeypatch):
    monkeypatch.undo()
    header = read_header(encode(picture(100, 100), "JPEG"))
    assert saves_enough(header, 8000, slice(0, 50), slice(0, 100))
    assert not saves_enough(header, 7000, slice(0, 50), slice(0, 100))
    assert not saves_enough(header, 100_000, slice(0, 88), slice(0, 100))


def test_an_index_is_made_once_and_only_where_it_is_worth_it(picture, encode, parts, monkeypatch):
    made = []
    monkeypatch.setattr(
        jpeg_scan, "index_scan", lambda encoded, header: made.append(1) or index_scan(encoded, header)
    )
    encoded = encode(picture(200, 200), "JPEG")
    scans = _scans()
    open_image(encoded, scans=scans).decode(Crop(0, 0, 195, 195), 80)
    assert made == []
    for start in (0, 50):
        open_image(encoded, scans=scans).decode(Crop(start, start, 100, 100), 80)
    assert made == [1]
    assert len(parts) == 2


def test_memory_that_is_full_makes_no_more_indices(picture, encode):
    files = [encode(picture(200, 200, seed), "JPEG") for seed in range(3)]
    size = _index(files[0]).nbytes
    memory = ScanMemory(2 * size - 1)
    found = [memory.find(number, 0, file, read_header(file)) for number, file in enumerate(files)]
    assert [index is None for index in found] == [False, False, True]
    assert memory.find(0, 0, files[0], read_header(files[0])) is found[0]


def test_what_is_known_can_be_asked_for_while_more_is_found():
    memory = ScanMemory(1)
    memory.add({0: {0: None, 1: None}})

    class Adding(dict):
        def __contains__(self, copy):
            thread = Thread(target=memory.add, args=({0: {copy + 2: None}},))
            thread.start()
            thread.join(0.05)
            return False

    assert memory.of_images([0], beyond={0: Adding()})[0].keys() == {0, 1}


def test_a_file_that_changes_is_decoded_as_it_is(picture, encode):
    first, second = (encode(picture(200, 200, seed), "JPEG") for seed in range(2))
    scans = _scans()
    crop = Crop(20, 30, 100, 90)
    open_image(first, scans=scans).decode(crop, 80)
    part, inside = open_image(second, scans=scans).decode(crop, 80)
    rows, columns = inside.rounded(*part.shape[:2])
    assert np.array_equal(part[rows, columns], simplejpeg.decode_jpeg(second)[30:120, 20:120])


def _images(files):
    return LabelledImages(
        class_names=("even", "odd"),
        labels=np.arange(len(files), dtype=np.int64) % 2,
        names=tuple(str(number) for number in range(len(files))),
        read=partial(getitem, files),
    )


def _batches(images, stage, *, image_size=64, gigabytes=1.0, **data):
    schedule = StageSchedule((stage(end_step=6, batch_size=2, image_size=image_size),), len(images), 2)
    config = DataConfig(
        workers=1, crop_area=(0.1, 0.3), max_bad_fraction=0.5, jpeg_index_gigabytes=gigabytes, **data
    )
    return list(train_batches(images, schedule, config, AugmentConfig(), seed=1))


def _assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.images.equal(other.images)
        assert one.bad == other.bad


@pytest.fixture
def files(picture, encode):
    return [encode(picture(200, 200, index), "JPEG", progressive=index == 3) for index in range(4)]


@pytest.mark.parametrize(("antialias", "image_size"), [(False, 64), (True, 64), (True, 16)])
def test_a_run_is_the_same_without_indices(files, stage, parts, antialias, image_size):
    """The damaged file has its damage below every crop; without parts it is found, so it must be with."""
    files[2] = files[2][:-200] + b"\xff\xd9"
    sizes = {"antialias": antialias, "image_size": image_size}
    found = _batches(_images(files), stage, **sizes)
    asked = len(parts)
    assert asked >= 6
    _assert_equal(found, _batches(_images(files), stage, gigabytes=0.0, **sizes))
    assert len(parts) == asked
    assert [bad.name for batch in found for bad in batch.bad] == ["2"]


@pytest.mark.parametrize("antialias", [False, True])
def test_a_run_from_a_store_is_the_same_without_indices(files, stage, parts, tmp_path, antialias):
    for number, file in enumerate(files):
        path = tmp_path / "photos" / ("even", "odd")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
    prepare_store(str(tmp_path / "photos"), tmp_path / "store", CopySettings(short_sides=(80, 160)))
    images = open_data(str(tmp_path / "store"), val_fraction=0.0, split_seed=0).train
    found = _batches(images, stage, antialias=antialias)
    asked = len(parts)
    assert asked >= 6
    _assert_equal(found, _batches(images, stage, gigabytes=0.0, antialias=antialias))
    assert len(parts) == asked


@pytest.mark.skipif(not can_start_processes(), reason="needs memory without a name (Linux has it)")
def test_what_a_process_finds_is_known_to_all(files, stage, monkeypatch):
    expected = _batches(_images(files), stage)
    found = []

    class Noting(ScanMemory):
        def add(self, known):
            found.extend(
                (image, copy, index is None)
                for image, copies in known.items()
                for copy, index in copies.items()
            )
            super().add(known)

    monkeypatch.setattr(loader, "ScanMemory", Noting)
    _assert_equal(_batches(_images(files), stage, worker_kind="processes"), expected)
    assert sorted(found) == [(0, 0, False), (1, 0, False), (2, 0, False), (3, 0, True)]


def test_what_two_have_found_counts_once(picture, encode):
    memory = ScanMemory(1 << 20)
    index = _index(encode(picture(60, 80), "JPEG"))
    memory.add({0: {0: index}})
    memory.add({0: {0: index}})
    assert memory.bytes_left == (1 << 20) - index.nbytes


def test_a_budget_is_for_what_is_new(picture, encode):
    files = [encode(picture(200, 200, seed), "JPEG") for seed in range(2)]
    first = ScanMemory(1)
    first.find(0, 0, files[0], read_header(files[0]))
    second = ScanMemory(1, first.of_images([0, 1]))
    assert second.find(0, 0, files[0], read_header(files[0])) is not None
    assert second.find(1, 0, files[1], read_header(files[1])) is not None
    assert second.bytes_left < 0
    assert list(second.of_images([0, 1], beyond=first.of_images([0]))[0]) == []
    assert list(second.of_images([1, 7])) == [1]
