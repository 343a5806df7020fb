"""Make photos like ImageNet's from a folder of others: 500 x 375 px, about 110 KB, JPEG 4:4:4.

    python benchmarks/make_photos.py FOLDER OUT --count 200

Half of ImageNet's photos have this size, and its mean file has 110 KB. Of FOLDER, which has class folders at
any depth, those photos are taken whose middle of 4:3 is largest; the smallest of them may have to be
enlarged. The same photos give the same files. `effnet bench input OUT` measures on them.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image, ImageOps

WIDTH, HEIGHT = 500, 375
TARGET_BYTES = 110_000
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LOWEST_QUALITY, HIGHEST_QUALITY = 50, 100


def scale_of(path: Path) -> float:
    """Return how many of a photo's pixels make one of the result, along a side."""
    with Image.open(path) as image:
        return min(image.width / WIDTH, image.height / HEIGHT)


def photo(path: Path) -> Image.Image:
    """Return the middle of a photo in the size wanted."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return ImageOps.fit(upright, (WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def encode(image: Image.Image, quality: int) -> bytes:
    """Return a JPEG file without chroma subsampling, as most of ImageNet's are."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling="4:4:4")
    return file.getvalue()


def encode_to_target(image: Image.Image) -> bytes:
    """Return the file whose size is nearest to the target; the size grows with the quality."""
    low, high = LOWEST_QUALITY, HIGHEST_QUALITY
    while high - low > 1:
        middle = (low + high) // 2
        if len(encode(image, middle)) < TARGET_BYTES:
            low = middle
        else:
            high = middle
    return min((encode(image, quality) for quality in (low, high)), key=lambda f: abs(len(f) - TARGET_BYTES))


def main() -> None:
    """Write the photos into class folders of the same names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    files = [path for path in options.folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    scales = {path: scale_of(path) for path in files}
    chosen = sorted(files, key=lambda path: (-scales[path], path.relative_to(options.folder)))[
        : options.count
    ]
    if len(chosen) < options.count:
        parser.error(f"{options.folder} has {len(chosen)} photos, {options.count} are needed")
    sizes = []
    for path in sorted(chosen):
        encoded = encode_to_target(photo(path))
        sizes.append(len(encoded))
        target = options.out / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded)
    enlarged = [1 / scales[path] for path in chosen if scales[path] < 1]
    print(f"{len(sizes)} photos of {WIDTH} x {HEIGHT} px in {options.out}")
    print(
        f"mean {sum(sizes) / len(sizes) / 1e3:.1f} KB, from {min(sizes) / 1e3:.0f} to {max(sizes) / 1e3:.0f}"
    )
    print(f"{len(enlarged)} had to be enlarged, by up to {max(enlarged, default=1):.2f}")


if __name__ == "__main__":
    main()
