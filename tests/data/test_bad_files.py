"""A folder with one bad file of each kind: each is named once, with its reason, and nothing stops."""

import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effnet.arch import NetworkSpec, StageSpec, spec_to_json
from effnet.arch.preprocessing import Preprocessing
from effnet.config import AugmentConfig, DataConfig
from effnet.data.loader import eval_batches, train_batches
from effnet.data.sources import open_labelled
from effnet.errors import UserError
from effnet.schedule.progressive import StageSchedule

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")

AUGMENT = AugmentConfig(policy="relative")


# One file of each kind


def _image(height=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-9, 10, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def _file(kind, image=None, **options):
    file = io.BytesIO()
    (image or _image()).save(file, kind, **options)
    return file.getvalue()


def _half(content):
    return content[: len(content) // 2]


def _overwritten(content, mark, offset, new):
    """Overwrite bytes behind a mark."""
    place = content.index(mark) + offset
    return content[:place] + new + content[place + len(new) :]


def _png(*chunks):
    """Write a PNG file of some chunks, each with its right checksum."""
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _png_of(width, height, *before):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _png((b"IHDR", header), *before, (b"IDAT", zlib.compress(bytes(3 * 9))), (b"IEND", b""))


def _jpeg_of(width, height):
    return _overwritten(_file("JPEG"), b"\xff\xc0", 5, struct.pack(">HH", height, width))


def _without_restart():
    content = _file("JPEG", restart_marker_rows=1)
    return content.replace(b"\xff\xd1", b"", 1)


def _endless():
    content = _file("JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    return content[:scan] + content[scan:-2] * 200 + content[-2:]


def _tiff_of(width, height):
    content = _file("TIFF")
    for tag, value in ((0x0100, width), (0x0101, height)):
        entry = struct.pack("<HHI", tag, 4, 1)
        content = content.replace(entry, entry, 1)
        place = content.index(struct.pack("<H", tag) + b"\4\0\1\0")
        content = content[: place + 8] + struct.pack("<I", value) + content[place + 12 :]
    return content


BOMB = zlib.compress(bytes(20 << 20))
PIXELS = "at most 89478485 are read"
MAKERS = {
    # Not an image
    "empty.jpg": (lambda: b"", "the file is empty"),
    "zeros.jpg": (lambda: bytes(5000), "not an image of a known format"),
    "page.jpg": (lambda: b"<html><body>404 Not Found</body></html>", "not an image of a known format"),
    "drawing.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image of a known format"),
    "phone.jpg": (lambda: b"\0\0\0\x18ftypheic" + bytes(300), "not an image of a known format"),
    # Breaks off
    "half.jpg": (lambda: _half(_file("JPEG")), "the JPEG data is truncated"),
    "half-with-end.jpg": (lambda: _half(_file("JPEG")) + b"\xff\xd9", "the JPEG data is truncated"),
    "header.jpg": (lambda: _file("JPEG")[:200], "the JPEG data is truncated"),
    "half.png": (lambda: _half(_file("PNG")), "the PNG data is truncated"),
    "half.gif": (lambda: _half(_file("GIF")), "the GIF data is truncated"),
    "half.bmp": (lambda: _half(_file("BMP")), "the BMP data is truncated"),
    "half.webp": (lambda: _half(_file("WEBP")), "the WEBP file is damaged"),
    "half.avif": (lambda: _half(_file("AVIF")), "the AVIF file is damaged"),
    "half.tif": (lambda: _half(_file("TIFF", compression="tiff_lzw")), "the TIFF file is damaged"),
    # Damaged otherwise
    "lost-restart.jpg": (_without_restart, "the JPEG file is damaged"),
    "lacks-tables.jpg": (
        lambda: _overwritten(_file("JPEG"), b"\xff\xc0", 12, b"\7"),
        "the JPEG file cannot be decoded: Quantization table 0x07 was not defined",
    ),
    "wrong-checksum.png": (
        lambda: _overwritten(_file("PNG"), b"IHDR", 7, b"\7"),
        "the PNG file is damaged",
    ),
    # Of a kind that is not read
    "twelve-bits.jpg": (
        lambda: _overwritten(_file("JPEG"), b"\xff\xc0", 4, b"\x0c"),
        "the JPEG file cannot be decoded: Unsupported JPEG data precision 12",
    ),
    "fractions.tif": (
        lambda: _file("TIFF", Image.fromarray(np.zeros((9, 9), np.float32))),
        "floating-point pixels have no known range",
    ),
    # Bombs
    "30000.jpg": (lambda: _jpeg_of(30_000, 30_000), f"30000 x 30000 pixels; {PIXELS}"),
    "65500.jpg": (lambda: _jpeg_of(65_500, 65_500), f"65500 x 65500 pixels; {PIXELS}"),
    "scans.jpg": (_endless, r"a progressive JPEG file of 2\d\d scans; at most 100 are read"),
    "50000.png": (lambda: _png_of(50_000, 50_000), "far more pixels than the 89478485 that are read"),
    "text.png": (lambda: _png_of(3, 3, (b"zTXt", b"a\0\0" + BOMB)), "the PNG file is damaged: .*too large"),
    "profile.png": (
        lambda: _png_of(3, 3, (b"iCCP", b"a\0\0" + BOMB)),
        "the PNG file is damaged: .*too large",
    ),
    "60000.tif": (lambda: _tiff_of(60_000, 60_000), "far more pixels than the 89478485 that are read"),
    "60000.gif": (
        lambda: _file("GIF")[:6] + struct.pack("<HH", 60_000, 60_000) + _file("GIF")[10:],
        "far more pixels than the 89478485 that are read",
    ),
    "60000.ppm": (
        lambda: b"P6 60000 60000 255\n" + bytes(99),
        "far more pixels than the 89478485 that are read",
    ),
}


def _lock(path):
    path.write_bytes(_file("JPEG"))
    path.chmod(0)


SPECIAL = {
    "folder.jpg": (Path.mkdir, "is a folder"),
    "pipe.jpg": (os.mkfifo, "is no regular file"),
    "link.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "is a link to nothing"),
    "loop.jpg": (lambda path: path.symlink_to("loop.jpg"), "is a link that leads to itself"),
    "locked.jpg": (_lock, "may not be read by this user"),
}
if hasattr(os, "geteuid") and os.geteuid() == 0:
    del SPECIAL["locked.jpg"]  # No file is locked for root.
STAYING = {name: reason for name, (_, reason) in (MAKERS | SPECIAL).items()}
REASONS = STAYING | {"lost.jpg": "does not exist any more"}

ODD_BUT_GOOD = {
    "a-png.jpg": lambda: _file("PNG"),
    "a-jpeg.png": lambda: _file("JPEG"),
    "pixel.jpg": lambda: _file("JPEG", _image(1, 1)),
    "inks.jpg": lambda: _file("JPEG", _image().convert("CMYK")),
}


def _fill(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        if name in SPECIAL:
            SPECIAL[name][0](folder / name)
        else:
            make = ODD_BUT_GOOD[name] if name in ODD_BUT_GOOD else MAKERS[name][0]
            (folder / name).write_bytes(make())


@pytest.fixture(scope="module")
def bad_folders(tmp_path_factory):
    """Class ``cat`` has one good image and a bad one of each kind; class ``dog`` has odd, good ones."""
    root = tmp_path_factory.mktemp("bad")
    for split, bad in (("train", STAYING), ("val", ("half.jpg", "empty.jpg"))):
        _fill(root / split / "cat", bad)
        _fill(root / split / "dog", ODD_BUT_GOOD)
        (root / split / "cat" / "good.jpg").write_bytes(_file("JPEG", _image(seed=1)))
    return root


@pytest.fixture
def one_good(bad_folders):
    """The images to train on, of which one is lost after they were listed."""
    lost = bad_folders / "train" / "cat" / "lost.jpg"
    lost.write_bytes(_file("JPEG"))
    images = open_labelled(str(bad_folders / "train"))
    lost.unlink()
    return images


def _named(reports):
    """Return the reason of each name without its folder; no name comes twice."""
    names = [report["name"] if isinstance(report, dict) else report.name for report in reports]
    assert max(Counter(names).values()) == 1
    reasons = [report["reason"] if isinstance(report, dict) else report.reason for report in reports]
    return {name.rpartition("/")[2]: reason for name, reason in zip(names, reasons, strict=True)}


def _assert_expected(found, expected):
    assert found.keys() == expected.keys()
    wrong = {name: reason for name, reason in found.items() if not re.match(f"{expected[name]}", reason)}
    assert wrong == {}
    assert max(map(len, found.values())) < 150


# All of them


def test_there_are_enough_kinds():
    assert len(REASONS) >= 25


@pytest.mark.parametrize("workers", [1, 3])
def test_every_bad_file_is_named_once_with_its_reason(one_good, stage, workers):
    schedule = StageSchedule((stage(end_step=9, batch_size=len(one_good) // 3),), len(one_good), 8)
    data = DataConfig(workers=workers, max_bad_fraction=1.0)
    batches = list(train_batches(one_good, schedule, data, AUGMENT, seed=3))
    _assert_expected(_named([bad for batch in batches for bad in batch.bad]), REASONS)
    assert all(batch.images.float().std() > 5 for batch in batches)


def test_a_class_of_one_good_file_among_bad_ones_is_still_seen(one_good, stage):
    """The bad ones are replaced by what follows them, which for most is the good one of their class."""
    schedule = StageSchedule((stage(end_step=2, batch_size=len(one_good)),), len(one_good), 8)
    first, _ = train_batches(one_good, schedule, DataConfig(max_bad_fraction=1.0), AUGMENT, seed=3)
    cats = int((first.labels == one_good.class_names.index("cat")).sum())
    before_good = sum(name < "good.jpg" for name in REASONS)
    assert cats == before_good + 1


def test_evaluation_names_them_too(one_good):
    batches = list(eval_batches(one_good, Preprocessing(image_size=16), batch_size=7))
    _assert_expected(_named([bad for batch in batches for bad in batch.bad]), REASONS)
    assert sum(len(batch.labels) for batch in batches) == 1 + len(ODD_BUT_GOOD)


def test_a_run_names_them_and_comes_to_its_end(bad_folders, tmp_path):
    from effnet.api import configure, start_run

    stage = StageSpec(operation="mbconv", kernel_size=3, stride=2, expand_ratio=2, channels=8, repeats=1)
    spec = NetworkSpec(
        name="tiny", stages=(stage,), stem_channels=8, head_channels=16, image_size=16, train_size=16
    )
    (tmp_path / "tiny.json").write_text(spec_to_json(spec))
    config = configure(
        recipe="scratch",
        model=str(tmp_path / "tiny.json"),
        data=str(bad_folders),
        changes=[
            "data.max_bad_fraction=1", "progressive.stages=2", "progressive.image_size=[8,16]",
            "progressive.size_multiple=1", "train.epochs=2", "train.batch_size=16",
        ],
    )  # fmt: skip
    result = start_run(config, tmp_path / "run", quiet=True)
    reports = [json.loads(line) for line in (tmp_path / "run" / "bad-images.jsonl").read_text().splitlines()]
    train = [report for report in reports if report["name"].startswith("train/")]
    _assert_expected(_named(train), STAYING)
    val = [report for report in reports if report["name"].startswith("val/")]
    _assert_expected(_named(val), {name: REASONS[name] for name in ("half.jpg", "empty.jpg")})
    assert result.bad_images == len(reports)
    assert result.steps >= 4


def test_too_many_of_them_stop_a_run_with_examples_and_advice(one_good, stage):
    schedule = StageSchedule((stage(end_step=9, batch_size=8),), len(one_good), 8)
    data = DataConfig(source="pets", workers=2, max_bad_fraction=0.2)
    most = int(0.2 * len(one_good))
    with (
        pytest.raises(UserError) as caught,
        closing(train_batches(one_good, schedule, data, AUGMENT, seed=3)) as batches,
    ):
        list(batches)
    message = str(caught.value)
    found = int(message.split(maxsplit=1)[0])
    assert most < found <= most + 8
    assert message.startswith(
        f"{found} of {len(one_good)} training images cannot be read ({found / len(one_good):.1%}), more than "
        "data.max_bad_fraction = 0.2 allows: cat/"
    )
    assert message.count("cat/") == 5
    assert message.endswith(
        f"; and {found - 5} more; mend or remove them ('effnet data check pets' finds all), or allow more"
    )


# Bombs

MEASURE = """
import resource, sys
from pathlib import Path
from effnet.data.decode import decode_image
from effnet.data.pillow import BadImageError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

good, bombs = (sorted(Path(folder).iterdir()) for folder in sys.argv[1:])
for file in good:
    decode_image(file.read_bytes())
for file in bombs:
    before, reason = peak(), "none"
    try:
        decode_image(file.read_bytes())
    except BadImageError as error:
        reason = error.reason
    print(file.name, round(peak() - before), reason, sep="|")
"""


def _webp_of_most_pixels():
    content = _file("WEBP")
    return _overwritten(content, b"VP8 ", 14, struct.pack("<HH", 16_383, 16_383))


def _animated_webp():
    """Only its canvas is large."""
    size = (16_383).to_bytes(3, "little")
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + size + size + _file("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def _black_png(side):
    """A PNG file that is whole: a thousand times as many bytes come out of it as it has."""
    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(1 + side // 8)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return _png((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))


def test_bombs_are_refused_without_much_memory(tmp_path):
    (tmp_path / "good").mkdir()
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM"):
        (tmp_path / "good" / kind).write_bytes(_file(kind))
    (tmp_path / "bombs").mkdir()
    bombs = {
        name: make() for name, (make, reason) in MAKERS.items() if "pixels" in reason or "large" in reason
    }
    bombs |= {
        "whole.png": _black_png(20_000),
        "canvas.webp": _animated_webp(),
        "16383.webp": _webp_of_most_pixels(),
        "65535.avif": _overwritten(_file("AVIF"), b"ispe", 8, struct.pack(">II", 65_535, 65_535)),
        "60000.bmp": _overwritten(_file("BMP"), b"BM", 18, struct.pack("<ii", 60_000, -60_000)),
    }
    for name, content in bombs.items():
        assert len(content) < 100_000
        (tmp_path / "bombs" / name).write_bytes(content)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "good", tmp_path / "bombs"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown = {name: (int(growth), reason) for name, growth, reason in
             (line.split("|") for line in measured.stdout.splitlines())}  # fmt: skip
    assert grown.keys() == bombs.keys()
    assert "none" not in {reason for _, reason in grown.values()}
    assert sum(growth for growth, _ in grown.values()) < 100, "megabytes"
    assert measured.stderr == ""
