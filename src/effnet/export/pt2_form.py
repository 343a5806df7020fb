"""torch.export's files, which torch runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from effnet.errors import UserError
from effnet.export.calls import Calls
from effnet.export.card import CARD_KEY, Card, card_from_json, card_to_json
from effnet.export.graph import Graph, forget_sources
from effnet.export.pt2_vetting import vet
from effnet.export.quantization import Calibration

_CARD_FILE = f"{CARD_KEY}.json"


def write(graph: Graph, path: Path, card: Card, calibration: Calibration | None) -> None:
    """Write a ``.pt2`` archive with the card as an extra file.

    Args:
        graph: Of the network; it loses what names its modules.
        path: Of the file.
        card: What the file shall say about itself.
        calibration: None; there is no int8.
    """
    forget_sources(graph.program, "nn_module_stack", "source_fn_stack", "torch_fn")
    with warnings.catch_warnings():
        # torch's own tracer calls what torch has deprecated.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        torch.export.save(graph.program, path, extra_files={_CARD_FILE: card_to_json(card)})


def open_file(path: Path, calls: Calls) -> tuple[Card, Any]:
    """Open a ``.pt2`` archive once it is known to hold nothing that runs by being read.

    Args:
        path: Of the file.
        calls: torch has one number of threads for all that it computes; this does not change it.

    Raises:
        UserError: The file is none of ours, or could run code.
    """
    vet(path)
    extra = {_CARD_FILE: ""}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        try:
            program = torch.export.load(path, extra_files=extra)
        except Exception as error:  # A document that is not what torch expects fails in many ways.
            raise UserError(f"{path} is no .pt2 file that can be run: {error}") from None
    card = card_from_json(extra[_CARD_FILE], str(path))
    module = program.module()

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        return module(torch.from_numpy(pixels)).numpy()

    return card, run
