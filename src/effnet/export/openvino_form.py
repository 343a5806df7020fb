"""OpenVINO's files (``.xml`` with its ``.bin``), and NNCF to quantize them."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from effnet.errors import UserError
from effnet.export.calls import Calls
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


def open_file(path: Path, calls: Calls) -> tuple[Card, Any]:
    """Open a file in OpenVINO, on the processor.

    Args:
        path: Of the ``.xml``; the ``.bin`` lies beside it.
        calls: How it is going to be called; each of its sizes is compiled when it first comes.

    Raises:
        UserError: The package is missing, or the file is none of ours.
    """
    needed("openvino", form=_FORM, extra=_EXTRA)
    core = _core()
    settings = {
        # Where the processor has bfloat16, OpenVINO would compute in it unless told otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": calls.threads * calls.at_once,
        "NUM_STREAMS": calls.at_once,
    }
    try:
        model = core.read_model(path)
        keys = [CARD_KEY, "card"]
        text = model.get_rt_info(keys).astype(str) if model.has_rt_info(keys) else None
        card = card_from_json(text, str(path))
        compiled = _Compiled(core, model, settings, calls.sizes)
        compiled.of(calls.sizes[0] if calls.sizes else 0)
    except RuntimeError as error:
        raise UserError(f"{path} is no OpenVINO file that can be run: {error}") from None
    return card, compiled


@cache
def _core() -> Any:  # noqa: ANN401 - openvino.Core
    """Return the one core of this process.

    Where the processor has AMX, each core gives the thread that compiles first a stack of its own for signal
    handlers. One core after another leaves a stack behind that is no more, and the next Ctrl-C ends in a
    segmentation fault.
    """
    return needed("openvino", form=_FORM, extra=_EXTRA).Core()


class _Compiled:
    """A model, compiled for each size that it is called with; every thread has requests of its own."""

    def __init__(self, core: Any, model: Any, settings: dict[str, Any], sizes: tuple[int, ...]) -> None:  # noqa: ANN401
        self._core, self._model, self._settings, self._sizes = core, model, settings, sizes
        self._of: dict[int, Any] = {}
        self._compiling, self._own = threading.Lock(), threading.local()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        size = len(pixels) if self._sizes else 0
        requests = self._own.__dict__.setdefault("requests", {})
        if size not in requests:
            requests[size] = self.of(size).create_infer_request()
        return np.array(requests[size].infer({0: pixels}, share_inputs=True)[0])

    def of(self, size: int) -> Any:  # noqa: ANN401 - openvino.CompiledModel
        """Return what is compiled for so many images; 0: for what the file says."""
        with self._compiling:
            if size not in self._of:
                model = self._model
                if size:
                    model = model.clone()
                    shape = model.inputs[0].get_partial_shape()
                    shape[0] = size
                    model.reshape({0: shape})
                self._of[size] = self._core.compile_model(model, "CPU", self._settings)
            return self._of[size]


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
