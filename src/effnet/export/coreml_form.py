"""Core ML packages (``.mlpackage``): written anywhere, run by Apple's systems only."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from effnet.export.card import CARD_KEY, Card, card_to_json
from effnet.export.graph import INPUT, OUTPUT, Graph
from effnet.export.packages import needed
from effnet.export.quantization import Calibration


def write(graph: Graph, path: Path, card: Card, calibration: Calibration | None) -> None:
    """Write a package for iOS 16 and macOS 13 with the card among its own metadata.

    Args:
        graph: Of the network.
        path: Of the folder that is the package.
        card: What the package shall say about itself.
        calibration: None; there is no int8.

    Raises:
        UserError: The package coremltools is missing.
    """
    with _quiet():
        coremltools = needed("coremltools", form="Core ML", extra="coreml")
        precision = (
            coremltools.precision.FLOAT16 if card.precision == "fp16" else coremltools.precision.FLOAT32
        )
        model = coremltools.convert(
            graph.program.run_decompositions({}),
            inputs=[coremltools.TensorType(name=INPUT, shape=tuple(graph.example.shape), dtype=np.float32)],
            outputs=[coremltools.TensorType(name=OUTPUT, dtype=np.float32)],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=precision,
            skip_model_load=True,
        )
        model.user_defined_metadata[CARD_KEY] = card_to_json(card)
        model.save(str(path))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It tells of what it cannot do on this system, and shows its passes."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
