"""Write the engines of a network, compare them with it, and time those that answer like it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path

import torch

from effnet.engines.figures import EAGER, Figures
from effnet.engines.kept import KeptEngines, Measured
from effnet.engines.opening import PIECE, SETTINGS, open_spread, write_engine
from effnet.engines.spread import Spread
from effnet.export.checking import Source, answers_of, compare_with_network
from effnet.export.forms import form_named
from effnet.export.images import made_images
from effnet.export.latency import take_turns
from effnet.export.packages import versions
from effnet.export.parity import RefusedExportError, refusal
from effnet.training.timing import fair_clock

CHECKED_IMAGES = 16
_SECONDS, _FEWEST_TURNS, _MOST_TURNS = 2.0, 3, 9
"""About how long PyTorch's turns take altogether, and how many there are."""
_PAUSE_S = 0.02
"""In which the threads of ONNX Runtime, which wait for more work for a while, fall asleep."""


def measure_engines(
    names: Iterable[str],
    source: Source,
    kept: KeptEngines,
    threads: int,
    *,
    tell: Callable[[str], None] = lambda line: None,
) -> Measured:
    """Return how fast PyTorch and other engines are; their files are kept.

    Args:
        names: Of the runtimes; one that fails or answers otherwise than the network is left out.
        source: The network.
        kept: Where the files are.
        threads: That compute.
        tell: Told in one line of each engine that cannot be used.
    """
    spreads = {EAGER: open_spread(EAGER, EAGER, source.network, kept.folder, threads)}
    starts, refused = {EAGER: 0.0}, {}
    for name in names:
        try:
            ready_file(name, source, kept, threads)
            began = time.perf_counter()
            spreads[name] = open_spread(name, name, source.network, kept.folder, threads)
            starts[name] = time.perf_counter() - began
        except Exception as error:  # Whatever a converter or a runtime fails with, there is another engine.
            refused[name] = reason_of(error)
            tell(f"engine {name} cannot be used: {refused[name]}")
    side, channels = source.preprocessing.image_size, source.network.spec.in_channels
    one, many = _timed(spreads, (channels, side, side), threads)
    figures = {name: Figures(start=starts[name], one=one[name], many=many[name]) for name in spreads}
    return Measured(figures=figures, refused=refused, measured=date.today().isoformat())


def ready_file(name: str, source: Source, kept: KeptEngines, threads: int) -> None:
    """Write an engine's file and compare it with the network, unless it is kept.

    Args:
        name: Of the runtime.
        source: The network.
        kept: Where the files are.
        threads: That compute.

    Raises:
        UserError: A package is missing.
        RefusedExportError: The engine answers otherwise than the network.
        OSError: The disk is full or cannot be written.
        Exception: Whatever the converter fails with.
    """
    about = {"packages": packages_of(name)}
    if kept.has_file(name, about):
        return
    with tempfile.TemporaryDirectory(dir=kept.folder, prefix=".begun-") as temporary:
        folder = Path(temporary)
        write_engine(name, source, folder)
        _check(open_spread(name, name, source.network, folder, threads), source)
        kept.keep_file(name, about, folder)


def packages_of(*names: str) -> dict[str, str]:
    """Return the versions of what writes and runs engines, on which they depend besides the network."""
    return versions("effnet", "torch", *(package for name in names for package in form_named(name).packages))


def reason_of(error: Exception) -> str:
    """Return the first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check(spread: Spread, source: Source) -> None:
    """Compare both forms of an engine with the network, by the rule of ``effnet export``."""
    images = made_images(source.class_names, source.preprocessing.image_size, count=CHECKED_IMAGES)
    limits = SETTINGS.limits("fp32")
    expected = answers_of(source.network, source, images)
    for way in (spread.alone, lambda pixels: torch.cat([spread(each[None]) for each in pixels])):
        parity = compare_with_network(way, source, images, expected, limits.difference)
        if reason := refusal(parity, limits):
            raise RefusedExportError(f"on {images.source} {reason}")


def _timed(
    spreads: Mapping[str, Spread], shape: tuple[int, ...], threads: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median seconds of one image, and of each of many."""
    found = []
    for count in (1, PIECE * threads):
        pixels = torch.zeros(count, *shape).contiguous(memory_format=torch.channels_last)
        calls = {name: _call(spread, pixels) for name, spread in spreads.items()}
        calls[EAGER]()
        began = time.perf_counter()
        calls[EAGER]()
        turns = round(_SECONDS / max(time.perf_counter() - began, 1e-9))
        latencies = take_turns(
            calls,
            turns=min(max(turns, _FEWEST_TURNS), _MOST_TURNS),
            batch_size=count,
            warm_up=1,
            pause_s=_PAUSE_S,
            clock=fair_clock(threads),
        )
        found.append({name: latency.median_ms / 1e3 / count for name, latency in latencies.items()})
    return found[0], found[1]


def _call(spread: Spread, pixels: torch.Tensor) -> Callable[[], object]:
    return lambda: spread(pixels)
