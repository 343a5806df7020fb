"""OpenVINO's files (``.xml`` with its ``.bin``), and NNCF to quantize them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import UserError
from effnet.export.card import CARD_KEY, Card, card_from_json, card_to_json
from effnet.export.graph import INPUT, OUTPUT, Graph
from effnet.export.packages import needed
from effnet.export.quantization import Calibration, Operation, kept_operations

_FORM, _EXTRA = "OpenVINO", "openvino"


def write(graph: Graph, path: Path, card: Card, calibration: Calibration | None) -> None:
    """Write ``path`` and the weights beside it, under the same name with ``.bin``.

    Args:
        graph: Of the network, in single precision.
        path: Of the file.
        card: What the file shall say about itself; in fp16 it holds half of the bits of each weight.
        calibration: Of int8; None: as the graph computes.

    Raises:
        UserError: A package is missing.
    """
    openvino = needed("openvino", form=_FORM, extra=_EXTRA)
    with warnings.catch_warnings():
        # torch's own tracer calls what torch has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        model = openvino.convert_model(graph.program)
    model.reshape({0: openvino.PartialShape(_shape(graph, card))})
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    if calibration is not None:
        model = _quantized(model, card, calibration)
    model.set_rt_info(card_to_json(card), [CARD_KEY, "card"])
    openvino.save_model(model, path, compress_to_fp16=card.precision == "fp16")


def open_file(path: Path, threads: int) -> tuple[Card, Any]:
    """Open a file in OpenVINO, on the processor.

    Args:
        path: Of the ``.xml``; the ``.bin`` lies beside it.
        threads: To compute with.

    Raises:
        UserError: The package is missing, or the file is none of ours.
    """
    openvino = needed("openvino", form=_FORM, extra=_EXTRA)
    core = openvino.Core()
    # Where the processor has bfloat16, OpenVINO would compute in it unless told otherwise.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    try:
        model = core.read_model(path)
        keys = [CARD_KEY, "card"]
        text = model.get_rt_info(keys).astype(str) if model.has_rt_info(keys) else None
        card = card_from_json(text, str(path))
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise UserError(f"{path} is no OpenVINO file that can be run: {error}") from None
    request = compiled.create_infer_request()

    def run(pixels: np.ndarray) -> np.ndarray:
        return np.array(request.infer({0: pixels}, share_inputs=True)[0])

    return card, run


def _shape(graph: Graph, card: Card) -> list[int]:
    shape = list(graph.example.shape)
    if card.batch_size == 0:
        shape[0] = -1
    if card.any_size:
        first = 1 if card.pixels == "uint8" else 2
        shape[first : first + 2] = [-1, -1]
    return shape


def _quantized(model: Any, card: Card, calibration: Calibration) -> Any:  # noqa: ANN401 - openvino.Model
    nncf = needed("nncf", form="int8 for OpenVINO", extra=_EXTRA)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    batches = list(calibration.batches(card.batch_size or 1))
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF shows bars.
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {INPUT: batch}),
            subset_size=len(batches),
            target_device=nncf.TargetDevice.CPU,
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(
                names=kept_operations(_operations(model), calibration.keep), validate=False
            ),
        )


_KINDS = {
    "Convolution": "layer",
    "GroupConvolution": "layer",
    "MatMul": "layer",
    "ReduceMean": "mean",
    "Multiply": "product",
}


def _operations(model: Any) -> list[Operation]:  # noqa: ANN401 - openvino.Model
    return [
        Operation(
            name=operation.get_friendly_name(),
            kind=_KINDS.get(operation.get_type_name(), ""),
            inputs=frozenset(
                node.get_friendly_name()
                for node in (value.get_node() for value in operation.input_values())
                if node.get_type_name() != "Constant"
            ),
        )
        for operation in model.get_ordered_ops()
        if operation.get_type_name() not in {"Constant", "Result"}
    ]
