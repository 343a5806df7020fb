"""Begin a study, or join one that others have begun, if that is what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import make_url

from effnet.api import configure
from effnet.arch.io import from_dict, load_spec, to_dict
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.data.images import DataSplit
from effnet.data.sources import absolute_source, open_configured
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.search.bounds import BoundedSpace, Bounds
from effnet.search.differences import differences
from effnet.search.ledger import Ledger
from effnet.search.objective import objective_from_text
from effnet.search.patience import Patience
from effnet.search.rules import load_space
from effnet.search.settings import SearchSettings, fingerprint, without_place
from effnet.search.space import SearchSpace
from effnet.search.step_time import measure_latency, measure_step
from effnet.search.strategies import strategy_named
from effnet.search.study import Study
from effnet.search.turns import Budget
from effnet.training.computing_threads import computing_threads
from effnet.training.experiment import prepare_experiment

SPACE, RECIPE, STRATEGY = "small", "search", "thompson"
"""What a study has where nothing else is asked for."""
SCHEDULES = "schedule"
"""The space that holds schedules and no networks."""
MINIVAL = 0.1
"""Share of the training images to compare candidates on, where the recipe holds none out."""
NO_BOUNDS = Bounds()
_PLACE_FILE = "study.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for; None: what the study has, or the default where it is begun."""

    data: str | None = None
    """As ``data.source``, on this machine."""
    space: str | None = None
    model: str | None = None
    """Backbone."""
    recipe: str | None = None
    changes: tuple[str, ...] = ()
    """Of the recipe."""
    objective: str | None = None
    strategy: str | None = None
    seed: int | None = None
    bounds: Bounds = NO_BOUNDS
    eta: int | None = None
    rungs: int | None = None
    trial_minutes: float | None = None
    step_seconds: float | None = None
    repeats: int | None = None
    """Of the finalists of a study of schedules."""

    def fields_given(self) -> dict[str, Any]:
        """Return the fields of `SearchSettings` that are given as they are."""
        names = ("strategy", "seed", "eta", "rungs", "trial_minutes", "step_seconds")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a study is: its ledger, and the folder of this machine."""

    url: str
    folder: Path

    @classmethod
    def of(cls, study: str | None, out: Path | None) -> Place:
        """Return the place that a command line means.

        Args:
            study: A folder, or the URL of a database; None: ``out``.
            out: Folder of this machine.
        """
        if study and "://" in study:
            name = study.partition("study=")[2] or study.rpartition("/")[2].partition("?")[0]
            place = cls(url=study, folder=out or Path("runs") / f"search-{Path(name).stem}")
            place._check()
            return place
        folder = Path(study) if study else out or Path("runs") / "search"
        return cls(url=_noted(folder).get("url") or _own_url(folder), folder=folder)

    def _check(self) -> None:
        """Refuse to mix the trials of two studies."""
        noted = _noted(self.folder)
        if (noted and noted.get("url") not in {self.url, None}) or _own_path(self.folder).exists():
            raise UserError(f"{self.folder} is the folder of another study; give another one with --out")

    def note(self, source: str) -> None:
        """Remember in the folder what the study is, so that the folder is enough to go on.

        A URL with a password is not written to disk; nor is that of the folder's own database, so that the
        folder can be moved.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        noted = {"data": source}
        if self.url != _own_url(self.folder) and make_url(self.url).password is None:
            noted["url"] = self.url
        with FileLock(self.folder / ".note.lock"), whole_file(self.folder / _PLACE_FILE) as temporary:
            temporary.write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")

    @property
    def source(self) -> str | None:
        """Return where the images were the last time."""
        return _noted(self.folder).get("data")


def open_study(
    request: Request, place: Place, *, patience: Patience, threads: int, announce: Callable[[str], None]
) -> Study:
    """Begin the study at a place, or join it.

    Args:
        request: What was asked for.
        place: Where.
        patience: With a database that is away.
        threads: Of each trial, with which the reference is measured.
        announce: Told what takes long.

    Raises:
        UnreachableError: There is no reaching the database.
        UserError: Something that was asked for cannot be had, nothing is within the bounds, or the study was
            begun with other settings or another space.
    """
    source = source_of(request, place)
    ledger = Ledger.find(place.url, patience=patience)
    if ledger is None:
        settings, space = _asked(request, source, threads, announce)
        ledger = begin(place, settings, to_dict(space), patience)
    try:
        study = joined(ledger, place, source)
        _check_agreed(request, study)
        place.note(source)
        study.queue_backbone()
    except BaseException:
        ledger.close()
        raise
    return study


def joined(ledger: Ledger, place: Place, source: str) -> Study:
    """Return the study of a ledger."""
    return Study(
        ledger=ledger,
        settings=SearchSettings.from_dict(ledger.settings, ledger.name),
        space=from_dict(SearchSpace, ledger.space, ledger.name),
        folder=place.folder,
        source=source,
    )


