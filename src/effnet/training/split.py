"""Which images a run trains on and which it holds out, kept with the run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from effnet.data.images import DataSplit, LabelledImages
from effnet.errors import UserError
from effnet.files import whole_file

_DIGEST_CHUNK = 1 << 16


def write_split(path: Path, data: DataSplit) -> None:
    """Write class names, counts, digests and the names of the images held out."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(_describe(data), indent=1) + "\n", encoding="utf-8")


def check_split(path: Path, data: DataSplit) -> None:
    """Make sure that the data is what the run began with.

    Raises:
        UserError: Images or classes came, went or changed their names.
    """
    if not path.is_file():
        return
    now = _describe(data)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if before == now:
            return
        sizes = [(part, before[part]["images"], now[part]["images"]) for part in ("train", "val")]
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{path} is damaged; remove it to continue without the check that the data is the same"
        ) from None
    counts = " and ".join(f"{old} -> {new} images in {part}" for part, old, new in sizes)
    raise UserError(
        f"the data is not what this run began with ({counts}); put it back as it was, or start a new run"
    )


def _describe(data: DataSplit) -> dict[str, Any]:
    described: dict[str, Any] = {"class_names": list(data.class_names)}
    for part, images in (("train", data.train), ("val", data.val)):
        described[part] = {"images": len(images.labels), "sha256": _digest(images)}
    described["val"]["names"] = list(data.val.names)
    return described


def _digest(images: LabelledImages) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(images), _DIGEST_CHUNK):
        part = slice(start, start + _DIGEST_CHUNK)
        pairs = zip(images.names[part], images.labels[part].tolist(), strict=True)
        digest.update("".join(f"{name}\0{label}\n" for name, label in pairs).encode())
    if images.label_sets is not None:
        digest.update(images.label_sets.starts.tobytes() + images.label_sets.values.tobytes())
    return digest.hexdigest()
