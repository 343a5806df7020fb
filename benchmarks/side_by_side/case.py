"""What is timed: a training step or a forward pass of one network at one image size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Precision = Literal["fp32", "bf16"]
MEAN = STD = (0.5, 0.5, 0.5)
"""Of the pixels, for all libraries and networks."""
CLASSES = 1000
SEED = 0
DROP = 0.2
"""Dropout and drop-path rate, as everybody trains these networks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row of the table."""

    kind: Literal["train", "infer"]
    network: str
    """Name of ours."""
    size: int
    """Side of the images in pixels."""
    batch: int
    """Images of a step or a call."""
    optimizer: Literal["rmsprop_tf", "adamw", ""] = ""
    """Of training."""

    @property
    def key(self) -> str:
        """Tells the case from all others."""
        parts = [self.kind, self.network, f"{self.size}px", f"b{self.batch}", self.optimizer]
        return " ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return asdict(self)


class Optimizer(NamedTuple):
    """Values that both libraries get."""

    rate: float
    epsilon: float
    weight_decay: float


OPTIMIZERS = {
    "rmsprop_tf": Optimizer(rate=1e-2, epsilon=1e-3, weight_decay=1e-5),
    "adamw": Optimizer(rate=1e-3, epsilon=1e-8, weight_decay=5e-2),
}
SMOOTHING = 0.1
EMA_DECAY = 0.9999
