"""What is measured beside what, under the names of the tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from effnet.bench import alone, ours, peers, transcribed
from effnet.bench.transcribed_randaugment import NEAREST
from effnet.bench.workload import Open

BASELINE = "timm: Pillow, bicubic"
"""Transcribed, and at hand everywhere; what all others are compared with."""
DECODING, DECODING_COPIES = "limit: decode the files only", "limit: decode the copies only"
"""What no method can beat that decodes all of each file by libjpeg-turbo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """Something to be timed."""

    name: str
    open: Open
    reads: Literal["files", "copies", "its own"] = "files"
    """The photos' files, the copies of a prepared store, or another format or no files at all."""


PIPELINES = (
    Method(name=BASELINE, open=transcribed.timm_pipeline),
    Method(name="torchvision: Pillow, bilinear, float32", open=transcribed.torchvision_pipeline),
    Method(name="effnet: first epoch", open=ours.loader(ours.AS_RELEASED)),
    Method(name="effnet: 10 epochs", open=ours.loader(ours.AS_RELEASED, epochs=10)),
    Method(name="effnet: 10 epochs, without an index", open=ours.loader(ours.WHOLE_FILES, epochs=10)),
    Method(name="effnet: first epoch, antialias", open=ours.loader(ours.ANTIALIASED)),
    Method(name="effnet: first epoch, bicubic with antialias, as timm", open=ours.loader(ours.LIKE_TIMM)),
    Method(
        name="effnet: 10 epochs from the store",
        open=ours.loader(ours.AS_RELEASED, encoding="jpeg", epochs=10),
        reads="copies",
    ),
    Method(
        name="effnet: 10 epochs from a store of pixels",
        open=ours.loader(ours.AS_RELEASED, encoding="raw", epochs=10),
        reads="its own",
    ),
    Method(name="timm itself, 1 worker process", open=peers.timm_loader),
    Method(name="torchvision itself", open=peers.torchvision_transforms),
    Method(name="DALI, region decoding", open=peers.dali(antialias=False)),
    Method(name="DALI, region decoding, antialias", open=peers.dali(antialias=True)),
    Method(name="FFCV, its own file, full size", open=peers.ffcv(is_reduced=False), reads="its own"),
    Method(name="FFCV, its own file, copies as ours", open=peers.ffcv(is_reduced=True), reads="its own"),
    Method(name=DECODING, open=ours.decode_files()),
    Method(name=DECODING_COPIES, open=ours.decode_copies(), reads="copies"),
)
"""From photos to batches."""

RANDAUGMENTS = (
    Method(name=BASELINE, open=alone.transcribed(), reads="its own"),
    Method(name="Pillow, nearest", open=alone.transcribed(NEAREST), reads="its own"),
    Method(name="effnet: nearest", open=alone.ours, reads="its own"),
    Method(name="timm itself", open=alone.timm, reads="its own"),
)
"""From pixels to pixels."""
