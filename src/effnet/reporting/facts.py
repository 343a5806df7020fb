"""What the folder of a run says about it, read without its images and without computing anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effnet.api.reading import run_config
from effnet.arch.accounting import network_cost
from effnet.arch.external import AnySpec, ExternalSpec
from effnet.arch.io import spec_from_dict
from effnet.config import Config
from effnet.errors import UserError
from effnet.nn import forward_macs
from effnet.reporting.missing import Missing, attempt
from effnet.reporting.stages import StageTime, stage_times
from effnet.schedule.progressive import StageSchedule, stage_schedule
from effnet.training.experiment import network_of
from effnet.training.journal import Run, open_run
from effnet.weights.storage import read_metadata


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkFacts:
    """The network of a run."""

    name: str
    params: int | None
    """Trainable values; None where another library knows the layers."""
    macs: int
    """Multiply-adds of one image at ``image_size``."""
    image_size: int
    """Side in pixels at which it is evaluated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """The images of a run."""

    class_names: tuple[str, ...]
    train_images: int
    train_digest: str
    """SHA-256 of names and labels."""
    val_images: int
    val_digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One line of the journal about the validation images."""

    step: int
    epoch: float
    top1: float
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What is known of a run without asking its network anything."""

    name: str
    """Of the folder; its whole path where several runs of a report have the same name."""
    path: Path
    config: Config
    environment: Mapping[str, Any]
    """See `effnet.training.journal.environment`; empty where the file is gone."""
    metrics: tuple[Mapping[str, Any], ...]
    network: NetworkFacts | Missing
    split: SplitFacts | Missing
    schedule: StageSchedule | Missing
    stages: tuple[StageTime, ...]
    """Empty where the schedule is missing."""
    evaluations: tuple[Evaluation, ...]
    bad_images: int
    has_weights: bool
    """Whether there are weights to use."""

    @property
    def step(self) -> int:
        """Steps done, by the last line of the journal."""
        return max((int(record.get("step", 0)) for record in self.metrics), default=0)

    @property
    def epoch(self) -> float:
        """Epochs done, by the last line of the journal."""
        return max((float(record.get("epoch", 0.0)) for record in self.metrics), default=0.0)

    @property
    def stopped_early(self) -> bool:
        """Whether it ended because it no longer improved."""
        return any(record.get("stopped_early") for record in self.metrics)

    @property
    def is_finished(self) -> bool:
        """Whether all of its steps are done, or it stopped early."""
        if self.stopped_early:
            return True
        return isinstance(self.schedule, StageSchedule) and self.step >= self.schedule.total_steps

    @property
    def best(self) -> Evaluation | None:
        """The evaluation whose weights were kept: the last of the best ones."""
        return max(self.evaluations, key=lambda found: (found.top1, found.step), default=None)

    @property
    def seconds(self) -> float:
        """Time in the loop, evaluation included, over all sessions."""
        return max((float(record.get("seconds", 0.0)) for record in self.metrics), default=0.0)

    @property
    def images_per_second(self) -> float | None:
        """Of training steps, waiting for images included."""
        seconds = sum(stage.step_seconds for stage in self.stages)
        return sum(stage.images for stage in self.stages) / seconds if seconds else None

    @property
    def data_wait(self) -> float | None:
        """Share of the time in training steps that was spent waiting for images."""
        seconds = sum(stage.step_seconds for stage in self.stages)
        return sum(stage.wait_seconds for stage in self.stages) / seconds if seconds else None

    @property
    def setbacks(self) -> tuple[str, ...]:
        """What went wrong on the way and was answered, in sentences."""
        return tuple(str(record["setback"]) for record in self.metrics if record.get("setback"))

    @property
    def status(self) -> str:
        """Whether it is finished, and what to do if it is not, in a sentence."""
        if self.stopped_early:
            return f"stopped early after {self.step:,} steps, as it no longer improved"
        if self.is_finished:
            return f"finished after {self.step:,} steps"
        of = f" of {self.schedule.total_steps:,}" if isinstance(self.schedule, StageSchedule) else ""
        return f"not finished: {self.step:,}{of} steps are in its journal"


def read_runs(paths: Sequence[Path]) -> tuple[RunFacts, ...]:
    """Read the folders of some runs.

    Raises:
        UserError: A folder holds no run, its configuration is damaged, or it is given twice.
    """
    runs = [open_run(path) for path in paths]
    places = [path.resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"the run {paths[number]} is given twice; give each run once")
    short = [place.name for place in places]
    names = [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]
    return tuple(_read_run(run, name) for run, name in zip(runs, names, strict=True))


def _read_run(run: Run, name: str) -> RunFacts:
    config = run_config(run)
    split = attempt(lambda: _read_split(run.split_path))
    metrics = tuple(run.journal.read())
    schedule = _schedule(config, split)
    return RunFacts(
        name=name,
        path=run.path,
        config=config,
        environment=_read_environment(run.environment_path),
        metrics=metrics,
        network=attempt(lambda: _network_facts(run, config, split)),
        split=split,
        schedule=schedule,
        stages=stage_times(metrics, schedule) if isinstance(schedule, StageSchedule) else (),
        evaluations=tuple(_evaluations(metrics)),
        bad_images=run.bad_image_count,
        has_weights=run.best_weights.is_file(),
    )


def _read_split(path: Path) -> SplitFacts:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return SplitFacts(
            class_names=tuple(found["class_names"]),
            train_images=found["train"]["images"],
            train_digest=found["train"]["sha256"],
            val_images=found["val"]["images"],
            val_digest=found["val"]["sha256"],
        )
    except FileNotFoundError:
        raise UserError(f"{path} is not there, so how many images there were is not known") from None
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{path} is damaged, so how many images there were is not known") from None


def _read_environment(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _schedule(config: Config, split: SplitFacts | Missing) -> StageSchedule | Missing:
    if isinstance(split, Missing):
        return Missing(split.reason)
    sizes = config.progressive.image_size
    return attempt(
        lambda: stage_schedule(
            config.progressive,
            config.train,
            train_images=split.train_images,
            train_size=sizes[1] if sizes else network_of(config.model).train_size,
        )
    )


def _network_facts(run: Run, config: Config, split: SplitFacts | Missing) -> NetworkFacts:
    spec = _spec(run, config)
    if isinstance(split, SplitFacts):
        spec = replace(spec, num_classes=len(split.class_names))
    size = config.evaluate.image_size or spec.image_size
    return NetworkFacts(
        name=spec.name,
        params=None if isinstance(spec, ExternalSpec) else network_cost(spec, size).params,
        macs=forward_macs(spec, size),
        image_size=size,
    )


def _spec(run: Run, config: Config) -> AnySpec:
    """Return the network that the weights carry, which needs no file of a spec; else the configured one."""
    if run.best_weights.is_file():
        spec = read_metadata(run.best_weights).get("spec")
        if spec is not None:
            return spec_from_dict(spec, str(run.best_weights))
    return network_of(config.model)


def _evaluations(metrics: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    return [
        Evaluation(
            step=record["step"], epoch=record["epoch"], top1=record["val_top1"], loss=record["val_loss"]
        )
        for record in metrics
        if record.get("val_top1") is not None and record.get("val_loss") is not None
    ]
