"""The forms that a network is exported to, as a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from effnet.errors import UserError, did_you_mean
from effnet.export import coreml_form, executorch_form, onnx_form, openvino_form, pt2_form
from effnet.export.calls import Calls
from effnet.export.card import Card, Precision
from effnet.export.graph import Graph
from effnet.export.quantization import Calibration

Run = Callable[[np.ndarray], Float32[np.ndarray, "N K"]]
"""What a file takes in, logits out: one call of its runtime."""


Write = Callable[[Graph, Path, Card, Calibration | None], None]
"""Write a graph to a file with a card; in int8, with ranges from images."""
Open = Callable[[Path, Calls], tuple[Card, Run]]
"""Return what a file says about itself, and what runs it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A form of file."""

    name: str
    suffix: str
    write: Write
    open: Open | None
    """None: it cannot be run here."""
    precisions: tuple[Precision, ...]
    traces_half: bool = True
    """Whether half precision is traced; else the form halves the weights itself."""
    takes_bytes: bool = True
    """Whether it can normalise uint8 itself."""
    has_any_batch: bool = True
    has_any_size: bool = True
    packages: tuple[str, ...] = ()
    """Distributions whose versions matter, besides torch."""


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            name="onnx",
            suffix=".onnx",
            write=onnx_form.write,
            open=onnx_form.open_file,
            precisions=("fp32", "fp16", "int8"),
            packages=("onnx", "onnxscript", "onnxruntime"),
        ),
        Form(
            name="openvino",
            suffix=".xml",
            write=openvino_form.write,
            open=openvino_form.open_file,
            precisions=("fp32", "fp16", "int8"),
            traces_half=False,
            packages=("openvino", "nncf"),
        ),
        Form(
            name="pt2",
            suffix=".pt2",
            write=pt2_form.write,
            open=pt2_form.open_file,
            precisions=("fp32", "fp16"),
        ),
        Form(
            name="executorch",
            suffix=".pte",
            write=executorch_form.write,
            open=executorch_form.open_file,
            precisions=("fp32", "int8"),
            has_any_batch=False,
            has_any_size=False,
            packages=("executorch", "torchao"),
        ),
        Form(
            name="coreml",
            suffix=".mlpackage",
            write=coreml_form.write,
            open=None,
            precisions=("fp32", "fp16"),
            traces_half=False,
            takes_bytes=False,
            has_any_batch=False,
            has_any_size=False,
            packages=("coremltools",),
        ),
    )
}


def form_named(name: str) -> Form:
    """Return a form.

    Raises:
        UserError: There is none of that name.
    """
    if name not in FORMS:
        raise UserError(f"there is no form '{name}'{did_you_mean(name, FORMS)}")
    return FORMS[name]


def form_of(path: Path) -> Form | None:
    """Return the form of an exported file, by its ending; None: it has none of these endings."""
    return next((form for form in FORMS.values() if form.suffix == path.suffix.lower()), None)
