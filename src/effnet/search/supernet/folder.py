"""The folder of a supernet: what it is about, its training, its check, its rankings."""

from __future__ import annotations

import json
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.api import run_config
from effnet.arch.io import from_dict, spec_to_json, to_dict
from effnet.arch.spec import SPEC_CONFIG, NetworkSpec
from effnet.config import Config
from effnet.config.ranges import NonNegativeInt
from effnet.errors import UserError
from effnet.files import whole_file
from effnet.recipes import config_to_toml
from effnet.search.space import SearchSpace
from effnet.search.supernet.envelope import Envelope, envelope_of
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.journal import Run, create_run, holds_run, open_run
from effnet.training.same_run import check_same_config
from effnet.training.split import check_split, write_split

SETTINGS_FILE = "supernet.json"

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class SupernetSettings:
    """What a supernet is about, besides the configuration of its training."""

    space: SearchSpace
    between: NonNegativeInt = 2
    """Random networks that each step trains besides the largest and the smallest."""
    distillation: Share = 0.5
    """Of the largest network's answer in what the others learn; the rest are the labels, without which little
    is learnt in a short training, because the largest knows nothing at first."""


@plain_dataclass(frozen=True, kw_only=True, slots=True)
class SupernetFolder:
    """A supernet on the disk, and what it is trained with."""

    path: Path
    settings: SupernetSettings
    envelope: Envelope
    """With the constants of the training."""
    experiment: Experiment
    run: Run
    """Its training, in ``training``."""

    @property
    def alone(self) -> Path:
        """Runs of networks that are trained on their own."""
        return self.path / "alone"

    @property
    def check_path(self) -> Path:
        """Of `effnet.search.supernet.checking`."""
        return self.path / "check.json"

    @property
    def ranking_path(self) -> Path:
        """Of `effnet.search.supernet.ranking`."""
        return self.path / "ranking.json"

    @property
    def best(self) -> Path:
        """Specs of the networks that rank first."""
        return self.path / "best"


def begin_supernet(path: Path, config: Config, settings: SupernetSettings) -> SupernetFolder:
    """Make the folder of a supernet, or return that which is there, of the same settings.

    Args:
        path: Of the folder.
        config: Of the training; its network is replaced by the largest one of the space.
        settings: All else.

    Raises:
        UserError: Something cannot be had, or the folder is about something else.
    """
    if not config.data.minival_fraction:
        raise UserError(
            "networks are compared on images held out of those to train on; set data.minival_fraction, such "
            "as to 0.1, or take the recipe search"
        )
    envelope = envelope_of(settings.space)
    path.mkdir(parents=True, exist_ok=True)
    largest = path / "largest.json"
    config = replace(config, model=replace(config.model, network=str(largest), width=1.0, depth=1.0))
    _check_settings(path, settings)
    with whole_file(largest) as temporary:
        temporary.write_text(spec_to_json(envelope.largest), encoding="utf-8")
    training = path / "training"
    if holds_run(training):
        check_same_config(config, run_config(open_run(training)), path)
        return open_supernet(path)
    experiment = prepare_experiment(config)
    with whole_file(path / SETTINGS_FILE) as temporary:
        temporary.write_text(json.dumps(to_dict(settings), indent=1) + "\n", encoding="utf-8")
    run = create_run(training, config_to_toml(experiment.config))
    write_split(run.split_path, experiment.data)
    return _folder(path, settings, envelope, experiment, run)


def open_supernet(path: Path) -> SupernetFolder:
    """Return the supernet in a folder.

    Raises:
        UserError: There is none, a file of it is damaged, or its data is not what it was.
    """
    settings_path = path / SETTINGS_FILE
    if not settings_path.is_file() or not holds_run(path / "training"):
        raise UserError(
            f"{path} holds no supernet; begin one with: effnet supernet DATA --space SPACE --out {path}"
        )
    settings = from_dict(SupernetSettings, read_json(settings_path), str(settings_path))
    run = open_run(path / "training")
    config = run_config(run)
    experiment = prepare_experiment(config)
    check_split(run.split_path, experiment.data)
    return _folder(path, settings, envelope_of(settings.space), experiment, run)


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return what a file of the folder holds.

    Raises:
        UserError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove it to make it anew") from None


def _folder(
    path: Path, settings: SupernetSettings, envelope: Envelope, experiment: Experiment, run: Run
) -> SupernetFolder:
    spec = experiment.spec
    assert isinstance(spec, NetworkSpec), "begun with the largest network of the space"
    return SupernetFolder(
        path=path,
        settings=settings,
        envelope=envelope.with_constants(spec),
        experiment=experiment,
        run=run,
    )


def _check_settings(path: Path, settings: SupernetSettings) -> None:
    settings_path = path / SETTINGS_FILE
    if not settings_path.is_file():
        return
    before, now = read_json(settings_path), to_dict(settings)
    if before == now:
        return
    different = [key for key, value in now.items() if before.get(key) != value]
    raise UserError(
        f"the supernet in {path} was begun with another {' and '.join(different)}, see {settings_path}; give "
        "what it was begun with, or another folder with --out"
    )
