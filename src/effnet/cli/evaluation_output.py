"""How ``effnet evaluate`` prints what it has measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from effnet.cli.output import print_json, print_table

if TYPE_CHECKING:
    from effnet.api import SizeScores
    from effnet.evaluation.assessment import Assessment
    from effnet.evaluation.calibration import Calibration
    from effnet.evaluation.class_report import ClassReport, ClassScores
    from effnet.evaluation.comparison import Comparison
    from effnet.evaluation.confusion import Confusion
    from effnet.evaluation.interval import Interval
    from effnet.evaluation.label_report import LabelReport, LabelScores
    from effnet.evaluation.multilabel import AnyScores

_MOST_LINES = 100
_WORST = 20
_MOST_PAIRS = 5


def print_scores(scores: AnyScores, *, as_json: bool) -> None:
    """Print accuracy and loss alone, in the first process."""
    from effnet.data.processes import this_process
    from effnet.evaluation.metrics import Scores

    if not this_process().is_first:
        return
    if as_json:
        print_json(scores.to_dict())
        return
    if isinstance(scores, Scores):
        print_table(("class", "top-1"), [(name, f"{top1:.2%}") for name, top1 in scores.class_top1.items()])
        typer.echo("")
    _print_totals(scores, None)


def print_assessment(assessment: Assessment) -> None:
    """Print classes, confusions, calibration, and at the end the totals."""
    from effnet.evaluation.class_report import ClassReport

    if isinstance(assessment.report, ClassReport):
        _print_classes(assessment.report)
        _print_confusions(assessment.confusions)
    else:
        _print_labels(assessment.report)
    if assessment.calibration:
        _print_calibration(assessment.calibration)
    _print_totals(assessment.scores, assessment.intervals["top1"])


def print_comparison(comparison: Comparison, first: str, second: str) -> None:
    """Print how two networks compare, and whether chance explains it."""
    top1, loss = comparison.difference, comparison.loss_difference
    typer.echo(
        f"\ntop-1 {comparison.top1_first:.2%} of {first}, {comparison.top1_second:.2%} of {second}\n"
        f"difference {_points(top1.value)} points ({top1.confidence:.0%} interval {_points(top1.low)} to "
        f"{_points(top1.high)}), loss {loss.value:+.4f} ({loss.low:+.4f} to {loss.high:+.4f})\n"
        f"only the first is right on {comparison.only_first} images, only the second on "
        f"{comparison.only_second}: exact McNemar test, p = {comparison.p_value:.2g}"
    )


def print_sizes(found: Sequence[SizeScores]) -> None:
    """Print a line for each image size."""
    rows = [
        (
            f"{row.image_size} px",
            "" if row.macs is None else f"{row.macs / 1e9:.3f} G",
            f"{row.top1.value:.2%}",
            f"{row.top1.low:.1%} to {row.top1.high:.1%}",
            f"{row.scores.top5:.2%}",
            f"{row.scores.loss:.4f}",
        )
        for row in found
    ]
    interval = f"{found[0].top1.confidence:.0%} interval"
    print_table(("image size", "multiply-adds", "top-1", interval, "top-5", "loss"), rows)
    typer.echo(f"\n{found[0].scores.images} images")


def _print_classes(report: ClassReport) -> None:
    def line(row: ClassScores) -> tuple[str, ...]:
        return (row.name, f"{row.precision:.2%}", f"{row.recall:.2%}", f"{row.f1:.2%}", f"{row.support}")

    rows = list(report.classes)
    if len(rows) > _MOST_LINES:
        rows = sorted(rows, key=lambda row: row.f1)[:_WORST]
        typer.echo(f"the {_WORST} worst of {len(report.classes)} classes by F1; --json and --out have all\n")
    means = [line(report.macro), line(report.weighted)]
    print_table(("class", "precision", "recall", "F1", "images"), [*map(line, rows), ("",) * 5, *means])
    typer.echo("")


def _print_labels(report: LabelReport) -> None:
    def line(row: LabelScores) -> tuple[str, ...]:
        shares = (row.average_precision, row.precision, row.recall, row.f1)
        return (row.name, *(f"{share:.2%}" for share in shares), f"{row.support}")

    rows = list(report.classes)
    if len(rows) > _MOST_LINES:
        rows = sorted(rows, key=lambda row: row.average_precision)[:_WORST]
        typer.echo(
            f"the {_WORST} worst of {len(report.classes)} labels by average precision; --json has all\n"
        )
    means = [line(report.macro), line(report.micro), line(report.weighted)]
    columns = ("label", "average precision", "precision", "recall", "F1", "images")
    print_table(columns, [*map(line, rows), ("",) * 6, *means])
    typer.echo(
        f"\nmean average precision {report.macro.average_precision:.2%}; from probability "
        f"{report.threshold:g} on, all labels are right of {report.exact:.2%} of the images"
    )


def _print_confusions(confusions: Sequence[Confusion]) -> None:
    if not confusions:
        return
    rows = [
        (f"{pair.label} as {pair.predicted}", str(pair.images), f"{pair.share:.1%}")
        for pair in confusions[:_MOST_PAIRS]
    ]
    print_table(("most confused", "images", "of the class"), rows)
    typer.echo("")


def _print_calibration(result: Calibration) -> None:
    from effnet.evaluation.temperature import HIGHEST, LOWEST

    found = f"temperature of the logits {result.temperature:.3f}"
    if not LOWEST < result.temperature < HIGHEST:
        found += " (the limit: the answers are all right, or say nothing)"
    if result.ece_after is not None:
        found += f"; divided by it: error {result.ece_after:.2%}, loss {result.loss_after:.4f} (cross-fitted)"
    typer.echo(f"calibration error {result.ece:.2%}, {found}")


def _print_totals(scores: AnyScores, top1: Interval | None) -> None:
    from effnet.evaluation.metrics import Scores

    if not isinstance(scores, Scores):
        typer.echo(
            f"PR-AUC {scores.pr_auc:.4f} (within {scores.pr_auc_error:.1g}), "
            f"precision@1 {scores.precision_at_1:.2%}, precision@5 {scores.precision_at_5:.2%}, "
            f"recall@1 {scores.recall_at_1:.2%}, recall@5 {scores.recall_at_5:.2%}"
        )
    between = f" ({top1.confidence:.0%} interval {top1.low:.2%} to {top1.high:.2%})" if top1 else ""
    typer.echo(
        f"top-1 {scores.top1:.2%}{between}, top-5 {scores.top5:.2%}, loss {scores.loss:.4f}, "
        f"{scores.images} images"
    )
    if scores.bad_images:
        typer.echo(f"{scores.bad_images} unreadable images were left out")


def _points(share: float) -> str:
    return f"{100 * share:+.2f}"
