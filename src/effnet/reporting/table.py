"""The same as a table: one row a run, in the order that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from effnet.api.reading import run_data
from effnet.data.images import DataSplit
from effnet.errors import UserError, did_you_mean
from effnet.reporting.differences import Difference, differences
from effnet.reporting.facts import NetworkFacts, RunFacts, read_runs
from effnet.reporting.measured import Measured, Pair, compare_with_first, measure_if_possible
from effnet.reporting.missing import Missing, attempt
from effnet.reporting.repeating import repetition
from effnet.reporting.wording import DASH, counted, duration, number, percent


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a run came to; None where it is not known. Shares are fractions."""

    name: str
    run: str
    """The folder."""
    network: str | None
    recipe: str
    params: int | None
    macs: int | None
    """Multiply-adds of an image at the size of evaluation."""
    train_sizes: tuple[int, int] | None
    """First and last image size of training, in pixels."""
    image_size: int | None
    """Of evaluation, in pixels."""
    epochs: float
    """Done."""
    is_finished: bool
    top1: float | None
    """Of the best weights: measured now, or else as training found it."""
    top1_low: float | None
    """From where to where the bootstrap puts top-1 (95 %); None where it was not measured now."""
    top1_high: float | None
    loss: float | None
    """Of the same weights and images."""
    ece: float | None
    """Expected calibration error; None where it was not measured now, or images have several labels."""
    seconds: float
    """Of training, evaluation included."""
    images_per_second: float | None
    data_wait: float | None
    seed: int
    missing: str
    """Why it was not measured now; empty where it was."""


def _sizes(row: Row) -> str:
    if row.train_sizes is None:
        return DASH
    first, last = row.train_sizes
    trained = f"{first}" if first == last else f"{first}-{last}"
    return f"{trained}, {row.image_size}" if row.image_size not in (None, last) else trained


def _interval(row: Row) -> str:
    if row.top1_low is None or row.top1_high is None:
        return DASH
    return f"{100 * row.top1_low:.1f}-{100 * row.top1_high:.1f}"


_COLUMNS: dict[str, tuple[str, Callable[[Row], str]]] = {
    "network": ("network", lambda row: row.network or DASH),
    "recipe": ("recipe", lambda row: row.recipe),
    "params": ("params", lambda row: counted(row.params)),
    "macs": ("MACs", lambda row: counted(row.macs)),
    "image_size": ("sizes, px", _sizes),
    "epochs": ("epochs", lambda row: number(row.epochs) + ("" if row.is_finished else " (going on)")),
    "top1": ("top-1", lambda row: percent(row.top1)),
    "interval": ("95 %", _interval),
    "loss": ("loss", lambda row: number(row.loss)),
    "ece": ("ECE", lambda row: percent(row.ece)),
    "seconds": ("time", lambda row: duration(row.seconds)),
    "images_per_second": ("images/s", lambda row: number(row.images_per_second)),
    "data_wait": ("waiting", lambda row: percent(row.data_wait)),
    "seed": ("seed", lambda row: str(row.seed)),
}
SORTABLE = ("name", *(key for key in _COLUMNS if key != "interval"))
"""What rows can be sorted by."""
_SMALLEST_FIRST = frozenset(
    {"loss", "ece", "seconds", "params", "macs", "data_wait", "seed", "name", "network", "recipe"}
)
"""Of these the smallest comes first; of the others the largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTable:
    """Some runs beside each other."""

    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    """One value a run, in the order in which the runs were given."""
    names: tuple[str, ...]
    """Of the runs as they were given; the first is the one that is compared."""
    pairs: tuple[Pair, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the table as ``effnet compare --json`` prints it."""
        return {
            "runs": [{name: getattr(row, name) for name in Row.__dataclass_fields__} for row in self.rows],
            "differences": {
                one.key: dict(zip(self.names, one.values, strict=True)) for one in self.differences
            },
            "pairs": [
                {"first": pair.first, "second": pair.second}
                | (
                    {"missing": pair.comparison.reason}
                    if isinstance(pair.comparison, Missing)
                    else pair.comparison.to_dict()
                )
                for pair in self.pairs
            ],
        }


