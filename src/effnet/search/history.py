"""What a strategy is told of a study: its trials with their scores, those of stopped ones estimated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from effnet.search.halving import full_accuracy
from effnet.search.measures import Measures
from effnet.search.objective import Objective
from effnet.search.points import Observation
from effnet.search.records import Trial


def observations(trials: Sequence[Trial], objective: Objective) -> list[Observation]:
    """Return what is known of all trials, in the order of asking.

    A stopped trial has the accuracy that it would probably have come to; without an estimate, it has failed.
    """
    finished = [
        (accuracy_at_rungs(trial), trial.measures.accuracy)
        for trial in trials
        if trial.state == "done" and trial.measures and trial.measures.accuracy is not None
    ]
    return list(_observed(trials, objective, finished))


def _observed(
    trials: Sequence[Trial], objective: Objective, finished: Sequence[tuple[dict[float, float], float]]
) -> Iterator[Observation]:
    for trial in trials:
        measures = trial.measures
        if not trial.has_ended:
            yield Observation(number=trial.number, point=trial.point, state="running")
            continue
        if trial.state == "stopped" and measures:
            measures = replace(measures, accuracy=full_accuracy(accuracy_at_rungs(trial), finished))
        if trial.state in {"done", "stopped"} and measures and has_all(measures, objective):
            scores = objective.scores(measures)
            yield Observation(number=trial.number, point=trial.point, state="done", scores=scores)
        else:
            yield Observation(number=trial.number, point=trial.point, state="failed")


def has_all(measures: Measures, objective: Objective) -> bool:
    """Whether everything was measured that the objective needs."""
    return all(getattr(measures, name) is not None for name in objective.needs)


def rung_scores(trials: Sequence[Trial], objective: Objective, epochs: float) -> dict[int, tuple[float, ...]]:
    """Return the scores at a rung by number, of all trials that have come there and whose costs are known."""
    found = {}
    for trial in trials:
        accuracy = accuracy_at_rungs(trial).get(epochs)
        if accuracy is not None and trial.measures is not None:
            measures = replace(trial.measures, accuracy=accuracy)
            if has_all(measures, objective):
                found[trial.number] = objective.scores(measures)
    return found


def accuracy_at_rungs(trial: Trial) -> dict[float, float]:
    """Return the accuracy after so many epochs."""
    return {rung.epochs: rung.accuracy for rung in trial.rungs}
