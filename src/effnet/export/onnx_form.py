"""ONNX files, by torch's exporter, and ONNX Runtime to run and to quantize them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effnet.errors import UserError
from effnet.export.calls import Calls
from effnet.export.card import CARD_KEY, Card, card_from_json, card_to_json
from effnet.export.graph import INPUT, OUTPUT, Graph
from effnet.export.packages import needed
from effnet.export.quantization import Calibration, Operation, kept_operations

_FORM, _EXTRA = "ONNX", "onnx"


def write(graph: Graph, path: Path, card: Card, calibration: Calibration | None) -> None:
    """Write one ONNX file with the weights and the card inside.

    Args:
        graph: Of the network.
        path: Of the file.
        card: What the file shall say about itself.
        calibration: Of int8; None: as the graph computes.

    Raises:
        UserError: A package is missing.
    """
    for package in ("onnx", "onnxscript"):
        needed(package, form=_FORM, extra=_EXTRA)
    names = ({0: "batch"} if card.batch_size == 0 else {}) | (_sides(card) if card.any_size else {})
    with _quiet():
        program = torch.onnx.export(
            graph.program,
            (graph.example,),
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    assert program is not None
    model = program.model
    for value, dimensions in ((model.graph.inputs[0], names), (model.graph.outputs[0], {0: names.get(0)})):
        for place, name in dimensions.items():
            if name and value.shape is not None:
                value.shape[place] = name
    for node in model.graph:
        node.metadata_props.clear()  # Where in our code each came from: a quarter of a small file.
    model.metadata_props[CARD_KEY] = card_to_json(card)
    program.save(path, external_data=False)
    if calibration is not None:
        _quantize(path, card, calibration)


def open_file(path: Path, calls: Calls) -> tuple[Card, Any]:
    """Open an ONNX file in ONNX Runtime, on the processor.

    Args:
        path: Of the file.
        calls: Whose threads count; any number of threads may call.

    Raises:
        UserError: The package is missing, or the file is no ONNX file of ours.
    """
    runtime = needed("onnxruntime", form=_FORM, extra=_EXTRA)
    runtime.disable_telemetry_events()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = calls.threads
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class for each of its errors, and no common one.
        raise UserError(f"{path} is no ONNX file that can be run: {error}") from None
    card = card_from_json(session.get_modelmeta().custom_metadata_map.get(CARD_KEY), str(path))

    def run(pixels: np.ndarray) -> np.ndarray:
        return session.run(None, {INPUT: pixels})[0]

    return card, run


def _sides(card: Card) -> dict[int, str]:
    first = 1 if card.pixels == "uint8" else 2
    return {first: "height", first + 1: "width"}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and what of torchvision it lacks."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # torch's own tracer calls what torch has deprecated.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


class _Reader:
    """Images in the form in which ONNX Runtime asks for them."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    """ONNX Runtime recommends what torch's exporter has done already."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def _quantize(path: Path, card: Card, calibration: Calibration) -> None:
    """Replace a file by its int8 form: QDQ nodes, a scale for each channel of the weights."""
    quantization = needed("onnxruntime.quantization", form=_FORM, extra=_EXTRA)
    onnx = needed("onnx", form=_FORM, extra=_EXTRA)

    model = onnx.load(path)
    with _silent_log():
        quantization.quantize_static(
            model,
            path,
            _Reader(calibration.batches(card.batch_size or 1)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept_operations(_operations(model.graph.node), calibration.keep),
        )


_KINDS = {"Conv": "layer", "Gemm": "layer", "MatMul": "layer", "ReduceMean": "mean", "Mul": "product"}


def _operations(nodes: Any) -> list[Operation]:  # noqa: ANN401 - protobuf
    makers = {value: node.name for node in nodes for value in node.output}
    return [
        Operation(
            name=node.name,
            kind=_KINDS.get(node.op_type, ""),
            inputs=frozenset(makers[value] for value in node.input if value in makers),
        )
        for node in nodes
    ]
