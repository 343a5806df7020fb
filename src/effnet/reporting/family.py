"""Accuracy against what it costs: published networks and one's own runs (2104.00298, figures 1 and 5).

Only what was measured alike shares an axis. Accuracies on other images than ImageNet's have panels of their
own, and so have times of other machines: the paper's latencies and hours are never beside those of here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from effnet.api import load
from effnet.arch.family import network as network_of
from effnet.errors import UserError, did_you_mean
from effnet.reporting.facts import NetworkFacts, RunFacts, SplitFacts, read_runs
from effnet.reporting.latency import Latency, Timed, measure_latencies, ready, ready_fresh
from effnet.reporting.missing import Missing
from effnet.reporting.published import LATENCY, PUBLISHED, TRAINING, Published, measurable
from effnet.training.experiment import choose_device
from effnet.training.journal import environment

IMAGENET = "ImageNet"
_CLASSES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnRun:
    """One's own run as a point."""

    name: str
    network: str
    data: str
    """What its accuracy is of, for people; runs with the same words share an axis."""
    is_imagenet: bool
    is_fine_tuned: bool
    """Whether it began with weights; what those cost is not in its time."""
    top1: float
    """Per cent, of the best weights."""
    params: float | None
    """Millions; None where another library knows the layers."""
    macs: float
    """Billions of multiply-adds of one image."""
    image_size: int
    minutes: float
    """Of training, evaluation included."""
    machine: str
    """On which it was trained."""
    latency: Latency | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """What is drawn."""

    series: str
    name: str
    x: float
    y: float
    is_own: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Points that may be compared."""

    title: str
    x_label: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """All points, and where they come from."""

    published: tuple[Published, ...]
    runs: tuple[OwnRun, ...]
    latencies: dict[str, Latency]
    """Of networks that were published, measured here."""
    machine: dict[str, Any]
    """See `effnet.training.journal.environment`."""
    latency_label: str
    """What latencies of here are of."""

    def rows(self) -> tuple[tuple[Panel, ...], ...]:
        """Return the panels: those of ImageNet, then those of each other set of images."""
        others = dict.fromkeys(run.data for run in self.runs if not run.is_imagenet)
        return (self._imagenet(), *(self._other(data) for data in others))

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, as JSON can hold them."""
        return {
            "environment": self.machine,
            "published_latency": LATENCY,
            "published_training": TRAINING,
            "latency": self.latency_label,
            "published": [point._asdict() for point in self.published],
            "measured": {name: asdict(latency) for name, latency in self.latencies.items()},
            "runs": [asdict(run) for run in self.runs],
        }

    def _imagenet(self) -> tuple[Panel, ...]:
        own = [run for run in self.runs if run.is_imagenet]
        measured = [
            Point(
                series=point.series, name=point.name, x=self.latencies[point.network].median_ms, y=point.top1
            )
            for point in self.published
            if point.network in self.latencies
        ]
        here = (*measured, *_own(own, _latency))
        panels = [
            Panel(
                title=IMAGENET,
                x_label="parameters, millions",
                points=(*_points(self.published, lambda point: point.params), *_own(own, _params)),
            ),
            Panel(
                title=IMAGENET,
                x_label="multiply-adds of an image, billions",
                points=(*_points(self.published, lambda point: point.macs), *_own(own, _macs)),
            ),
            Panel(
                title=IMAGENET,
                x_label=f"latency as published: {LATENCY}",
                points=_points(self.published, lambda point: point.latency),
            ),
            Panel(
                title=IMAGENET,
                x_label=f"training as published: {TRAINING}",
                points=_points(self.published, lambda point: point.training),
            ),
        ]
        if here:
            panels.append(Panel(title=IMAGENET, x_label=self.latency_label, points=here))
        if own:
            panels.append(Panel(title=IMAGENET, x_label=_training_label(own), points=_own(own, _minutes)))
        return tuple(panels)

    def _other(self, data: str) -> tuple[Panel, ...]:
        own = [run for run in self.runs if run.data == data and not run.is_imagenet]
        axes = (
            ("parameters, millions", _params),
            ("multiply-adds of an image, billions", _macs),
            (self.latency_label, _latency),
            (_training_label(own), _minutes),
        )
        panels = (Panel(title=data, x_label=label, points=_own(own, x)) for label, x in axes)
        return tuple(panel for panel in panels if panel.points)


