"""What a search wants more of: rewards of the papers, or a front of two or three measures.

A is accuracy as a fraction, S the training step, P the parameters. Scores are logarithms of rewards, because
the papers' rewards are products; normalisers of S and P add a constant and cannot change which network wins.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict
from effnet.arch.spec import SPEC_CONFIG
from effnet.errors import UserError, did_you_mean
from effnet.search.measures import Measures, Positive

Kind = Literal["v2", "v1", "latency", "absolute", "accuracy", "pareto"]
Cost: TypeAlias = Literal["step_ms", "latency_ms", "memory_mb", "params", "macs"]
Goal: TypeAlias = Literal["accuracy", "step_ms", "latency_ms", "memory_mb", "params", "macs"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_LEAST_ACCURACY = 1e-3
_Exponent = Annotated[float, Field(le=0.0)]

_KEYS: dict[Kind, tuple[str, ...]] = {
    "v2": ("w", "v", "step_ms", "params"),
    "v1": ("w", "target"),
    "latency": ("w", "target"),
    "absolute": ("cost", "target", "beta"),
    "accuracy": (),
    "pareto": ("goals",),
}
_COSTS: dict[Kind, Cost] = {"v1": "macs", "latency": "latency_ms"}


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Objective:
    """How candidates are compared.

    Raises:
        pydantic.ValidationError: A value is outside its range, a value is missing that the kind needs, or
            goals of a front are not two or three different ones.
    """

    kind: Kind = "v2"
    """``v2``: A * (S / ``step_ms``) ** w * (P / ``params``) ** v (2104.00298 section 3.3); ``v1``:
    A * (MACs / ``target``) ** w (1905.11946 section 4); ``latency``: the same with the latency (MnasNet,
    1807.11626); ``absolute``: A + beta * abs(cost / target - 1) (TuNAS, 2008.06120); ``accuracy``: A alone,
    for what costs the same anyway; ``pareto``: no reward but the front of ``goals``."""
    w: _Exponent = -0.07
    """Exponent of the cost; 0 leaves it out. The papers' value was made for ImageNet: where accuracies lie
    closer together, it prefers tiny networks, and one nearer to 0 is right."""
    v: _Exponent = -0.05
    """Exponent of the parameters."""
    step_ms: Positive = 1.0
    """Normaliser of S in milliseconds; changes no comparison."""
    params: Positive = 1.0
    """Normaliser of P; changes no comparison."""
    cost: Cost = "step_ms"
    """What ``absolute`` holds to its target."""
    target: Positive | None = None
    """T of the cost in its own unit. By default 400e6 multiply-adds for ``v1`` and 1 ms for ``latency``, for
    which it changes no comparison; ``absolute`` must have one."""
    beta: Annotated[float, Field(lt=0.0)] = -0.07
    """Accuracy that an error of 100 % in the cost takes away; the default is our own."""
    goals: tuple[Goal, ...] = ("accuracy", "step_ms", "params")
    """Of a front, in the order of the scores."""

    def __post_init__(self) -> None:
        if self.kind == "absolute" and self.target is None:
            raise ValueError("absolute needs a target for its cost, such as absolute:cost=step_ms,target=40")
        if not 2 <= len(set(self.goals)) == len(self.goals) <= 3:
            raise ValueError(
                f"a front has two or three different goals, got {', '.join(self.goals) or 'none'}"
            )

    @property
    def is_front(self) -> bool:
        """Whether there are several scores, none of them above the others."""
        return self.kind == "pareto"

    @property
    def needs(self) -> tuple[Goal, ...]:
        """Return the measures that a candidate must have, in the order of the scores of a front."""
        if self.kind == "pareto":
            return self.goals
        if self.kind == "v2":
            return ("accuracy", "step_ms", "params")
        if self.kind == "accuracy":
            return ("accuracy",)
        return ("accuracy", _COSTS.get(self.kind, self.cost))

    @property
    def compared(self) -> tuple[Goal, ...]:
        """Return `needs`, and with accuracy alone the parameters: what a front of candidates is of."""
        return (*self.needs, "params") if self.kind == "accuracy" else self.needs

    def scores(self, measures: Measures) -> tuple[float, ...]:
        """Return what a strategy is to make large.

        Args:
            measures: Must have all of `needs`. An accuracy below 0.001 counts as that, to have a logarithm.

        Returns:
            The logarithm of the reward; of ``absolute``, which may be negative, the reward itself; of a
            front the logarithm of every goal, that of a cost negated.

        Raises:
            ValueError: A measure is missing.
        """
        values = {name: self._value(measures, name) for name in self.needs}
        if self.kind == "pareto":
            return tuple(
                math.log(value) if goal == "accuracy" else -math.log(value) for goal, value in values.items()
            )
        accuracy, costs = values["accuracy"], list(values.values())[1:]
        if self.kind == "v2":
            step, params = costs[0] / self.step_ms, costs[1] / self.params
            return (math.log(accuracy) + self.w * math.log(step) + self.v * math.log(params),)
        if self.kind == "accuracy":
            return (math.log(accuracy),)
        target = self.target or (400e6 if self.kind == "v1" else 1.0)
        if self.kind == "absolute":
            return (accuracy + self.beta * abs(costs[0] / target - 1.0),)
        return (math.log(accuracy) + self.w * math.log(costs[0] / target),)

    def reward(self, measures: Measures) -> float | None:
        """Return the reward itself, as the papers print it; None: a front has none.

        Raises:
            ValueError: A measure is missing.
        """
        if self.is_front:
            return None
        (score,) = self.scores(measures)
        return score if self.kind == "absolute" else math.exp(score)

    def __str__(self) -> str:
        """Return the text that `objective_from_text` reads; what is at its default is left out."""
        if self.kind == "pareto":
            return f"pareto:{','.join(self.goals)}"
        changed = [
            f"{field.name}={getattr(self, field.name)}"
            for field in fields(self)
            if field.name in _KEYS[self.kind] and getattr(self, field.name) != field.default
        ]
        return ":".join([self.kind, *([",".join(changed)] if changed else [])])

    def _value(self, measures: Measures, name: str) -> float:
        value = getattr(measures, name)
        if value is None:
            raise ValueError(f"the objective {self} needs {name}, which was not measured")
        return max(_LEAST_ACCURACY, value) if name == "accuracy" else float(value)


def objective_from_text(text: str) -> Objective:
    """Read an objective as a command line has it.

    Args:
        text: A kind, and behind a colon its values: ``v2``, ``v2:w=-0.03,v=-0.02``, ``v1:target=400e6``,
            ``latency:target=20``, ``absolute:cost=step_ms,target=40,beta=-0.1``, ``pareto:accuracy,step_ms``.

    Raises:
        UserError: The kind, a key or a value is not allowed; the message names what is.
    """
    kind, _, rest = text.partition(":")
    if kind not in KINDS:
        raise UserError(f"unknown objective '{kind}'{did_you_mean(kind, KINDS)}")
    values: dict[str, Any] = {"kind": kind}
    parts = [part.strip() for part in rest.split(",") if part.strip()]
    if kind == "pareto":
        values |= {"goals": parts} if parts else {}
        parts = []
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS[kind]:
            raise UserError(
                f"objective '{text}': '{part}' is none of its values{did_you_mean(key, _KEYS[kind])}; "
                "write KEY=NUMBER"
            )
        values[key] = value if key == "cost" else _number(text, key, value)
    return from_dict(Objective, values, f"objective '{text}'")


def _number(text: str, key: str, value: str) -> float:
    try:
        return TypeAdapter(float).validate_python(value)
    except ValidationError:
        raise UserError(f"objective '{text}': {key} must be a number, got '{value}'") from None
