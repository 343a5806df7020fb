"""What is measured of a candidate; the currency between trials, ledger, objective and report."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.spec import SPEC_CONFIG

Positive = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Measures:
    """Accuracy and costs of one candidate; None where something was not measured.

    Raises:
        pydantic.ValidationError: A value is outside its range.
    """

    accuracy: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Top-1 on the minival, as a fraction."""
    step_ms: Positive | None = None
    """Training step in milliseconds, drift taken out: its ratio to the reference network's step, measured in
    turns, times the study's first measurement of the reference."""
    latency_ms: Positive | None = None
    """Forward pass of one image in milliseconds, in the same way."""
    memory_mb: Positive | None = None
    """Peak of a training step in 2^20 bytes; estimated from activations where the device does not tell."""
    train_seconds: Positive | None = None
    """In training steps of the whole run, waiting for images included; of a study of schedules."""
    params: Annotated[int, Field(ge=1)] | None = None
    """Trainable parameters, with the classifier for the data's classes."""
    macs: Annotated[int, Field(ge=1)] | None = None
    """Multiply-adds of a forward pass at the search's evaluation size."""
