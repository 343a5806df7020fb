"""Whether an exported file answers like the network that it came from.

Dimension key: N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from effnet.evaluation.answers import Answers
from effnet.export.settings import Limits

ROUNDING_FACTOR = 4.0
"""How many times as far from double precision as PyTorch's single precision a file may be beyond the limit.
Errors of rounding are draws: PyTorch's own differ by as much between batches of 1 and of 32."""


class RefusedExportError(Exception):
    """An exported file answers otherwise than the network; the message says by how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """How a file's answers compare with those of the network, for the same images."""

    images: int
    difference: float
    """Largest relative difference of logits over all images, see `relative_differences`."""
    agreement: float
    """Share of the images with the same most probable class."""
    top1: float | None
    """Of the file; None where the images have no labels."""
    network_top1: float | None
    """Of the network."""
    rounding: float | None = None
    """Largest relative difference between the network in PyTorch's single and double precision, over the
    images where the file is beyond the limit; None: there is none."""
    exact_difference: float | None = None
    """Of the file to the network in double precision, over the same images."""

    @property
    def drop(self) -> float | None:
        """Top-1 that the file has lost, as a fraction; None where the images have no labels."""
        return None if self.top1 is None or self.network_top1 is None else self.network_top1 - self.top1


def relative_differences(
    logits: Float32[np.ndarray, "N K"], expected: Float32[np.ndarray, "N K"]
) -> Float64[np.ndarray, " N"]:
    """Return ``max_k |logits - expected| / max_k |expected|`` of each image.

    The scale is the image's largest logit: a logit near 0 is compared with what it is weighed against.
    """
    ours, theirs = logits.astype(np.float64), expected.astype(np.float64)
    scale = np.maximum(np.abs(theirs).max(axis=1), np.finfo(np.float64).tiny)
    return np.abs(ours - theirs).max(axis=1) / scale


def compare_logits(exported: Answers, network: Answers, *, has_labels: bool) -> Parity:
    """Compare what a file and its network answered to the same images.

    Args:
        exported: Of the file.
        network: Of the network.
        has_labels: Whether the labels mean something.
    """
    differences = relative_differences(exported.logits, network.logits)
    first, expected = exported.logits.argmax(1), network.logits.argmax(1)
    return Parity(
        images=len(network),
        difference=float(differences.max()),
        agreement=float((first == expected).mean()),
        top1=float(_is_label(first, exported.labels).mean()) if has_labels else None,
        network_top1=float(_is_label(expected, network.labels).mean()) if has_labels else None,
    )


def refusal(parity: Parity, limits: Limits) -> str | None:
    """Return why a file must not be kept, as a clause; None: it may.

    What is not a number is beyond every limit.
    """
    is_far = not np.isfinite(parity.difference) or parity.difference > limits.difference
    if is_far and not _is_rounding(parity):
        return (
            f"its logits differ by up to {parity.difference:.2g} of the largest one; allowed: "
            f"{limits.difference:.2g}"
        )
    if parity.drop is not None and parity.drop > limits.drop:
        return f"it loses {parity.drop:.2%} of top-1; allowed: {limits.drop:.2%}"
    if parity.agreement < limits.agreement:
        return (
            f"only {parity.agreement:.2%} of its first answers are the network's; needed: "
            f"{limits.agreement:.2%}"
        )
    return None


def _is_rounding(parity: Parity) -> bool:
    """Whether a file is hardly further from exact arithmetic than PyTorch is itself."""
    if parity.rounding is None or parity.exact_difference is None or not np.isfinite(parity.difference):
        return False
    return parity.exact_difference <= ROUNDING_FACTOR * parity.rounding


def _is_label(first: Int64[np.ndarray, " N"], labels: Int64[np.ndarray, "N ..."]) -> Bool[np.ndarray, " N"]:
    return first == labels if labels.ndim == 1 else (first[:, None] == labels).any(1)
