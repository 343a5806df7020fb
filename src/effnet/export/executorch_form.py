"""ExecuTorch's programs (``.pte``) for telephones and small machines, with XNNPACK's kernels."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import Graph as FxGraph
from torch.fx import Node

from effnet.errors import UserError
from effnet.export.calls import Calls
from effnet.export.card import CARD_KEY, Card, card_from_json, card_to_json
from effnet.export.graph import Graph
from effnet.export.packages import needed
from effnet.export.quantization import Calibration, Operation, kept_operations

_FORM, _EXTRA = "ExecuTorch", "executorch"
_CARD_METHOD = f"{CARD_KEY}_card"


def write(graph: Graph, path: Path, card: Card, calibration: Calibration | None) -> None:
    """Write a program whose second method returns the card.

    Args:
        graph: Of the network, for one size and batch: ExecuTorch plans its memory beforehand.
        path: Of the file.
        card: What the file shall say about itself.
        calibration: Of int8; None: as the graph computes.

    Raises:
        UserError: The package is missing.
    """
    with _quiet():
        exir = _needed("executorch.exir")
        partitioner = _needed("executorch.backends.xnnpack.partition.xnnpack_partitioner")
        program = graph.program
        if calibration is not None:
            program = _quantized(program, graph.example, card, calibration)
        edge = exir.to_edge_transform_and_lower(
            program,
            partitioner=[partitioner.XnnpackPartitioner()],
            constant_methods={_CARD_METHOD: card_to_json(card)},
        )
        path.write_bytes(edge.to_executorch().buffer)


def open_file(path: Path, calls: Calls) -> tuple[Card, Any]:
    """Open a program in ExecuTorch's runtime.

    Args:
        path: Of the file.
        calls: Whose threads count; one number for all programs of this process.

    Raises:
        UserError: The package is missing, or the file is none of ours.
    """
    with _quiet():
        runtime = _needed("executorch.runtime")
        portable = _needed("executorch.extension.pybindings.portable_lib")
    if portable._threadpool_get_thread_count() != calls.threads:
        portable._unsafe_reset_threadpool(calls.threads)
    try:
        program = runtime.Runtime.get().load_program(path)
        text = (
            program.load_method(_CARD_METHOD).execute([])[0] if _CARD_METHOD in program.method_names else None
        )
        method = program.load_method("forward")
    except (RuntimeError, KeyError) as error:
        raise UserError(f"{path} is no ExecuTorch program that can be run: {error}") from None

    def run(pixels: np.ndarray) -> np.ndarray:
        return method.execute([torch.from_numpy(pixels)])[0].numpy()

    return card_from_json(text, str(path)), run


def _needed(package: str) -> Any:  # noqa: ANN401 - a module that may be absent
    return needed(package, form=_FORM, extra=_EXTRA)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ExecuTorch and torchao tell of what they lack and of what torch has deprecated."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _quantized(
    program: ExportedProgram, example: torch.Tensor, card: Card, calibration: Calibration
) -> ExportedProgram:
    """Return the program in int8: a scale for each channel of the weights, symmetric."""
    pt2e = _needed("torchao.quantization.pt2e.quantize_pt2e")
    xnnpack = _needed("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    module = program.module()
    kept = set(kept_operations(_operations(module.graph), calibration.keep))
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(lambda node: node.name not in kept)
    prepared = pt2e.prepare_pt2e(module, quantizer)
    with torch.no_grad():
        for batch in calibration.batches(card.batch_size):
            prepared(torch.from_numpy(batch))
    return torch.export.export(pt2e.convert_pt2e(prepared), (example,))


_KINDS = {
    torch.ops.aten.conv2d.default: "layer",
    torch.ops.aten.linear.default: "layer",
    torch.ops.aten.mean.dim: "mean",
    torch.ops.aten.mul.Tensor: "product",
}


def _operations(graph: FxGraph) -> list[Operation]:
    return [
        Operation(
            name=node.name,
            kind=_KINDS.get(node.target, ""),
            inputs=frozenset(_computed(node)),
        )
        for node in graph.nodes
        if node.op == "call_function"
    ]


def _computed(node: Node) -> Iterator[str]:
    return (given.name for given in node.all_input_nodes if given.op == "call_function")