def collect_family(
    runs: Sequence[Path],
    *,
    measure: Sequence[str] = (),
    images: int = 1,
    rounds: int = 7,
    device: str = "auto",
    announce: Callable[[str], None] | None = None,
) -> Family:
    """Read runs and measure what is asked for.

    Args:
        runs: Folders of runs that have been evaluated.
        measure: Published networks whose latency is measured here, beside that of the runs.
        images: At a time, where latency is measured.
        rounds: Forward passes of each network that count; 0: no latency is measured.
        device: As ``train.device``.
        announce: Told what is being done.

    Raises:
        UserError: A folder holds no run, a run has no accuracy yet, or a network was not published.
    """
    unknown = [name for name in measure if name not in measurable()]
    if unknown:
        raise UserError(
            f"'{unknown[0]}' has no published accuracy here{did_you_mean(unknown[0], measurable())}"
        )
    facts = read_runs(runs)
    for run in facts:
        if run.best is None or isinstance(run.network, Missing):
            raise UserError(
                f"{run.path} has not been evaluated yet, so it has no accuracy to draw; continue it with: "
                f"effnet train --resume {run.path}"
            )
    place = choose_device(device)
    timed = _timed(facts, measure, place) if rounds else {}
    found = measure_latencies(timed, device=place, images=images, rounds=rounds, announce=announce)
    machine = environment()
    where = machine["devices"][0] if place.type == "cuda" else machine["cpu_model"]
    what = f"ms for {images} {'image' if images == 1 else 'images'}, {torch.get_num_threads()} threads"
    return Family(
        published=PUBLISHED,
        runs=tuple(_own_run(run, found.get(_key(run))) for run in facts),
        latencies={name: found[name] for name in measure if name in found},
        machine=machine,
        latency_label=f"latency here: {what}, {where}",
    )


def _timed(facts: Sequence[RunFacts], measure: Sequence[str], place: torch.device) -> dict[str, Timed]:
    timed = {name: ready_fresh(network_of(name), place) for name in measure}
    for run in facts:
        predictor = load(run.path, device=str(place))
        timed[_key(run)] = ready(predictor.model, predictor.preprocessing.image_size, place)
    return timed


def _key(run: RunFacts) -> str:
    return f"run {run.path}"


def _own_run(run: RunFacts, latency: Latency | None) -> OwnRun:
    """Make a point of a run that has been evaluated."""
    network, best, split = run.network, run.best, run.split
    assert isinstance(network, NetworkFacts)
    assert best is not None
    source = run.config.data.source
    name = Path(source).name or source
    is_imagenet = False
    data = name
    if isinstance(split, SplitFacts):
        classes = len(split.class_names)
        is_imagenet = classes == _CLASSES and "imagenet" in source.lower()
        data = f"{name}: {classes} classes, {split.val_images:,} images to validate"
        # The same words would put different images on one axis.
        data += f" ({split.val_digest[:6]})"
    return OwnRun(
        name=run.name,
        network=network.name,
        data=data,
        is_imagenet=is_imagenet,
        is_fine_tuned=bool(run.config.model.weights),
        top1=100 * best.top1,
        params=None if network.params is None else network.params / 1e6,
        macs=network.macs / 1e9,
        image_size=network.image_size,
        minutes=run.seconds / 60,
        machine=_machine(run),
        latency=latency,
    )


def _machine(run: RunFacts) -> str:
    devices = run.environment.get("devices") or []
    return str(devices[0] if devices else run.environment.get("cpu_model", "unknown"))


def _points(published: Sequence[Published], x_of: Callable[[Published], float | None]) -> tuple[Point, ...]:
    found = ((point, x_of(point)) for point in published)
    return tuple(
        Point(series=point.series, name=point.name, x=x, y=point.top1) for point, x in found if x is not None
    )


def _own(runs: Sequence[OwnRun], x_of: Callable[[OwnRun], float | None]) -> tuple[Point, ...]:
    found = ((run, x_of(run)) for run in runs)
    return tuple(
        Point(
            series="own runs, from weights" if run.is_fine_tuned else "own runs, from scratch",
            name=run.name,
            x=x,
            y=run.top1,
            is_own=True,
        )
        for run, x in found
        if x
    )


def _params(run: OwnRun) -> float | None:
    return run.params


def _macs(run: OwnRun) -> float:
    return run.macs


def _latency(run: OwnRun) -> float | None:
    return run.latency.median_ms if run.latency else None


def _minutes(run: OwnRun) -> float:
    return run.minutes


def _training_label(runs: Sequence[OwnRun]) -> str:
    machines = sorted({run.machine for run in runs})
    return f"training here: minutes, {machines[0] if len(machines) == 1 else 'on different machines'}"
