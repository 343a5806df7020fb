"""Train the networks of a grid of alpha, beta and gamma, and keep the table of all that were tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from effnet.arch import NetworkSpec, network_cost, spec_to_json
from effnet.config import Config
from effnet.data.sources import absolute_source
from effnet.errors import UserError
from effnet.files import whole_file, write_json
from effnet.recipes import config_to_toml
from effnet.runs import PlannedRun, do_runs, keep_settings, sole_user
from effnet.schedule.progressive import image_sizes
from effnet.search.grid import GridPoint
from effnet.training.experiment import network_of

BASE = "base"


@dataclass(frozen=True, kw_only=True, slots=True)
class GridStudy:
    """A grid on somebody's data, in a folder."""

    base: NetworkSpec
    """At the sizes at which it is trained and evaluated."""
    config: Config
    """What all runs share."""
    points: tuple[GridPoint, ...]
    out: Path
    seeds: int
    """Runs of each network, with the seeds 0, 1 ..."""
    jobs: int
    """Runs at a time."""

    @property
    def networks(self) -> dict[str, NetworkSpec]:
        """The base and all candidates, by the names of their folders."""
        return {BASE: self.base} | {point.name: point.spec for point in self.points}


@dataclass(frozen=True, kw_only=True, slots=True)
class GridRow:
    """One network of the table."""

    name: str
    point: GridPoint | None
    """None: the base."""
    params: int
    macs_ratio: float
    runs: tuple[PlannedRun, ...]

    @property
    def top1(self) -> float | None:
        """Mean over the runs that have ended, as a fraction; None: there is none."""
        values = self._values
        return fmean(values) if values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the runs; None: fewer than two."""
        return stdev(self._values) if len(self._values) > 1 else None

    @property
    def _values(self) -> list[float]:
        return [run.result["val_top1"] for run in self.runs if run.result]

    @property
    def failures(self) -> list[str]:
        """Why runs have no result."""
        return [f"{run.name}: {run.failure}; see {run.log_path}" for run in self.runs if run.failure]

    def to_dict(self) -> dict[str, Any]:
        """Return what ``table.json`` has."""
        constants = self.point.compound if self.point else None
        return {
            "name": self.name,
            "alpha": constants.alpha if constants else None,
            "beta": constants.beta if constants else None,
            "gamma": constants.gamma if constants else None,
            "formula": constants.growth if constants else 1.0,
            "macs_ratio": self.macs_ratio,
            "params": self.params,
            "top1": self.top1,
            "top1_std": self.deviation,
            "runs": [
                {"run": str(run.run), "failure": run.failure or None, "result": run.result}
                for run in self.runs
            ],
        }

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, see `COLUMNS`."""
        constants = self.point.compound if self.point else None
        values = (constants.alpha, constants.beta, constants.gamma) if constants else (1.0, 1.0, 1.0)
        spread = "" if self.deviation is None else f" ± {self.deviation:.1%}"
        return (
            self.name,
            *(f"{value:g}" for value in values),
            f"{constants.growth if constants else 1:.2f}",
            f"{self.macs_ratio:.2f}",
            f"{self.params / 1e6:.2f} M",
            "" if self.top1 is None else f"{self.top1:.1%}{spread}",
        )


COLUMNS = ("network", "alpha", "beta", "gamma", "formula", "x MACs", "parameters", "top-1")


def sized_base(config: Config) -> NetworkSpec:
    """Return the network of a configuration with the largest sizes at which that trains and evaluates it.

    Raises:
        UserError: It is a network of timm, which cannot be scaled.
    """
    spec = network_of(config.model)
    if not isinstance(spec, NetworkSpec):
        raise UserError(f"the layers of {spec.name} are known to timm only; name an EfficientNet")
    last = image_sizes(config.progressive, spec.train_size)[-1]
    return replace(spec, train_size=last, image_size=config.evaluate.image_size or last)


def run_grid(study: GridStudy, announce: Callable[[str], None]) -> list[GridRow]:
    """Train what has not been trained yet, and write the table; the same call continues what was interrupted.

    Args:
        study: What to train.
        announce: Told what begins and how it ended.

    Returns:
        The base, then all candidates, the best first.

    Raises:
        InterruptedRunsError: SIGINT or SIGTERM came; all runs have saved their state.
        UserError: The folder holds another grid, or is being written to.
    """
    specs = study.out / "specs"
    recipe_path = study.out / "recipe.toml"
    with sole_user(study.out) as lock:
        keep_settings(
            recipe_path, study.config, {name: spec_to_json(s) for name, s in study.networks.items()}
        )
        specs.mkdir(exist_ok=True)
        for name, spec in study.networks.items():
            with whole_file(specs / f"{name}.json") as temporary:
                temporary.write_text(spec_to_json(spec), encoding="utf-8")
        planned = [
            _planned(study, name, specs / f"{name}.json", seed).with_result()
            for seed in range(study.seeds)
            for name in study.networks
        ]
        runs = {run.run: run for run in planned}
        waiting = [run for run in planned if not run.result]
        for ended in do_runs(waiting, recipe_path, jobs=study.jobs, lock=lock, announce=announce):
            runs[ended.run] = ended
            # What is known so far is worth having, however it goes on.
            _write(study, _rows(study, list(runs.values())))
        rows = _rows(study, list(runs.values()))
        _write(study, rows)
    return rows


def best_row(rows: Sequence[GridRow]) -> GridRow | None:
    """Return the candidate of the highest mean top-1; None: none has been trained."""
    return next((row for row in rows if row.point and row.top1 is not None), None)


def _planned(study: GridStudy, name: str, path: Path, seed: int) -> PlannedRun:
    spec, config = study.networks[name], study.config
    first = image_sizes(config.progressive, study.base.train_size)[0]
    first = min(max(round(first * spec.train_size / study.base.train_size), 1), spec.train_size)
    return PlannedRun(
        name=f"{name}, seed {seed}",
        data=absolute_source(config.data.source),
        settings=(
            f"model.network={path.resolve()}",
            "model.width=1.0",
            "model.depth=1.0",
            f"progressive.image_size=[{first},{spec.train_size}]",
            f"evaluate.image_size={spec.image_size}",
            f"train.seed={seed}",
        ),
        run=study.out / name / f"seed-{seed}",
    )


def _rows(study: GridStudy, runs: Sequence[PlannedRun]) -> list[GridRow]:
    points: list[GridPoint | None] = [None, *study.points]
    base_macs = network_cost(study.base).macs
    rows = []
    for point, (name, spec) in zip(points, study.networks.items(), strict=True):
        cost = network_cost(spec)
        own = tuple(run for run in runs if run.run.parent.name == name)
        rows.append(
            GridRow(name=name, point=point, params=cost.params, macs_ratio=cost.macs / base_macs, runs=own)
        )
    return [rows[0], *sorted(rows[1:], key=lambda row: -1 if row.top1 is None else row.top1, reverse=True)]


def _write(study: GridStudy, rows: Sequence[GridRow]) -> None:
    table = {"base": study.base.name, "recipe": config_to_toml(study.config)}
    table_rows = {"rows": [row.to_dict() for row in rows]}
    write_json(study.out / "table.json", table | table_rows)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    with whole_file(study.out / "table.md") as temporary:
        temporary.write_text(f"# alpha, beta and gamma for {study.base.name}\n\n{text}\n", encoding="utf-8")
