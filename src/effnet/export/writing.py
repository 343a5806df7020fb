"""Write a network in several forms, and keep those that answer like it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from effnet.errors import UserError
from effnet.export.card import Card, Precision
from effnet.export.checking import Source, answers_of, compare_with_network
from effnet.export.document import Exported, add_to_document
from effnet.export.engine import Engine, load_engine
from effnet.export.forms import Form
from effnet.export.graph import from_raw, to_raw, trace
from effnet.export.images import CheckImages
from effnet.export.latency import Latency, take_turns
from effnet.export.packages import versions
from effnet.export.parity import RefusedExportError, refusal, relative_differences
from effnet.export.quantization import Calibration
from effnet.export.settings import ExportSettings

_TURNS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """One file that is asked for."""

    form: Form
    precision: Precision
    path: Path

    def __str__(self) -> str:
        """Name the form, and the precision where it is not the usual one."""
        return self.form.name if self.precision == "fp32" else f"{self.form.name} in {self.precision}"


def check_wishes(wishes: Sequence[Wish], settings: ExportSettings) -> None:
    """Refuse what cannot be had, before anything is computed.

    Raises:
        UserError: A form has not what is asked of it, or cannot be run here.
    """
    for wish in wishes:
        form = wish.form
        if wish.precision not in form.precisions:
            allowed = ", ".join(form.precisions)
            raise UserError(f"{form.name} cannot be exported in {wish.precision}; it can in {allowed}")
        if settings.any_size and not form.has_any_size:
            raise UserError(f"{form.name} files are for one size; leave --dynamic-size out")
        if settings.batch_size == 0 and not form.has_any_batch:
            raise UserError(f"{form.name} files are for one batch size; choose one with --batch-size")
        if settings.raw_pixels and not form.takes_bytes:
            raise UserError(f"{form.name} files take normalised pixels; leave --preprocess out")
        if form.open is None and not settings.allow_unchecked:
            raise UserError(
                f"{form.name} files cannot be run here, so what this one answers would not be known; add "
                "--unchecked to write it all the same"
            )


def write_wishes(
    source: Source,
    wishes: Sequence[Wish],
    settings: ExportSettings,
    check: CheckImages,
    calibrate: Callable[[], Calibration],
    *,
    report: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Write files, compare each with the network through its own runtime, and time all of them in turns.

    A file appears under its name once it has passed, and ``parity.json`` beside it.

    Args:
        source: The network.
        wishes: The files.
        settings: How to export.
        check: What the files must answer.
        calibrate: Called once, if a file is in int8.
        report: Told what is done next.

    Raises:
        UserError: See `check_wishes`; or a package is missing.
        RefusedExportError: Some files answer otherwise than the network; those are gone, the others are kept.
    """
    check_wishes(wishes, settings)
    folder = wishes[0].path.parent
    existing = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    calibration = calibrate() if any(wish.precision == "int8" for wish in wishes) else None
    report(f"asking the network about {check.source}")
    expected = answers_of(source.network, source, check)
    refusals: list[str] = []
    accepted: list[tuple[Wish, Path, Exported, Engine | None]] = []
    with tempfile.TemporaryDirectory(dir=existing, prefix=".export-") as temporary:
        for number, wish in enumerate(wishes):
            report(f"writing {wish}")
            staged = Path(temporary) / str(number) / wish.path.name
            staged.parent.mkdir()
            card = write_form(source, wish, settings, staged, _ranges(wish, calibration))
            engine = None if wish.form.open is None else load_engine(staged)
            exported = _exported(wish, staged, card, settings, check)
            if engine is not None:
                report(f"asking {wish} about {check.source}")
                most = exported.limits.difference if wish.precision == "fp32" else None
                parity = compare_with_network(engine, source, check, expected, most, report=report)
                exported = replace(exported, parity=parity)
                if reason := _reason(exported, engine, source):
                    refusals.append(f"{wish} is refused: {reason}")
                    continue
            accepted.append((wish, staged, exported, engine))
        timed = _timed(source, settings, [(exported, engine) for _, _, exported, engine in accepted])
        for wish, staged, _, _ in accepted:
            _move(staged.parent, wish.path.parent)
    if timed:
        add_to_document(folder, timed)
    if refusals:
        kept = f"; kept: {', '.join(str(item.path) for item in timed)}" if timed else ""
        raise RefusedExportError("; ".join(refusals) + kept)
    return timed