def source_of(request: Request, place: Place) -> str:
    """Return where the images are on this machine.

    Raises:
        UserError: Nobody has said.
    """
    source = request.data or place.source
    if source is None:
        raise UserError("name the images to search on: effnet search DATA")
    return absolute_source(source)


def begin(place: Place, settings: SearchSettings, space: dict[str, Any], patience: Patience) -> Ledger:
    """Begin a study, or join the one that others have begun since we looked."""
    place.folder.mkdir(parents=True, exist_ok=True)
    try:
        return Ledger.open(place.url, settings.to_dict(), space, patience=patience)
    except UserError:
        # They have measured another time.
        if (ledger := Ledger.find(place.url, patience=patience)) is None:
            raise
        return ledger


def with_minival(run: Config) -> Config:
    """Return the training of candidates, who are never compared on the data's own validation images."""
    fraction = run.data.minival_fraction or MINIVAL
    return replace(run, data=replace(run.data, minival_fraction=fraction))


def check_same(ledger: Ledger, settings: SearchSettings, space: dict[str, Any]) -> None:
    """Refuse to join a study that is not what was asked for.

    Args:
        ledger: Of the study.
        settings: As they were asked for, the study's where nothing was.
        space: In the same way.

    Raises:
        UserError: The message names what differs.
    """
    theirs = SearchSettings.from_dict(ledger.settings, ledger.name)
    differing = differences(
        {"space": ledger.space, "settings": theirs.asked()},
        {"space": json.loads(json.dumps(space)), "settings": settings.asked()},
    )
    if differing:
        raise UserError(
            f"the study {ledger.name} was begun differently: {differing}; leave that out, or begin another "
            "one with --study or --out"
        )


def _asked(
    request: Request, source: str, threads: int, announce: Callable[[str], None]
) -> tuple[SearchSettings, SearchSpace]:
    """Return what a study is to be begun with, once all of it was checked and the reference measured."""
    run = _asked_run(request, source)
    images = open_configured(run.data)
    space = _asked_space(request, run, images)
    settings = SearchSettings(
        run=without_place(run),
        images=fingerprint(images),
        objective=objective_from_text(request.objective or "v2"),
        bounds=request.bounds,
        **({"strategy": STRATEGY} | request.fields_given()),
    )
    strategy_named(settings.strategy)
    BoundedSpace(space=space, bounds=settings.bounds, image_size=space.backbone.image_size).check()
    announce("measuring the reference network")
    return _with_reference(settings, run, images, space.backbone, threads), space


def _asked_run(request: Request, source: str) -> Config:
    return with_minival(configure(source, recipe=request.recipe or RECIPE, changes=request.changes))


def _asked_space(request: Request, run: Config, images: DataSplit) -> SearchSpace:
    """Return the space around the backbone for the images' classes, at the sizes of the training."""
    backbone = load_spec(request.model) if request.model else None
    space = load_space(request.space or SPACE, backbone, others=(SCHEDULES,))
    sizes = run.progressive.image_size
    train_size = sizes[-1] if sizes else space.backbone.train_size
    backbone = replace(
        space.backbone,
        num_classes=len(images.class_names),
        image_size=run.evaluate.image_size or train_size,
        train_size=train_size,
    )
    return replace(space, backbone=backbone)


def _with_reference(
    settings: SearchSettings, run: Config, images: DataSplit, reference: NetworkSpec, threads: int
) -> SearchSettings:
    """Return the settings with what the reference takes on this device, as a trial would measure it."""
    # A step on noise needs no pixels.
    alone = replace(run, data=replace(run.data, resident=False))
    experiment = prepare_experiment(alone, data=images)
    budget = Budget(seconds=settings.step_seconds)
    with computing_threads(threads, experiment.device):
        step = measure_step(experiment, reference, reference, budget)
        settings = replace(settings, reference_ms=step.reference_ms, step_images=step.images)
        if settings.needs_latency:
            latency = measure_latency(experiment, reference, reference, budget)
            settings = replace(settings, reference_latency_ms=latency.reference_ms)
    return settings


def _check_agreed(request: Request, study: Study) -> None:
    settings, source = study.settings, study.source
    run = _asked_run(request, source) if request.recipe or request.changes else settings.run
    images = open_configured(replace(settings.run.data, source=source))
    objective = objective_from_text(request.objective) if request.objective else settings.objective
    ours = replace(
        settings,
        run=without_place(run),
        images=fingerprint(images),
        objective=objective,
        bounds=settings.bounds if request.bounds == NO_BOUNDS else request.bounds,
        **request.fields_given(),
    )
    space = _asked_space(request, run, images) if request.space or request.model else study.space
    check_same(study.ledger, ours, to_dict(space))


def _own_path(folder: Path) -> Path:
    return folder.resolve() / "study.db"


def _own_url(folder: Path) -> str:
    return f"sqlite:///{_own_path(folder)}"


def _noted(folder: Path) -> dict[str, str]:
    path = folder / _PLACE_FILE
    if not path.is_file():
        return {}
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        noted = None
    if not isinstance(noted, dict):
        raise UserError(f"{path} is damaged; remove it, and give --study and the images once more")
    return noted
