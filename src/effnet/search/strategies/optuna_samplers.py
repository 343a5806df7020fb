"""Optuna's TPE, NSGA-II and NSGA-III, told the history anew wherever it is not a continuation.

Optuna is the source of the samplers and not the store: its studies would not survive what ours must. Each
ask has a sampler of its own, seeded by the ask's random numbers, so a resumed search goes on as it would.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from effnet.errors import UserError
from effnet.search.points import Domain, Observation, Point, Variable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Sampler = Literal["tpe", "nsga2", "nsga3"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)

_POPULATION = 50
"""Of NSGA, as Optuna has it."""
_GENERATION_KEYS = {"nsga2": "NSGAIISampler:generation", "nsga3": "NSGAIIISampler:generation"}
"""Under these Optuna notes in a trial which generation it belongs to."""


@dataclass(slots=True)
class _Replay:
    """An Optuna study, and the history that it was told."""

    study: Study
    variables: tuple[Variable, ...]
    scores: int
    told: list[Observation]
    done: int = 0


@dataclass(frozen=True, slots=True)
class OptunaSampling:
    """A sampler of Optuna.

    Raises:
        UserError: Optuna is not installed.
    """

    sampler: Sampler
    takes_fronts: ClassVar[bool] = True
    _replays: list[_Replay] = field(default_factory=list, init=False, repr=False, compare=False)
    """The last one, to save work."""

    def __post_init__(self) -> None:
        if not has_optuna():
            raise UserError(
                f"strategy '{self.sampler}' needs Optuna, not installed here: pip install 'effnet[optuna]'"
            )

    def ask(self, domain: Domain, history: Sequence[Observation], draws: Random) -> Point:
        """See `Strategy.ask`; what Optuna answers may have been tried or be over a bound."""
        from optuna.trial import TrialState

        from effnet.search.strategies.optuna_space import KnownSpace

        replay = self._replay(tuple(domain.variables), list(history))
        distributions = _distributions(domain.variables)
        replay.study.sampler = KnownSpace(self._seeded(draws.getrandbits(32)), distributions)
        trial = replay.study.ask(distributions)
        replay.study.tell(trial, state=TrialState.FAIL)
        return domain.canonical(tuple(trial.params[name] for name in distributions))

    def _replay(self, variables: tuple[Variable, ...], history: list[Observation]) -> _Replay:
        replay = self._replays[0] if self._replays else None
        scores = next((len(seen.scores) for seen in history if seen.state == "done"), 1)
        if (
            replay is None
            or (replay.variables, replay.scores) != (variables, scores)
            or history[: len(replay.told)] != replay.told
        ):
            replay = _Replay(_new_study(scores), variables, scores, [])
            self._replays[:] = [replay]
        for seen in history[len(replay.told) :]:
            replay.study.add_trial(self._trial(variables, seen, replay.done // _POPULATION))
            replay.done += seen.state == "done"
            replay.told.append(seen)
        return replay

    def _trial(self, variables: Sequence[Variable], seen: Observation, generation: int) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        distributions = _distributions(variables)
        states = {"done": TrialState.COMPLETE, "failed": TrialState.FAIL, "running": TrialState.RUNNING}
        return create_trial(
            state=states[seen.state],
            values=seen.scores or None,
            params=dict(zip(distributions, seen.point, strict=True)),
            distributions=distributions,
            system_attrs={_GENERATION_KEYS[self.sampler]: generation} if self.sampler != "tpe" else {},
        )

    def _seeded(self, seed: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import NSGAIIISampler, NSGAIISampler, TPESampler

        if self.sampler == "tpe":
            return TPESampler(seed=seed)
        kind = NSGAIISampler if self.sampler == "nsga2" else NSGAIIISampler
        with warnings.catch_warnings():
            # Of NSGA-III Optuna says that its interface may change; `constraints.txt` holds the version.
            warnings.simplefilter("ignore", ExperimentalWarning)
            return kind(seed=seed, population_size=_POPULATION)


def has_optuna() -> bool:
    """Whether Optuna is installed."""
    return importlib.util.find_spec("optuna") is not None


def _new_study(scores: int) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(directions=["maximize"] * scores)


def _distributions(variables: Sequence[Variable]) -> dict[str, BaseDistribution]:
    from optuna.distributions import CategoricalDistribution

    return {variable.name: CategoricalDistribution(range(len(variable.values))) for variable in variables}