def write_form(
    source: Source, wish: Wish, settings: ExportSettings, path: Path, calibration: Calibration | None = None
) -> Card:
    """Write one file without asking it anything.

    Args:
        source: The network.
        wish: The form and the precision.
        settings: How to export.
        path: Of the file; what else belongs to it lies beside it.
        calibration: Of int8.

    Returns:
        What the file says about itself.

    Raises:
        UserError: A package is missing.
    """
    graph = trace(
        source.network,
        source.preprocessing,
        batch_size=settings.batch_size,
        any_size=settings.any_size,
        raw_pixels=settings.raw_pixels,
        half=wish.precision == "fp16" and wish.form.traces_half,
    )
    card = _card(source, wish, settings)
    wish.form.write(graph, path, card, calibration)
    return card


def _ranges(wish: Wish, calibration: Calibration | None) -> Calibration | None:
    return calibration if wish.precision == "int8" else None


def _card(source: Source, wish: Wish, settings: ExportSettings) -> Card:
    return Card(
        network=source.network.spec.name,
        parameters=sum(parameter.numel() for parameter in source.network.parameters()),
        class_names=source.class_names,
        preprocessing=source.preprocessing,
        output=source.output,
        pixels="uint8" if settings.raw_pixels else "normalised",
        batch_size=settings.batch_size,
        any_size=settings.any_size,
        form=wish.form.name,
        precision=wish.precision,
        origin=source.origin,
        packages=versions("effnet", "torch", *wish.form.packages),
    )


def _reason(exported: Exported, engine: Engine, source: Source) -> str | None:
    """Return why a file must not be kept; None: it may."""
    assert exported.parity is not None
    if reason := refusal(exported.parity, exported.limits):
        return f"on {exported.images} {reason}"
    return _other_sizes(engine, source, exported)


def _other_sizes(engine: Engine, source: Source, exported: Exported) -> str | None:
    """Return why a file for any size is wrong at sizes that it was not traced at; None: it is not."""
    if not exported.card.any_size:
        return None
    side = source.preprocessing.image_size
    for other in (side + 1, max(side * 3 // 4, 1)):
        pixels = torch.randn(
            2, source.network.spec.in_channels, other, other, generator=torch.Generator().manual_seed(0)
        )
        if exported.card.pixels == "uint8":
            pixels = from_raw(to_raw(pixels, source.preprocessing), source.preprocessing)
        with torch.inference_mode():
            expected = source.network(pixels)
        difference = float(relative_differences(engine(pixels).numpy(), expected.numpy()).max())
        if not difference <= exported.limits.difference:
            return (
                f"at {other} px its logits differ by up to {difference:.2g} of the largest one; allowed: "
                f"{exported.limits.difference:.2g}"
            )
    return None


def _exported(wish: Wish, staged: Path, card: Card, settings: ExportSettings, check: CheckImages) -> Exported:
    files = [path for path in staged.parent.rglob("*") if path.is_file()]
    return Exported(
        path=wish.path,
        card=card,
        size_bytes=sum(path.stat().st_size for path in files),
        limits=settings.limits(wish.precision),
        images=check.source,
        parity=None,
        latency=None,
        network_latency=None,
    )


def _timed(
    source: Source, settings: ExportSettings, exported: Sequence[tuple[Exported, Engine | None]]
) -> list[Exported]:
    """Time what runs here beside the network in PyTorch, each with as many threads as torch has."""
    batch_size, side = settings.batch_size or 1, source.preprocessing.image_size
    pixels = torch.zeros(batch_size, source.network.spec.in_channels, side, side)
    network, given = source.network, pixels.contiguous(memory_format=torch.channels_last)

    def ask_network() -> object:
        with torch.inference_mode():
            return network(given)

    calls: dict[str, Callable[[], object]] = {"": ask_network}
    for item, engine in exported:
        if engine is not None:
            taken = np.zeros((batch_size, side, side, pixels.shape[1]), np.uint8)
            taken = taken if settings.raw_pixels else pixels.numpy()
            calls[item.path.name] = _call(engine, taken)
    if len(calls) == 1:
        return [item for item, _ in exported]
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    latencies = take_turns(calls, turns=_TURNS, batch_size=batch_size)
    return [_with_latency(item, latencies) for item, _ in exported]


def _call(engine: Engine, pixels: np.ndarray) -> Callable[[], object]:
    return lambda: engine.answer(pixels)


def _with_latency(exported: Exported, latencies: dict[str, Latency]) -> Exported:
    own = latencies.get(exported.path.name)
    return replace(exported, latency=own, network_latency=latencies[""] if own else None)


def _move(staged: Path, folder: Path) -> None:
    """Give the files of one form their names; that of a file's weights comes first, the file itself last."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in staged.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    for path in sorted(staged.iterdir(), key=lambda path: path.suffix != ".bin"):
        if (folder / path.name).is_dir():  # A package of Core ML is a folder, and so was the one before.
            shutil.rmtree(folder / path.name)
        path.replace(folder / path.name)
