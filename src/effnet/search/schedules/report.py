"""What came of a study of schedules: all in order, and whether any is better than the paper's."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from effnet.config import Config
from effnet.files import whole_file
from effnet.recipes import config_to_toml
from effnet.search.endings import reasons_of, states_of
from effnet.search.points import Point
from effnet.search.records import Trial
from effnet.search.schedules.space import Schedule, ScheduleSpace, schedule_from_json

_SHOWN = 20
_SURE = 2.0
"""Standard errors that a difference must be away from 0."""
COLUMNS = ("rank", "trial", "schedule", "top-1", "other seeds", "to the paper's", "epochs", "steps, s", "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A schedule that was trained to the end."""

    rank: int
    """From 1: finalists by their other seeds, then all others by the search's own."""
    number: int
    """Of its trial in the search."""
    point: Point
    schedule: Schedule
    accuracy: float
    """In the search, by which it was chosen: of the best of many, it is better than the next time."""
    repeats: Mapping[int, float]
    """Accuracy by the number of each other seed."""
    seconds: float | None
    """Of training steps, mean over all its trainings."""
    mark: str
    """``paper``, ``fixed``, ``composer`` or empty."""

    @property
    def mean(self) -> float | None:
        """Mean accuracy over the other seeds; None: it was no finalist, or they are still to come."""
        return fmean(self.repeats.values()) if self.repeats else None

    @property
    def epochs(self) -> float:
        """That take as long as the paper's schedule."""
        return float(self.schedule.changes["train.epochs"])  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """By how much a schedule is better than another with the same seeds."""

    mean: float
    """Of accuracies as fractions."""
    error: float | None
    """Standard error of the mean; None: a single seed says nothing about it."""
    seeds: int

    @property
    def is_sure(self) -> bool:
        """Whether it is more than two standard errors above 0."""
        return self.error is not None and self.mean > _SURE * self.error

    def __str__(self) -> str:
        error = "" if self.error is None else f" +- {100 * self.error:.2f}"
        return f"{100 * self.mean:+.2f}{error}"


