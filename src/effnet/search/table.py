"""Tables of networks that somebody else has trained: search spaces whose every answer is known.

- NAS-Bench-Macro: all 6,561 networks of 8 layers on CIFAR-10, three seeds each. S is the multiply-adds.
- Accel-NASBench: 5,138 networks of 7 stages on ImageNet with the measured time of training. What lies between
  them comes from a surrogate fitted to them, which stands for the truth at the table's own networks too.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Protocol, TypeAlias

import numpy as np

from effnet.errors import UserError
from effnet.search.measures import Measures
from effnet.search.points import Domain, Point, Variable
from effnet.search.strategies.pairwise import Layout, PairwiseFunction
from effnet.search.surrogate import Contributions, fit_groups, fit_pairwise, without_outliers

Score: TypeAlias = Callable[[Measures], float]

_ACCURACY_NOISE = 0.00256
"""Standard deviation over three seeds of Accel-NASBench's short trainings, as a fraction."""
_STEP_NOISE = 0.041
_OUTLIER = 0.2
"""Logarithm of a time; five times the noise."""
_LEAST = 1e-6
_ASCENTS = 40
_CHOICES = {"e": "expand_ratio", "k": "kernel_size", "l": "repeats", "se": "se"}


class Table(Domain, Protocol):
    """A domain that can be asked for the measures of its points."""

    @property
    def name(self) -> str:
        """What the table is called."""

    def truths(self, points: Sequence[Point]) -> list[Measures]:
        """Return the measures of points without noise."""

    def observe(self, point: Point, draws: Random) -> Measures:
        """Return a point's measures as one trial would find them."""

    def optimum(self, score: Score) -> Point:
        """Return the point of the highest score of all."""


@dataclass(frozen=True, slots=True)
class Row:
    """A network of a complete table."""

    accuracies: tuple[float, ...]
    """One a training seed, fractions."""
    params: int
    macs: int

    def measures(self, accuracy: float) -> Measures:
        """Return them with this accuracy; the multiply-adds stand for the step's time as well."""
        return Measures(accuracy=accuracy, step_ms=float(self.macs), params=self.params, macs=self.macs)


@dataclass(frozen=True)
class CompleteTable:
    """A table that has every point of its grid, each trained with some seeds."""

    name: str
    variables: tuple[Variable, ...]
    rows: dict[Point, Row]

    def canonical(self, point: Point) -> Point:
        """Return the point itself: the table has a row of its own for each."""
        return point

    def is_feasible(self, point: Point) -> bool:
        """Whether the table has the point."""
        return point in self.rows

    def truths(self, points: Sequence[Point]) -> list[Measures]:
        """Return the measures of points, with the mean accuracy of all seeds."""
        return [self.rows[point].measures(fmean(self.rows[point].accuracies)) for point in points]

    def observe(self, point: Point, draws: Random) -> Measures:
        """Return a point's measures with the accuracy of one of its seeds."""
        return self.rows[point].measures(draws.choice(self.rows[point].accuracies))

    def optimum(self, score: Score) -> Point:
        """Return the point of the highest score of all."""
        points = list(self.rows)
        scores = [score(measures) for measures in self.truths(points)]
        return points[scores.index(max(scores))]


@dataclass(frozen=True)
class SurrogateTable:
    """A table that has some points of its grid; the others' measures are predicted.

    Accuracy and the logarithm of the time are functions of single choices and of pairs of choices; parameters
    and multiply-adds are sums over stages.
    """

    name: str
    variables: tuple[Variable, ...]
    stages: tuple[tuple[int, ...], ...]
    """The variables of each stage."""
    accuracy: PairwiseFunction
    """In fractions."""
    log_step: PairwiseFunction
    """Natural logarithm of the time."""
    params: tuple[Contributions, ...]
    macs: tuple[Contributions, ...]
    accuracy_noise: float
    """Standard deviation of an observed accuracy."""
    step_noise: float
    """Standard deviation of the logarithm of an observed time."""

    def canonical(self, point: Point) -> Point:
        """Return the point itself."""
        return point

    def is_feasible(self, point: Point) -> bool:
        """Whether all that the point chooses in a stage occurs together in the table."""
        return all(key in table for key, table in zip(self._keys(point), self.params, strict=True))

    def truths(self, points: Sequence[Point]) -> list[Measures]:
        """Return the predicted measures of points."""
        return [
            Measures(
                accuracy=min(max(accuracy, _LEAST), 1.0),
                step_ms=math.exp(log_step),
                params=_total(keys, self.params),
                macs=_total(keys, self.macs),
            )
            for keys, accuracy, log_step in zip(
                map(self._keys, points),
                self.accuracy.values(points).tolist(),
                self.log_step.values(points).tolist(),
                strict=True,
            )
        ]

    def observe(self, point: Point, draws: Random) -> Measures:
        """Return a point's predicted measures with the noise of one training."""
        (truth,) = self.truths([point])
        assert truth.accuracy is not None
        assert truth.step_ms is not None
        return replace(
            truth,
            accuracy=min(max(truth.accuracy + draws.gauss(0.0, self.accuracy_noise), _LEAST), 1.0),
            step_ms=truth.step_ms * math.exp(draws.gauss(0.0, self.step_noise)),
        )

    def optimum(self, score: Score) -> Point:
        """Return the best point of many ascents, each step of which may change a whole stage."""
        draws, found = Random(0), []
        for _ in range(_ASCENTS):
            point = tuple(draws.randrange(len(variable.values)) for variable in self.variables)
            best = -math.inf
            while True:
                near = [other for other in self._neighbours(point) if self.is_feasible(other)]
                scores = [score(measures) for measures in self.truths(near)]
                if max(scores) <= best:
                    break
                best = max(scores)
                point = near[scores.index(best)]
            found.append((best, point))
        return max(found)[1]

    def _neighbours(self, point: Point) -> list[Point]:
        near = []
        for stage in self.stages:
            for choice in itertools.product(*(range(len(self.variables[index].values)) for index in stage)):
                other = list(point)
                for index, value in zip(stage, choice, strict=True):
                    other[index] = value
                near.append(tuple(other))
        return near

    def _keys(self, point: Point) -> list[Point]:
        return [tuple(point[index] for index in stage) for stage in self.stages]


