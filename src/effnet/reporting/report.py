"""Everything that the page about some runs shows, as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from effnet.api.reading import run_data
from effnet.data.images import DataSplit
from effnet.reporting.chart import Chart
from effnet.reporting.curves import constants, schedule_charts, speed_charts, training_charts
from effnet.reporting.differences import Difference, differences
from effnet.reporting.facts import RunFacts, read_runs
from effnet.reporting.measured import Measured, Pair, compare_with_first, measure_if_possible
from effnet.reporting.missing import Missing, attempt
from effnet.reporting.mistakes import Mistakes, worst_mistakes
from effnet.reporting.reliability import reliability_chart
from effnet.reporting.repeating import Repetition, repetition
from effnet.reporting.samples import StageSamples, stage_samples

_PICTURES = 24
"""Mistakes and photos that all runs of a page share, within the limits for each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunReport:
    """All that the page shows of one run; what cannot be had says why."""

    facts: RunFacts
    repetition: Repetition
    measured: Measured | Missing
    reliability: Chart | None
    mistakes: Mistakes | Missing
    samples: tuple[StageSamples, ...] | Missing


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Report:
    """Some runs side by side; the first is the one that the others are compared with."""

    runs: tuple[RunReport, ...]
    differences: tuple[Difference, ...]
    """Empty for one run."""
    schedule: tuple[Chart, ...]
    constants: tuple[str, ...]
    """What is the same in all stages, for which there is no chart."""
    training: tuple[Chart, ...]
    speed: tuple[Chart, ...]
    pairs: tuple[Pair, ...]
    """The first run with each other one."""

    def with_pictures(self, share: float) -> Report:
        """Return the report with a share of each run's mistakes and photos, rounded down."""
        return replace(self, runs=tuple(_with_pictures(run, share) for run in self.runs))

    @property
    def missing(self) -> tuple[str, ...]:
        """Name the run and the reason of each section that cannot be had, each once."""
        reasons = {
            f"{run.facts.name}: {part.reason}": None
            for run in self.runs
            for part in (run.facts.split, run.facts.network, run.measured, run.mistakes, run.samples)
            if isinstance(part, Missing)
        }
        return tuple(reasons)


def collect_report(
    paths: Sequence[Path],
    *,
    evaluates: bool = True,
    device: str = "auto",
    batch_size: int = 64,
    announce: Callable[[str], None] = lambda text: None,
) -> Report:
    """Collect a report on some runs; what is missing of one leaves the rest as it is.

    Args:
        paths: Folders of runs, the one to compare with first.
        evaluates: Whether the networks are asked about their validation images; else what depends on that
            is left out.
        device: As ``train.device``.
        batch_size: Images at a time.
        announce: Told what is done next.

    Raises:
        UserError: A folder holds no run, or its configuration is damaged.
    """
    facts = read_runs(paths)
    runs = tuple(_run_report(one, len(facts), evaluates, device, batch_size, announce) for one in facts)
    several = len(runs) > 1
    return Report(
        runs=runs,
        differences=differences(facts) if several else (),
        schedule=schedule_charts(facts),
        constants=constants(facts),
        training=training_charts(facts),
        speed=speed_charts(facts),
        pairs=compare_with_first([one.name for one in facts], [run.measured for run in runs]),
    )


def _with_pictures(run: RunReport, share: float) -> RunReport:
    mistakes, samples = run.mistakes, run.samples
    if isinstance(mistakes, Mistakes):
        mistakes = replace(mistakes, worst=mistakes.worst[: int(share * len(mistakes.worst))])
    if not isinstance(samples, Missing):
        samples = tuple(
            replace(stage, samples=stage.samples[: int(share * len(stage.samples))]) for stage in samples
        )
    return replace(run, mistakes=mistakes, samples=samples)


def _run_report(  # noqa: PLR0917 - what a report is made with
    facts: RunFacts,
    count: int,
    evaluates: bool,
    device: str,
    batch_size: int,
    announce: Callable[[str], None],
) -> RunReport:
    announce(f"{facts.name}: its images")
    data = attempt(partial(run_data, facts.path))
    announce(f"{facts.name}: its answers")
    measured = measure_if_possible(facts, data, evaluates=evaluates, device=device, batch_size=batch_size)
    one_label = measured.one_label if isinstance(measured, Measured) else None
    announce(f"{facts.name}: its pictures")
    return RunReport(
        facts=facts,
        repetition=repetition(facts),
        measured=measured,
        reliability=reliability_chart(one_label.calibration) if one_label else None,
        mistakes=_mistakes(measured, data, most=_share(count, 4, 12)),
        samples=data if isinstance(data, Missing) else _samples(facts, data, photos=_share(count, 2, 6)),
    )


def _share(runs: int, least: int, most: int) -> int:
    """Return how many pictures a run has where all share a page of bounded size."""
    return min(max(_PICTURES // runs, least), most)


def _mistakes(measured: Measured | Missing, data: DataSplit | Missing, *, most: int) -> Mistakes | Missing:
    if isinstance(measured, Missing):
        return measured
    if isinstance(data, Missing):
        return data
    return attempt(partial(worst_mistakes, measured.predictor, data.val, measured.answers, most=most))


def _samples(facts: RunFacts, data: DataSplit, *, photos: int) -> tuple[StageSamples, ...] | Missing:
    return attempt(partial(stage_samples, facts, data, photos=photos))
