"""Decode thousands of damaged image files: each gives a picture or a reason, and none costs memory for good.

    python benchmarks/fuzz_decoder.py --files 20000
    python benchmarks/fuzz_decoder.py --files 5000 --format all

Every file is a function of the seed and its number, so that one that makes trouble can be made again with
``--only NUMBER``. The decoder runs in a process of its own, which may crash or hang.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from effnet.data.crops import Crop
from effnet.data.decode import open_image
from effnet.data.jpeg_scan import ImageScans, ScanMemory
from effnet.data.pillow import BadImageError, TruncatedImageError
from effnet.data.repair import repair_image

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM")
WARM_UP = 0.2
"""Share of the files after which memory should not grow any more."""
MOST_GROWTH = 64
"""Megabytes by which it may grow all the same: allocators keep some."""
LONGEST = 60.0
"""Seconds without a file done, after which the decoder counts as hanging."""
REPORT_EVERY = 50


# Files


@lru_cache(maxsize=len(FORMATS))
def seeds(kind: str) -> tuple[bytes, ...]:
    """Return whole files of a format, of different kinds."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((150, 110))
    noisy = np.clip(np.asarray(smooth) + rng.integers(-20, 20, (110, 150, 3)), 0, 255)
    photo = Image.fromarray(noisy.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "icc_profile": profile}
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    if kind == "JPEG":
        return (
            _file(photo, kind, quality=90),
            _file(photo, kind, quality=40, progressive=True),
            _file(photo, kind, restart_marker_rows=1, subsampling=0),
            _file(photo, kind, progressive=True, **options),
            _file(photo, kind, quality=75, **options),
            _file(photo.convert("L"), kind),
            _file(photo.convert("CMYK"), kind),
            _file(photo.convert("CMYK"), kind, progressive=True),
        )
    images = {
        "PNG": (photo, alpha, photo.quantize(50), photo.convert("L"), photo.convert("1")),
        "TIFF": (photo, alpha, photo.convert("CMYK"), photo.convert("I;16")),
    }.get(kind, (photo, photo.convert("L")))
    takes_options = kind in ("PNG", "WEBP", "AVIF", "TIFF")
    files = [_file(image, kind, **(options if takes_options and image is photo else {})) for image in images]
    if kind == "TIFF":
        files += [_file(photo, kind, compression=packing) for packing in ("tiff_lzw", "jpeg", "tiff_deflate")]
    return tuple(files)


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def damaged_file(seed: int, number: int, formats: tuple[str, ...]) -> bytes:
    """Make a file with one to four damages."""
    rng = np.random.default_rng([seed, number])
    files = seeds(formats[number % len(formats)])
    content = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 5)):
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        content = damage(content, rng, files[rng.integers(len(files))])
    return bytes(content)


def _place(content: bytearray, rng: np.random.Generator) -> int:
    """Choose a byte; every second time one of the head, where more depends on it."""
    end = len(content) if rng.random() < 0.5 else min(len(content), 700)
    return int(rng.integers(max(end, 1)))