def _total(keys: Sequence[Point], tables: Sequence[Contributions]) -> int:
    return max(round(sum(table[key] for key, table in zip(keys, tables, strict=True))), 1)


def read_table(path: Path) -> Table:
    """Read a table of networks.

    Args:
        path: A file of NAS-Bench-Macro's kind (JSON), or of Accel-NASBench's (CSV).

    Raises:
        UserError: There is no such file, or it is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the table '{path}' cannot be read: {error}") from error
    try:
        return _read_complete(path.stem, text) if path.suffix == ".json" else _read_stages(path.stem, text)
    except (LookupError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise UserError(
            f"'{path}' is no table of networks: give a JSON file of networks by their choices, such as "
            "nas-bench-macro.json, or a CSV file of stages' choices, such as accel-nasbench.csv"
        ) from error


def _read_complete(name: str, text: str) -> CompleteTable:
    """Read ``{"00120210": {"test_top1_percent": [...], "params": ..., "macs": ...}, ...}``."""
    rows = {
        tuple(map(int, key)): Row(
            tuple(percent / 100.0 for percent in row["test_top1_percent"]),
            int(row["params"]),
            int(row["macs"]),
        )
        for key, row in json.loads(text).items()
    }
    length = len(next(iter(rows)))
    variables = tuple(
        Variable(f"layer{index + 1}.operation", tuple(range(max(point[index] for point in rows) + 1)))
        for index in range(length)
    )
    if len(rows) != math.prod(len(variable.values) for variable in variables):
        raise ValueError("the table is not complete")
    return CompleteTable(name, variables, rows)


def _read_stages(name: str, text: str) -> SurrogateTable:
    """Read columns of choices, ``block0_e`` ..., and of what was measured, ``top1_percent`` ..."""
    lines = list(csv.DictReader(text.splitlines()))
    columns = [column for column in lines[0] if column.startswith("block")]
    values = [sorted({int(line[column]) for line in lines}) for column in columns]
    variables = tuple(
        Variable(_variable_name(column), tuple(options))
        for column, options in zip(columns, values, strict=True)
    )
    points = np.array(
        [
            [options.index(int(line[column])) for column, options in zip(columns, values, strict=True)]
            for line in lines
        ]
    )
    stages = tuple(
        tuple(index for index, _ in group)
        for _, group in itertools.groupby(enumerate(columns), lambda item: item[1].split("_")[0])
    )
    layout = Layout.of(variables)
    known = {
        column: np.array([float(line[column]) for line in lines])
        for column in ("top1_percent", "train_seconds", "mparams", "mmacs")
    }
    log_seconds = without_outliers(layout, points, np.log(known["train_seconds"]), _OUTLIER)
    accuracy, log_step = fit_pairwise(
        layout, points, np.stack([known["top1_percent"] / 100.0, log_seconds], axis=1)
    )
    return SurrogateTable(
        name,
        variables,
        stages,
        accuracy,
        log_step,
        params=fit_groups(points, stages, known["mparams"] * 1e6),
        macs=fit_groups(points, stages, known["mmacs"] * 1e6),
        accuracy_noise=_ACCURACY_NOISE,
        step_noise=_STEP_NOISE,
    )


def _variable_name(column: str) -> str:
    block, choice = column.split("_")
    return f"stage{int(block.removeprefix('block')) + 1}.{_CHOICES[choice]}"