def compare_runs(
    paths: Sequence[Path],
    *,
    evaluates: bool = True,
    sort: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    announce: Callable[[str], None] = lambda text: None,
) -> RunTable:
    """Put some runs beside each other.

    Args:
        paths: Folders of runs; the first is tested against each other one, where their images are the same.
        evaluates: Whether the networks are asked about their validation images, or only the runs are read.
        sort: One of `SORTABLE`; None leaves the runs in the order in which they are given.
        device: As ``train.device``.
        batch_size: Images at a time.
        announce: Told what is done next.

    Raises:
        UserError: A folder holds no run, or rows cannot be sorted by that.
    """
    if sort is not None and sort not in SORTABLE:
        raise UserError(f"rows cannot be sorted by '{sort}'{did_you_mean(sort, SORTABLE)}")
    facts = read_runs(paths)
    measured = []
    for one in facts:
        if evaluates:
            announce(f"{one.name}: its answers")
        measured.append(_measured(one, evaluates=evaluates, device=device, batch_size=batch_size))
    names = tuple(one.name for one in facts)
    rows = [row_of(one, found) for one, found in zip(facts, measured, strict=True)]
    return RunTable(
        rows=tuple(_sorted(rows, sort) if sort else rows),
        differences=differences(facts),
        names=names,
        pairs=compare_with_first(names, measured) if evaluates else (),
    )


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a line of titles, and one a run; columns of which nothing is known are left out."""
    columns = [("run", [row.name for row in rows])]
    columns += [(title, [text(row) for row in rows]) for title, text in _COLUMNS.values()]
    known = [column for column in columns if any(cell != DASH for cell in column[1])]
    return [
        [title for title, _ in known],
        *([texts[line] for _, texts in known] for line in range(len(rows))),
    ]


def _measured(facts: RunFacts, *, evaluates: bool, device: str, batch_size: int) -> Measured | Missing:
    data: DataSplit | Missing = Missing("")
    if evaluates and facts.has_weights:
        data = attempt(partial(run_data, facts.path))
    return measure_if_possible(facts, data, evaluates=evaluates, device=device, batch_size=batch_size)


def row_of(facts: RunFacts, measured: Measured | Missing) -> Row:
    """Return what is known of a run.

    Args:
        facts: Of the run.
        measured: What its network says now, or why it was not asked.
    """
    network = facts.network if isinstance(facts.network, NetworkFacts) else None
    scores = measured.scores if isinstance(measured, Measured) else None
    one_label = measured.one_label if isinstance(measured, Measured) else None
    sizes = (
        [stage.image_size for stage in facts.schedule.stages]
        if not isinstance(facts.schedule, Missing)
        else []
    )
    best = facts.best
    return Row(
        name=facts.name,
        run=str(facts.path),
        network=network.name if network else None,
        recipe=repetition(facts).recipe,
        params=network.params if network else None,
        macs=network.macs if network else None,
        train_sizes=(sizes[0], sizes[-1]) if sizes else None,
        image_size=network.image_size if network else None,
        epochs=facts.epoch,
        is_finished=facts.is_finished,
        top1=scores.top1 if scores else best.top1 if best else None,
        top1_low=one_label.top1.low if one_label else None,
        top1_high=one_label.top1.high if one_label else None,
        loss=scores.loss if scores else best.loss if best else None,
        ece=one_label.calibration.ece if one_label else None,
        seconds=facts.seconds,
        images_per_second=facts.images_per_second,
        data_wait=facts.data_wait,
        seed=facts.config.train.seed,
        missing=measured.reason if isinstance(measured, Missing) else "",
    )


def _sorted(rows: Sequence[Row], key: str) -> list[Row]:
    """Return the best first; those of which the value is not known come last."""
    known = [row for row in rows if getattr(row, key) is not None]
    unknown = [row for row in rows if getattr(row, key) is None]
    return sorted(known, key=lambda row: getattr(row, key), reverse=key not in _SMALLEST_FIRST) + unknown