def _flip_bits(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    for _ in range(rng.integers(1, 9)):
        place = _place(content, rng)
        content[place : place + 1] = bytes(
            value ^ 1 << int(rng.integers(8)) for value in content[place : place + 1]
        )
    return content


def _overwrite(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    place, length = _place(content, rng), int(rng.integers(1, 40))
    content[place : place + length] = rng.bytes(len(content[place : place + length]))
    return content


def _write_extreme(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    """Put a number where perhaps a length or a size is."""
    place = _place(content, rng)
    value = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)[rng.integers(8)]
    layout = ("B", ">H", "<H", ">I", "<I")[rng.integers(5)]
    size = struct.calcsize(layout)
    content[place : place + size] = struct.pack(layout, value % 256**size)
    return content


def _truncate(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    end = b"\xff\xd9" if rng.random() < 0.3 else b""
    return content[: int(rng.integers(len(content) + 1))] + end


def _delete(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    place = _place(content, rng)
    del content[place : place + int(rng.integers(1, 300))]
    return content


def _repeat(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    place = _place(content, rng)
    part = content[place : place + int(rng.integers(1, 2000))]
    content[place:place] = part * int(rng.integers(1, 4))
    return content


def _splice(content: bytearray, rng: np.random.Generator, other: bytes) -> bytearray:
    """Put a part of another file over or between."""
    place, start = _place(content, rng), int(rng.integers(len(other)))
    part = other[start : start + int(rng.integers(1, 1500))]
    content[place : place + (len(part) if rng.random() < 0.5 else 0)] = part
    return content


def _swap_segments(content: bytearray, rng: np.random.Generator, _other: bytes) -> bytearray:
    """Exchange two segments of a JPEG file, or what lies between two such marks in another."""
    marks = [
        place for place in range(len(content) - 1) if content[place] == 0xFF and content[place + 1] > 0xBF
    ]
    if len(marks) < 3:
        return content
    first, second = sorted(rng.choice(len(marks) - 1, 2, replace=False).tolist())
    a, b = marks[first], marks[first + 1]
    c, d = marks[second], marks[second + 1]
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


Damage = Callable[[bytearray, np.random.Generator, bytes], bytearray]
DAMAGES: tuple[Damage, ...] = (
    _flip_bits, _flip_bits, _overwrite, _write_extreme, _truncate, _delete, _repeat, _splice, _swap_segments,
)  # fmt: skip


# Decoding


def outcome(content: bytes, number: int) -> str:
    """Decode a file as a run would: ``read``, ``repaired`` or the reason.

    Raises:
        Exception: Anything but `BadImageError` is a mistake of ours.
    """
    rng = np.random.default_rng(number)
    try:
        # A file may be damaged after it was found whole; then only a part of it is decoded.
        picture = open_image(
            content, is_whole=number % 3 == 1, scans=_no_scans() if number % 3 == 2 else None
        )
        for size in (8, 64, 224):
            width = int(rng.integers(1, picture.width + 1))
            height = int(rng.integers(1, picture.height + 1))
            x, y = rng.integers(picture.width - width + 1), rng.integers(picture.height - height + 1)
            crop = Crop(int(x), int(y), width, height)
            antialias = bool(rng.integers(2))
            pixels, inside = picture.decode(crop, size, antialias=antialias)
            _check(pixels, inside)
            if number % 3 == 2:
                _check_equal((pixels, inside), _decode_whole(content, crop, size, antialias=antialias))
    except TruncatedImageError as error:
        try:
            _check_pixels(repair_image(content, error.reason).pixels)
        except BadImageError as without:
            return without.reason
        return "repaired"
    except BadImageError as error:
        return error.reason
    return "read"


def _no_scans() -> ImageScans:
    """Return a memory in which the file has no index yet."""
    return ScanMemory(1 << 24).of_image(0)


def _decode_whole(content: bytes, crop: Crop, size: int, *, antialias: bool) -> tuple[np.ndarray, Crop]:
    """Decode what was decoded without the rest of the file; nothing may be wrong with that."""
    try:
        return open_image(content).decode(crop, size, antialias=antialias)
    except BadImageError as error:
        raise AssertionError(f"its part was decoded, but {error.reason}") from error


def _check_equal(part: tuple[np.ndarray, Crop], whole: tuple[np.ndarray, Crop]) -> None:
    found, expected = (pixels[inside.rounded(*pixels.shape[:2])] for pixels, inside in (part, whole))
    if not np.array_equal(found, expected):
        raise AssertionError("its part is not that of the whole")


def _check(pixels: np.ndarray, inside: Crop) -> None:
    _check_pixels(pixels)
    rows, columns = inside.rounded(*pixels.shape[:2])
    int(pixels[rows, columns].sum())  # Touches every byte.


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise AssertionError(f"pixels of shape {pixels.shape} and type {pixels.dtype}")


# A process that decodes, and one that watches it


@dataclass
class Summary:
    """What came of the files."""

    outcomes: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    resident: list[tuple[int, float]] = field(default_factory=list)
    """Megabytes of memory after so many files, of the process that decodes."""


@dataclass(frozen=True)
class Task:
    """Which files to decode."""

    seed: int
    formats: tuple[str, ...]
    start: int
    stop: int


def decode_files(task: Task, current: Synchronized[int], report: Connection) -> None:
    """Decode files, one after the other, and report now and then."""
    outcomes: Counter[str] = Counter()
    troubles: list[str] = []
    for number in range(task.start, task.stop):
        current.value = number
        try:
            outcomes[_in_general(outcome(damaged_file(task.seed, number, task.formats), number))] += 1
        except Exception as error:
            troubles.append(f"file {number}: {type(error).__name__}: {error}")
        if (number + 1) % REPORT_EVERY == 0 or number + 1 == task.stop:
            report.send((number + 1, outcomes, troubles, _resident()))
            outcomes, troubles = Counter(), []


def run(files: int, formats: tuple[str, ...], seed: int) -> Summary:
    """Decode so many files, whatever happens to the process that does it."""
    summary, start = Summary(), 0
    context = multiprocessing.get_context("spawn")
    while start < files:
        current = context.Value("q", start)
        receive, send = context.Pipe(duplex=False)
        task = Task(seed, formats, start, files)
        process = context.Process(target=decode_files, args=(task, current, send))
        process.start()
        send.close()
        trouble = _watch(receive, process, summary, files)
        if trouble:
            summary.troubles.append(f"file {current.value}: {trouble}")
        start = current.value + 1
    return summary


def _watch(
    receive: Connection, process: multiprocessing.process.BaseProcess, summary: Summary, files: int
) -> str:
    """Gather reports until the last; return what happened instead, if anything."""
    while True:
        if not receive.poll(LONGEST):
            process.kill()
            process.join()
            return f"nothing for {LONGEST:g} s"
        try:
            done, outcomes, troubles, resident = receive.recv()
        except EOFError:
            process.join()
            return f"the process ended with {process.exitcode}"
        summary.outcomes += outcomes
        summary.troubles += troubles
        summary.resident.append((done, resident))
        if done % 1000 == 0:
            print(f"{done} files, {resident:.0f} MB", file=sys.stderr, flush=True)
        if done == files:
            process.join()
            return ""


def _in_general(reason: str) -> str:
    """Leave out the numbers of a reason, so that equal ones can be counted."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "N", reason)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth(summary: Summary, files: int) -> float:
    """Return by how many megabytes memory grew after the warm-up."""
    warm = [resident for done, resident in summary.resident if WARM_UP * files <= done < 2 * WARM_UP * files]
    late = [resident for done, resident in summary.resident if done >= (1 - WARM_UP) * files]
    return float(np.median(late) - np.median(warm))


def main() -> int:
    """Run from the command line; the exit code is 1 where there was any trouble."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--format", choices=[*FORMATS, "all"], default="JPEG")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="decode this file alone, in this process")
    given = parser.parse_args()
    formats = FORMATS if given.format == "all" else (given.format,)
    if given.only is not None:
        print(outcome(damaged_file(given.seed, given.only, formats), given.only))
        return 0
    started = time.monotonic()
    summary = run(given.files, formats, given.seed)
    for reason, count in summary.outcomes.most_common():
        print(f"{count:7} {reason}")
    grown = growth(summary, given.files)
    seconds, memory = time.monotonic() - started, summary.resident[-1][1]
    print(
        f"{given.files} files in {seconds:.0f} s; {len(summary.troubles)} troubles; memory grew by "
        f"{grown:.0f} MB after the first {WARM_UP:.0%}, to {memory:.0f} MB"
    )
    print(*summary.troubles, sep="\n")
    return int(bool(summary.troubles) or grown > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