@dataclass(frozen=True, kw_only=True)
class ScheduleReport:
    """A study as far as it is."""

    study: str
    space: ScheduleSpace
    run: Config
    """The recipe."""
    trials: tuple[Trial, ...]
    entries: tuple[Entry, ...]

    @property
    def winner(self) -> Entry | None:
        """The first; None: nothing is complete."""
        return next(iter(self.entries), None)

    @cached_property
    def marked(self) -> dict[str, Entry]:
        """The entries that have a mark, by it."""
        return {entry.mark: entry for entry in self.entries if entry.mark}

    def to_paper(self, entry: Entry) -> Difference | None:
        """Return how much better than the paper's schedule one is over seeds that both have."""
        paper = self.marked.get("paper")
        return difference(entry.repeats, paper.repeats) if paper else None

    @property
    def verdict(self) -> str:
        """Say whether a schedule is better than the paper's."""
        paper, winner = self.marked.get("paper"), self.winner
        if paper is None or winner is None:
            return "The paper's schedule was not trained to the end, so that nothing is compared with it."
        found = self.to_paper(winner)
        if found is None:
            return (
                "The finalists have not been trained with other seeds yet, so that nothing is said of them."
            )
        if winner is paper:
            return "None is better than the paper's schedule."
        what = f"{winner.schedule.name}: {found} points to the paper's schedule, {_seeds(found.seeds)}"
        if found.is_sure:
            return f"Better than the paper's: {what}."
        return f"No schedule is surely better than the paper's; the best is {what}."

    @property
    def states(self) -> dict[str, int]:
        """How many trials are in each state."""
        return states_of(self.trials)

    @property
    def reasons(self) -> list[tuple[str, str, int]]:
        """Why trials did not end as planned, see `reasons_of`."""
        return reasons_of(self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Return all that is known, as ``leaderboard.json`` has it."""
        return {
            "study": self.study,
            "space": self.space.name,
            "states": self.states,
            "seconds": sum(trial.seconds for trial in self.trials),
            "verdict": self.verdict,
            "winner": self.winner and self.winner.number,
            "leaderboard": [self._entry(entry) for entry in self.entries],
            "not_complete": [
                {"number": trial.number, "state": trial.state, "reason": trial.reason}
                for trial in self.trials
                if trial.state != "done"
            ],
        }

    def _entry(self, entry: Entry) -> dict[str, Any]:
        found = self.to_paper(entry)
        return {
            "rank": entry.rank,
            "number": entry.number,
            "name": entry.schedule.name,
            "mark": entry.mark,
            "accuracy": entry.accuracy,
            "repeats": {str(seed): accuracy for seed, accuracy in entry.repeats.items()},
            "mean_of_repeats": entry.mean,
            "to_paper": found and {"mean": found.mean, "error": found.error, "seeds": found.seeds},
            "train_seconds": entry.seconds,
            "epochs": entry.epochs,
            "values": self.space.values(entry.point),
            "changes": dict(entry.schedule.changes),
        }


def _seeds(number: int) -> str:
    return f"{number} {'seed' if number == 1 else 'seeds'}"


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Return the mean difference over the seeds that both have; None: they have none in common."""
    found = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not found:
        return None
    error = stdev(found) / math.sqrt(len(found)) if len(found) > 1 else None
    return Difference(mean=fmean(found), error=error, seeds=len(found))


def build_report(trials: Sequence[Trial], space: ScheduleSpace, run: Config, *, study: str) -> ScheduleReport:
    """Put a study's schedules in order.

    Args:
        trials: All, in the order of asking.
        space: Of the study.
        run: Its recipe.
        study: Name, for people.
    """
    marks = {space.composer: "composer", space.fixed: "fixed", space.paper: "paper"}
    by_point: dict[Point, dict[int, Trial]] = {}
    for trial in trials:
        if trial.state == "done" and trial.measures and trial.measures.accuracy is not None:
            by_point.setdefault(trial.point[:-1], {})[trial.point[-1]] = trial
    entries = [_entry(point, seeds, marks.get(point, "")) for point, seeds in by_point.items() if 0 in seeds]
    entries.sort(key=lambda entry: (entry.mean is None, -(entry.mean or entry.accuracy), entry.number))
    ranked = tuple(replace(entry, rank=rank) for rank, entry in enumerate(entries, start=1))
    return ScheduleReport(study=study, space=space, run=run, trials=tuple(trials), entries=ranked)


def _entry(point: Point, seeds: Mapping[int, Trial], mark: str) -> Entry:
    schedule = schedule_from_json(seeds[0].spec, f"trial {seeds[0].number}")
    assert schedule is not None, "a study of schedules has no networks"
    accuracies = {seed: _accuracy(trial) for seed, trial in sorted(seeds.items())}
    spent = [trial.measures.train_seconds for trial in seeds.values() if trial.measures]
    known = [seconds for seconds in spent if seconds is not None]
    return Entry(
        rank=0,
        number=seeds[0].number,
        point=point,
        schedule=schedule,
        accuracy=accuracies.pop(0),
        repeats=accuracies,
        seconds=fmean(known) if known else None,
        mark=mark,
    )


def _accuracy(trial: Trial) -> float:
    assert trial.measures is not None, "only complete trials are ranked"
    assert trial.measures.accuracy is not None, "only complete trials are ranked"
    return trial.measures.accuracy


def cells(report: ScheduleReport, most: int | None = None) -> list[tuple[str, ...]]:
    """Return the leaderboard as text, a row for each of the first ``most`` and of those with a mark."""
    return [
        _cells(report, entry) for entry in report.entries if most is None or entry.rank <= most or entry.mark
    ]


def _cells(report: ScheduleReport, entry: Entry) -> tuple[str, ...]:
    found = report.to_paper(entry)
    marks = [mark for mark in ("best" if entry is report.winner else "", entry.mark) if mark]
    return (
        str(entry.rank),
        str(entry.number),
        entry.schedule.name,
        f"{entry.accuracy:.2%}",
        "" if entry.mean is None else f"{entry.mean:.2%}",
        "" if found is None or entry.mark == "paper" else str(found),
        f"{entry.epochs:.1f}",
        "" if entry.seconds is None else f"{entry.seconds:.0f}",
        ", ".join(marks),
    )


def to_markdown(report: ScheduleReport) -> str:
    """Return the leaderboard with all that is needed to read it."""
    states = ", ".join(f"{number} {state}" for state, number in report.states.items()) or "none yet"
    hours = sum(trial.seconds for trial in report.trials) / 3600
    lines = [
        f"# Search over schedules: {report.run.model.network}, {report.space.last_size} px",
        "",
        f"Study `{report.study}`; {report.space.count():,} schedules in the space. "
        f"Trainings: {states}; {hours:.2f} hours.",
        "",
        f"**{report.verdict}**",
        "",
    ]
    if report.winner is None:
        return "\n".join(lines)
    lines += [f"| {' | '.join(row)} |" for row in [COLUMNS, ["---"] * len(COLUMNS), *cells(report, _SHOWN)]]
    lines += [
        "",
        "All have as many epochs as take the time of the paper's schedule by the cost of a step that was "
        "measured when the study was begun. Top-1 is on images held out of the training split: first with "
        "the seed of the search, by which finalists were chosen, then the mean over the other seeds, on "
        "which the comparison with the paper's schedule rests (points, paired by seed, and their standard "
        "error).",
        "",
        "```",
        "effnet train DATA --recipe best.toml",
        "```",
        "",
    ]
    if report.reasons:
        lines += ["## Not trained to the end", ""]
        lines += [f"- {number} {state}: {reason}" for state, reason, number in report.reasons]
        lines += [""]
    return "\n".join(lines)


def winner_toml(report: ScheduleReport, winner: Entry) -> str:
    """Return the recipe of the best schedule: all training images, the recipe's own seed."""
    run = winner.schedule.applied_to(report.run)
    run = replace(run, data=replace(run.data, source="", minival_fraction=0.0))
    return (
        f"# The best schedule of the study {Path(report.study).name}: {winner.schedule.name}.\n"
        "#\n"
        "# It trains on the images too that the search had held out to compare schedules on.\n\n"
    ) + config_to_toml(run)


def write_report(report: ScheduleReport, folder: Path) -> dict[str, Path]:
    """Write all that is known of a study; files of an earlier report are replaced.

    Returns:
        The files by what they are: ``leaderboard``, ``json``, and ``best`` once a training is complete.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "leaderboard": ("leaderboard.md", to_markdown(report)),
        "json": ("leaderboard.json", json.dumps(report.to_dict(), indent=1) + "\n"),
    }
    if report.winner:
        texts["best"] = ("best.toml", winner_toml(report, report.winner))
    for name, text in texts.values():
        with whole_file(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {kind: folder / name for kind, (name, _) in texts.items()}
