"""``parity.json``: what each exported file of a folder was found to do, and on what."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.export.card import Card
from effnet.export.latency import Latency
from effnet.export.parity import Parity
from effnet.export.settings import Limits
from effnet.files import write_json

PARITY_FILE = "parity.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """One file that was written."""

    path: Path
    card: Card
    size_bytes: int
    """With what lies beside it."""
    limits: Limits
    images: str
    """On which it was compared, for people."""
    parity: Parity | None
    """None: this machine cannot run it."""
    latency: Latency | None
    network_latency: Latency | None
    """Of the network in PyTorch, timed in turns with the file."""

    @property
    def speedup(self) -> float | None:
        """How many times as fast as the network in PyTorch it is here."""
        if self.latency is None or self.network_latency is None:
            return None
        return self.latency.speedup_over(self.network_latency)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``parity.json`` holds of the file."""
        found: dict[str, Any] = {
            "file": self.path.name,
            "form": self.card.form,
            "precision": self.card.precision,
            "network": self.card.network,
            "image_size": self.card.preprocessing.image_size,
            "size_bytes": self.size_bytes,
            "images": self.images,
            "is_checked": self.parity is not None,
        }
        if self.parity is not None:
            found |= {
                "images_compared": self.parity.images,
                "max_relative_difference": self.parity.difference,
                "max_relative_difference_to_double": self.parity.exact_difference,
                "network_rounding": self.parity.rounding,
                "top1_agreement": self.parity.agreement,
                "top1": self.parity.top1,
                "network_top1": self.parity.network_top1,
                "top1_drop": self.parity.drop,
                "allowed": {
                    "max_relative_difference": self.limits.difference
                    if self.limits.difference != float("inf")
                    else None,
                    "top1_agreement": self.limits.agreement,
                    "top1_drop": self.limits.drop,
                },
            }
        if self.latency is not None and self.network_latency is not None:
            found["latency"] = _times(self.latency)
            found["network_latency"] = _times(self.network_latency)
            found["times_as_fast"] = self.speedup
        return found | {"packages": self.card.packages, "hardware": _hardware()}


def add_to_document(folder: Path, exported: Sequence[Exported]) -> None:
    """Put files into the folder's document; what it says of other files stays.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    path = folder / PARITY_FILE
    new = {item.path.name: item.to_dict() for item in exported}
    kept = [entry for entry in _read(path) if entry["file"] not in new and (folder / entry["file"]).exists()]
    write_json(path, [*kept, *new.values()])


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    is_ours = isinstance(found, list) and all(isinstance(entry, dict) and "file" in entry for entry in found)
    return found if is_ours else []


def _times(latency: Latency) -> dict[str, float]:
    return {
        "median_ms": latency.median_ms,
        "p10_ms": latency.quantile_ms(0.1),
        "p90_ms": latency.quantile_ms(0.9),
        "calls": len(latency.seconds),
        "batch_size": latency.batch_size,
    }


def _hardware() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
