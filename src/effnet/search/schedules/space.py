"""The schedules that a search chooses from, each as changes of a recipe, and all of one predicted cost."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict, to_dict
from effnet.arch.spec import SPEC_CONFIG, Count
from effnet.config import Config
from effnet.errors import UserError
from effnet.recipes import with_values
from effnet.schedule.learning_rate import peak_rate
from effnet.schedule.progressive import first_size, image_sizes, stage_schedule
from effnet.search.points import Point, Value, Variable, chosen, is_inside
from effnet.search.schedules.cost import StepCost

Values: TypeAlias = dict[str, Any]
"""``section.key`` of a configuration and its value."""

_FIRST_SHARES = (0.375, 0.5, 0.625, 0.75)
_SIZE_STEP_PX = 4
_CHOICES: dict[str, tuple[Value, ...]] = {
    "stages": (1, 2, 3, 4, 6),
    "size_power": (0.5, 1.0, 2.0),
    "hold_share": (0.0, 0.25, 0.5),
    "cooldown_share": (0.0, 0.2),
    "regularization_power": (0.5, 1.0, 2.0),
    "batch_limit": (1.0, 2.0, 4.0),
    "batch_scaling": ("linear", "sqrt"),
}
_PAPER: Values = {
    "stages": 4,
    "size_power": 1.0,
    "hold_share": 0.0,
    "cooldown_share": 0.0,
    "regularization_power": 1.0,
    "batch_limit": 1.0,
    "batch_scaling": "linear",
}
"""Algorithm 1 of 2104.00298, and what counts for nothing wherever a value makes no difference."""
_ROUNDS = 4
"""Of fitting epochs to a time; a step more or less is left."""


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Schedule:
    """A candidate.

    Raises:
        pydantic.ValidationError: It is none.
    """

    name: Annotated[str, Field(min_length=1)]
    """What is special about it, for people."""
    changes: dict[str, int | float | str | list[int]]
    """``section.key`` and value: what of the recipe is different."""

    def applied_to(self, run: Config) -> Config:
        """Return a recipe with this schedule."""
        return with_values(run, self.changes)

    @property
    def overrides(self) -> list[str]:
        """The changes as ``effnet train --set`` takes them."""
        return [f"{key}={json.dumps(value)}" for key, value in self.changes.items()]

    def to_json(self) -> str:
        """Return what `schedule_from_json` reads."""
        return json.dumps(to_dict(self))


def schedule_from_json(text: str, where: str) -> Schedule | None:
    """Read a candidate of a study; None: it is a network and no schedule.

    Raises:
        UserError: It is neither.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    return from_dict(Schedule, data, where) if isinstance(data, dict) and "changes" in data else None


