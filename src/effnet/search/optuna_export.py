"""A study in Optuna's form, for its dashboard: ``optuna-dashboard URL``.

Optuna's storage is a copy that can be made anew at any time; the ledger stays the truth.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from effnet.arch.io import to_dict
from effnet.errors import UserError
from effnet.search.database import driver_url, without_secrets
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.objective import Objective
from effnet.search.points import Variable, chosen
from effnet.search.records import Trial

if TYPE_CHECKING:
    import optuna
    from optuna.storages import RDBStorage

_IDENTITY = "effnet"
"""Attribute of Optuna's study that tells which of ours it is a copy of."""
_NUMBER = "number"
"""Attribute of Optuna's trials; their own numbers are in the order of copying."""


def export_to_optuna(
    ledger: Ledger, url: str, *, name: str, variables: Sequence[Variable], objective: Objective
) -> int:
    """Copy the trials that have ended and were not copied yet.

    Done trials are complete ones of Optuna's, stopped ones pruned, failed and rejected ones failed. What
    was reached on the way is an intermediate value, by the number of the rung from 1. Measures and reasons
    are attributes.

    Args:
        ledger: Of the study.
        url: Optuna's storage, begun where it is absent: ``sqlite:///`` or ``postgresql://``; may be that of
            the ledger.
        name: Of Optuna's study.
        variables: Of the study's space.
        objective: Of the study. The values are the reward, or the goals of a front in their own units.

    Returns:
        How many trials were copied.

    Raises:
        UnreachableError: There is no reaching the ledger's database.
        UserError: Optuna is not installed, its storage cannot be written, or its study is of another origin.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("the dashboard's copy needs Optuna: pip install 'effnet[optuna]'")
    trials = [trial for trial in ledger.trials() if trial.has_ended]
    place = driver_url(url)
    try:
        with _quiet(), _storage(place) as storage:
            study = _study(storage, name, objective, _identity(ledger, objective))
            known = {trial.user_attrs.get(_NUMBER) for trial in study.get_trials(deepcopy=False)}
            new = [trial for trial in trials if trial.number not in known]
            study.add_trials([_converted(trial, variables, objective) for trial in new])
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise UserError(f"cannot write Optuna's copy to {without_secrets(place)}: {reason}") from error
    return len(new)


@contextmanager
def _storage(place: str) -> Iterator[RDBStorage]:
    from optuna.storages import RDBStorage  # noqa: PLC0415 (an extra)

    storage = RDBStorage(place)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _study(storage: RDBStorage, name: str, objective: Objective, identity: str) -> optuna.Study:
    import optuna  # noqa: PLC0415 (an extra)

    names, directions = _values_of(objective)
    study = optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    if not study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(_IDENTITY, identity)
        study.set_metric_names(names)
    if study.user_attrs.get(_IDENTITY) != identity:
        raise UserError(
            f"{without_secrets(storage.url)} has another study '{name}'; give another name, or another place"
        )
    return study


def _values_of(objective: Objective) -> tuple[list[str], list[Literal["minimize", "maximize"]]]:
    """Return names and directions of an objective's values."""
    if not objective.is_front:
        return [str(objective)], ["maximize"]
    return list(objective.goals), [
        "maximize" if goal == "accuracy" else "minimize" for goal in objective.goals
    ]


def _values(objective: Objective, measures: Measures) -> list[float]:
    reward = objective.reward(measures)
    return [getattr(measures, goal) for goal in objective.goals] if reward is None else [reward]


def _converted(trial: Trial, variables: Sequence[Variable], objective: Objective) -> optuna.trial.FrozenTrial:
    from optuna.distributions import CategoricalDistribution  # noqa: PLC0415 (an extra)
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415

    states = {"done": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
    state = states.get(trial.state, TrialState.FAIL)
    is_complete = state == TrialState.COMPLETE and trial.measures is not None
    converted = create_trial(
        state=state,
        values=_values(objective, trial.measures) if is_complete and trial.measures else None,
        params=chosen(trial.point, variables),
        distributions={variable.name: CategoricalDistribution(variable.values) for variable in variables},
        user_attrs=_attributes(trial),
        intermediate_values={rung: reached.accuracy for rung, reached in enumerate(trial.rungs, 1)},
    )
    if trial.started_at and trial.ended_at:
        converted.datetime_start = datetime.fromtimestamp(trial.started_at)
        converted.datetime_complete = datetime.fromtimestamp(trial.ended_at)
    return converted


def _attributes(trial: Trial) -> dict[str, Any]:
    measures = {} if trial.measures is None else to_dict(trial.measures)
    more = {"state": trial.state, "reason": trial.reason, "worker": trial.owner, "seconds": trial.seconds}
    return {_NUMBER: trial.number, **measures, **more}


def _identity(ledger: Ledger, objective: Objective) -> str:
    text = json.dumps([ledger.settings, ledger.space, str(objective)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from talking about what it does for us."""
    from optuna.exceptions import ExperimentalWarning  # noqa: PLC0415 (an extra)

    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # The names of values are experimental, and what the dashboard is read by.
            warnings.simplefilter("ignore", ExperimentalWarning)
            yield
    finally:
        logger.setLevel(level)
