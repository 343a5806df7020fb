"""How far predicted training steps are off, on networks that took no part in the fit."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean, median, stdev

import numpy as np
from scipy.stats import spearmanr

from effnet.arch import network
from effnet.arch.accounting import network_cost
from effnet.arch.spec import NetworkSpec, StageSpec
from effnet.errors import UserError
from effnet.search.moves import sample
from effnet.search.predictor import FEWEST, Measured, fit
from effnet.search.space import SearchSpace
from effnet.search.step_time import StepTime, measure_step
from effnet.search.turns import Budget
from effnet.training.experiment import Experiment

SPLITS = 20
_TABLE_SIZE = 224
_TRIES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanAndSpread:
    """Over the splits."""

    mean: float
    spread: float
    """Sample standard deviation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionError:
    """Relative errors of predictions for networks that were held out, over random splits of the same ones."""

    fitted: int
    held_out: int
    median: MeanAndSpread
    mean: MeanAndSpread
    nine_of_ten: MeanAndSpread
    """Nine of ten errors are no larger."""
    told: MeanAndSpread
    """What the predictor itself says of nine of ten."""
    rank: MeanAndSpread
    """Spearman's correlation of predicted and measured."""
    median_of_macs: MeanAndSpread
    """Median error of time in proportion to multiply-adds, for comparison."""


def prediction_error(
    measured: Sequence[Measured], image_size: int, images: int, *, fitted: int, seed: int = 0
) -> PredictionError:
    """Fit on some and predict the others, twenty times with other ones.

    Args:
        measured: All.
        image_size: Side of the images in pixels.
        images: In a step.
        fitted: How many of them to fit on, at least ten; two must be left.
        seed: Of the splits.
    """
    draws, found = Random(seed), list[tuple[float, ...]]()
    for _ in range(SPLITS):
        shuffled = draws.sample(list(measured), len(measured))
        found.append(_split(shuffled[:fitted], shuffled[fitted:], image_size, images))
    columns = [MeanAndSpread(mean=fmean(values), spread=stdev(values)) for values in zip(*found, strict=True)]
    middle, mean, most, told, rank, macs = columns
    return PredictionError(
        fitted=fitted,
        held_out=len(measured) - fitted,
        median=middle,
        mean=mean,
        nine_of_ten=most,
        told=told,
        rank=rank,
        median_of_macs=macs,
    )


def _split(
    known: Sequence[Measured], held_out: Sequence[Measured], image_size: int, images: int
) -> tuple[float, ...]:
    predictor = fit(known, image_size, images)
    if predictor is None:
        raise ValueError(f"a fit needs {FEWEST} measurements, got {len(known)}")
    costs = np.array([one.cost for one in held_out])
    predicted = np.array([predictor.predict(one.spec) for one in held_out])
    errors = np.abs(predicted / costs - 1)
    a_mac = median(one.cost / network_cost(one.spec, image_size).macs for one in known)
    macs = np.array([network_cost(one.spec, image_size).macs for one in held_out])
    return (
        float(np.median(errors)),
        float(errors.mean()),
        float(np.quantile(errors, 0.9)),
        predictor.error,
        float(spearmanr(predicted, costs).statistic),
        float(np.median(np.abs(macs * a_mac / costs - 1))),
    )


def measure_space(
    experiment: Experiment,
    space: SearchSpace,
    count: int,
    budget: Budget,
    *,
    images: int | None = None,
    seed: int = 0,
    report: Callable[[int, StepTime], None],
) -> list[tuple[NetworkSpec, StepTime]]:
    """Measure random networks of a space beside its backbone.

    Args:
        experiment: The run that they would have.
        space: Where they are from.
        count: How many different ones.
        budget: For each.
        images: In a step; None: see `measure_step`.
        seed: Of the networks.
        report: Told the number of each, and what it came to.

    Raises:
        UserError: The space has not that many networks.
    """
    draws = Random(seed)
    points = dict.fromkeys(sample(space, draws) for _ in range(_TRIES + 10 * count))
    if len(points) < count:
        raise UserError(
            f"the space {space.name} gave {len(points)} networks, fewer than {count}; ask for fewer"
        )
    found = []
    for number, point in enumerate(list(points)[:count]):
        spec = space.spec(point)
        found.append((spec, measure_step(experiment, spec, space.backbone, budget, images=images)))
        report(number, found[-1][1])
    return found


def training_times(path: Path) -> list[Measured]:
    """Read the networks and training times of Accel-NASBench: V1-B0's stages with other choices, on ImageNet.

    Raises:
        UserError: The file cannot be read, or is no such table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_network_of(row) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the table '{path}' cannot be read: {error}") from None
    except (KeyError, ValueError) as error:
        raise UserError(
            f"'{path}' is no table of Accel-NASBench, with block0_e ... block6_se and train_seconds: {error}"
        ) from None


def table_error(measured: Sequence[Measured], *, fitted: int) -> PredictionError:
    """Return how far predictions are off for the rows of `training_times`, at 224 px."""
    return prediction_error(measured, _TABLE_SIZE, 1, fitted=fitted)


def _network_of(row: dict[str, str]) -> Measured:
    base = network("v1-b0")

    def chosen(index: int, stage: StageSpec) -> StageSpec:
        return replace(
            stage,
            expand_ratio=int(row[f"block{index}_e"]),
            kernel_size=int(row[f"block{index}_k"]),
            repeats=int(row[f"block{index}_l"]),
            se_ratio=0.25 * int(row[f"block{index}_se"]),
        )

    stages = tuple(chosen(index, stage) for index, stage in enumerate(base.stages))
    return Measured(spec=replace(base, stages=stages), cost=float(row["train_seconds"]))