@dataclass(frozen=True, kw_only=True, config=SPEC_CONFIG)
class ScheduleSpace:
    """Schedules in stages, an `effnet.search.points.Domain`.

    A point has an index for each of `variables`. What makes no difference has the paper's value in a
    canonical point: everything about a run of one size, powers where there is nothing between the first and
    the last stage, the scaling of a learning rate whose batch does not grow.
    """

    kind: Literal["schedule"] = "schedule"
    first_sizes: Annotated[tuple[Count, ...], Field(min_length=1)]
    """Ascending, in pixels, all below the last one."""
    paper_first_size: Count
    """The recipe's, in pixels; among `first_sizes`."""
    last_size: Count
    """In pixels."""
    train_images: Count
    """In an epoch."""
    seeds: Count
    """Trainings of each finalist. The search itself has the recipe's seed."""

    @property
    def name(self) -> str:
        """What it is, for people."""
        return self.kind

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """The choices; the seed is none of them."""
        sizes = Variable(name="first_size", values=self.first_sizes)
        return (sizes, *(Variable(name=name, values=values) for name, values in _CHOICES.items()))

    @cached_property
    def paper(self) -> Point:
        """Algorithm 1 in four stages from the recipe's first size: what all others cost as much as."""
        return self.point()

    @cached_property
    def fixed(self) -> Point:
        """The last size throughout."""
        return self.point(stages=1)

    @cached_property
    def composer(self) -> Point:
        """Composer's hold and cooldown, the growth between them in six stages."""
        return self.point(stages=6, hold_share=0.5, cooldown_share=0.2)

    @property
    def first(self) -> tuple[Point, ...]:
        """What is tried before all others, so that what is found can be compared with it."""
        return tuple(dict.fromkeys((self.paper, self.fixed, self.composer)))

    def point(self, **values: Value) -> Point:
        """Return the canonical point of some values, the rest being the paper's."""
        return self.canonical(self._indices(self._paper_values | values))

    def canonical(self, point: Point) -> Point:
        """Return the one point that stands for all that mean the same schedule."""
        values = self.values(point)
        inert: set[str] = set()
        if values["stages"] == 1:
            inert = {*values} - {"stages"}
        elif values["stages"] == 2:
            inert = {"size_power", "regularization_power"}
        if values["batch_limit"] == 1 or "batch_limit" in inert:
            inert |= {"batch_scaling"}
        return self._indices(values | {name: self._paper_values[name] for name in inert})

    def is_feasible(self, point: Point) -> bool:
        """Whether every index is one of its variable."""
        return is_inside(point, self.variables)

    def values(self, point: Point) -> Values:
        """Return what a point chooses, by the names of `variables`."""
        return chosen(point, self.variables)

    def count(self) -> int:
        """Return how many different schedules there are."""
        shapes = {name: len(values) for name, values in _CHOICES.items()}
        batches = (shapes["batch_limit"] - 1) * shapes["batch_scaling"] + 1
        plain = len(self.first_sizes) * shapes["hold_share"] * shapes["cooldown_share"] * batches
        powers = shapes["size_power"] * shapes["regularization_power"]
        return 1 + plain + (shapes["stages"] - 2) * plain * powers

    def schedule(self, point: Point, run: Config, cost: StepCost, seed: int = 0) -> Schedule:
        """Return the schedule that a canonical point means.

        Args:
            point: Canonical.
            run: The recipe; the paper's schedule of its epochs says how long all others may take.
            cost: Of steps on this device.
            seed: Added to the recipe's.
        """
        values = self.values(point)
        shape = self._shape(values, run)
        paper = self._shape(self.values(self.paper), run)
        budget = self.seconds(with_values(run, paper), cost)
        epochs = self._epochs(with_values(run, shape | {"train.min_steps": 0}), cost, budget)
        stretched = epochs / run.train.epochs
        return Schedule(
            name=self._text(values),
            changes=shape
            | {
                "train.min_steps": 0,
                "train.epochs": epochs,
                "train.seed": run.train.seed + seed,
                "learning_rate.warmup_epochs": round(run.learning_rate.warmup_epochs * stretched, 4),
                "learning_rate.decay_epochs": round(run.learning_rate.decay_epochs * stretched, 4),
            },
        )

    def seconds(self, run: Config, cost: StepCost) -> float:
        """Return what the training steps of a run are predicted to take."""
        schedule = stage_schedule(
            run.progressive, run.train, train_images=self.train_images, train_size=self.last_size
        )
        return cost.seconds(schedule)

    @property
    def _paper_values(self) -> Values:
        return {"first_size": self.paper_first_size, **_PAPER}

    def _indices(self, values: Values) -> Point:
        return tuple(variable.values.index(values[variable.name]) for variable in self.variables)

    def _epochs(self, run: Config, cost: StepCost, budget: float) -> float:
        for _ in range(_ROUNDS):
            epochs = run.train.epochs * budget / self.seconds(run, cost)
            run = replace(run, train=replace(run.train, epochs=epochs))
        return round(run.train.epochs, 4)

    def _shape(self, values: Values, run: Config) -> Values:
        batch_size = run.train.batch_size
        is_fixed = values["stages"] == 1
        first = self.last_size if is_fixed else values["first_size"]
        grows = values["batch_limit"] > 1
        shape = {
            "progressive.mode": "staged",
            "progressive.size_rule": "paper",
            "progressive.stages": values["stages"],
            "progressive.image_size": [first, self.last_size],
            "progressive.size_power": values["size_power"],
            "progressive.hold_share": values["hold_share"],
            "progressive.cooldown_epochs": 0.0,
            "progressive.cooldown_share": values["cooldown_share"],
            "progressive.regularization_power": values["regularization_power"],
            "progressive.batch_rule": "pixels" if grows else "constant",
            "progressive.batch_limit": values["batch_limit"],
        }
        if grows:  # The rate of the recipe's own batch stays what it is.
            shape |= {
                "learning_rate.batch_scaling": values["batch_scaling"],
                "learning_rate.base": peak_rate(run.learning_rate, batch_size),
                "learning_rate.base_batch_size": batch_size,
            }
        return shape

    def _text(self, values: Values) -> str:
        if values["stages"] == 1:
            return f"fixed {self.last_size} px"
        parts = [f"{values['stages']} stages from {values['first_size']} px"]
        notes = {
            "size_power": f"size^{values['size_power']:g}",
            "hold_share": f"hold {values['hold_share']:.0%}",
            "cooldown_share": f"cooldown {values['cooldown_share']:.0%}",
            "regularization_power": f"regularization^{values['regularization_power']:g}",
            "batch_limit": f"batch x{values['batch_limit']:g} {values['batch_scaling']}",
        }
        return ", ".join(parts + [note for name, note in notes.items() if values[name] != _PAPER[name]])


def space_for(run: Config, *, train_size: int, train_images: int, seeds: int) -> ScheduleSpace:
    """Return the schedules of a recipe that end at its last size.

    Args:
        run: The recipe.
        train_size: The network's training size in pixels, where the recipe has none.
        train_images: In an epoch.
        seeds: Trainings of each finalist.

    Raises:
        UserError: The recipe's first size is its last one, so that there is no schedule of the paper's.
    """
    last = image_sizes(run.progressive, train_size)[-1]
    own = first_size(run.progressive, train_size)
    if own >= last:
        raise UserError(
            f"the recipe trains at {last} px throughout, and a search over schedules needs a first size to "
            f"compare with; give one, such as --set progressive.image_size=[{max(last // 2, 1)},{last}]"
        )
    shares = (int(last * share) // _SIZE_STEP_PX * _SIZE_STEP_PX for share in _FIRST_SHARES)
    sizes = sorted({own, *(size for size in shares if 0 < size < last)})
    return ScheduleSpace(
        first_sizes=tuple(sizes),
        paper_first_size=own,
        last_size=last,
        train_images=train_images,
        seeds=seeds,
    )
