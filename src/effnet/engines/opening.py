"""Engines made ready: PyTorch's from the network, the runtimes' from exported files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from effnet.engines.figures import EAGER
from effnet.engines.spread import Answer, Spread
from effnet.export.calls import Calls
from effnet.export.card import Card
from effnet.export.checking import Source
from effnet.export.engine import load_engine
from effnet.export.forms import form_named
from effnet.export.settings import ExportSettings
from effnet.export.writing import Wish, write_form
from effnet.nn import Network
from effnet.nn.folding import fold_norms

PIECE = 4
"""Images that a thread computes at a time: the caches of a core hold what lies between their layers."""
SETTINGS = ExportSettings(batch_size=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """A runtime that can be an engine."""

    form: str
    """Of its files."""
    modules: tuple[str, ...]
    """That must be installed to write and to run them."""
    sizes: tuple[int, ...]
    """Of the pieces that it computes."""
    has_fixed_shapes: bool
    """Whether it is faster where it knows the number of images."""


RUNTIMES = {
    runtime.form: runtime
    for runtime in (
        Runtime(
            form="onnx",
            modules=("onnx", "onnxscript", "onnxruntime"),
            sizes=tuple(range(1, PIECE + 1)),
            has_fixed_shapes=False,
        ),
        Runtime(form="openvino", modules=("openvino",), sizes=(1, PIECE), has_fixed_shapes=True),
    )
}
"""By their names, which are those of `effnet.export.forms.FORMS`."""


def installed_runtimes() -> list[str]:
    """Return the names of the runtimes whose packages are there."""
    return [name for name, runtime in RUNTIMES.items() if all(map(_is_installed, runtime.modules))]


def write_engine(name: str, source: Source, folder: Path) -> Card:
    """Export a network for a runtime, under the name that `open_engine` looks for.

    Args:
        name: Of the runtime.
        source: The network.
        folder: Where the files go.

    Raises:
        UserError: A package is missing.
    """
    form = form_named(name)
    wish = Wish(form=form, precision="fp32", path=folder / file_name(name))
    return write_form(source, wish, SETTINGS, wish.path)


def file_name(name: str) -> str:
    """Return the name of a runtime's file."""
    return f"model{form_named(name).suffix}"


def open_one(name: str, folder: Path, threads: int) -> Answer:
    """Return what answers one image with all threads.

    Raises:
        UserError: The package is missing, or the file is damaged.
    """
    sizes = (1,) if RUNTIMES[name].has_fixed_shapes else ()
    return load_engine(folder / file_name(name), calls=Calls(threads=threads, sizes=sizes))


def open_piece(name: str, folder: Path, threads: int) -> tuple[Answer, tuple[int, ...]]:
    """Return what answers pieces with one thread each, as many at a time as there are threads, and its sizes.

    Raises:
        UserError: The package is missing, or the file is damaged.
    """
    runtime = RUNTIMES[name]
    sizes = runtime.sizes[::-1] if runtime.has_fixed_shapes else ()
    calls = Calls(threads=1, at_once=threads, sizes=sizes)
    return load_engine(folder / file_name(name), calls=calls), runtime.sizes


def open_spread(one: str, many: str, network: Network, folder: Path, threads: int) -> Spread:
    """Return engines for single images and for many as one.

    Args:
        one: The engine for single images.
        many: The engine for more.
        network: In evaluation mode, on the processor.
        folder: With the files of the runtimes.
        threads: That compute.

    Raises:
        UserError: A package is missing, or a file is damaged.
    """
    eager = cache(lambda: eager_answer(network))  # One copy of the weights, if any.
    any_size = tuple(range(1, PIECE + 1))
    piece, sizes = (eager(), any_size) if many == EAGER else open_piece(many, folder, threads)
    single = eager() if one == EAGER else open_one(one, folder, threads)
    return Spread(single, piece, sizes=sizes, threads=threads)


def eager_answer(network: Network) -> Answer:
    """Return the network as PyTorch computes it fastest: its norms folded."""
    folded = fold_norms(network)

    @torch.inference_mode()
    def answer(pixels: Tensor) -> Tensor:
        return folded(pixels.contiguous(memory_format=torch.channels_last))

    return answer


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # Of a module that somebody has put in place without a spec.
        return False
