"""A report as one HTML file that needs nothing else: pictures and style are in it, and there is no script."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from effnet.evaluation.class_report import ClassReport, ClassScores
from effnet.evaluation.multilabel import MultiLabelScores
from effnet.files import whole_file
from effnet.reporting import wording
from effnet.reporting.chart import Chart
from effnet.reporting.matrix import matrix_of
from effnet.reporting.missing import Missing
from effnet.reporting.report import Report
from effnet.reporting.table import cells, row_of

LARGEST_BYTES = 15_000_000
"""What a page stays below, whatever is in its pictures."""
_SHARES = (1.0, 0.5, 0.25, 0.125, 0.0)
"""Of the pictures, tried in turn until the page is small enough."""
_CLASSES_SHOWN = 60
_ENVIRONMENT = {
    "started": "started",
    "effnet": "effnet",
    "git_commit": "commit",
    "torch": "torch",
    "python": "Python",
    "platform": "system",
    "cpu_model": "processor",
    "cpu_count": "processors",
    "devices": "GPUs",
}
"""What the page shows of `effnet.training.journal.environment`, and how it calls that."""


def write_page(path: Path, report: Report) -> int:
    """Write a report as an HTML page of bounded size.

    Args:
        path: Replaced as a whole; its folder must exist.
        report: What to show.

    Returns:
        The size of the file in bytes.

    Raises:
        OSError: The file cannot be written.
    """
    text = render(report)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path.stat().st_size


def render(report: Report) -> str:
    """Return a report as HTML; every name is escaped, and nothing is fetched.

    Where all of its pictures would make it too large, it has fewer of them.
    """
    for share in _SHARES:
        text = _rendered(report if share == 1.0 else report.with_pictures(share))
        if len(text.encode()) < LARGEST_BYTES:
            break
    return text


def _rendered(report: Report) -> str:
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "number": wording.number,
        "counted": wording.counted,
        "duration": wording.duration,
        "range": lambda interval: wording.percents(interval.low, interval.high),
        "probability": wording.probability,
    }
    environment.tests |= {
        "missing": lambda value: isinstance(value, Missing),
        "multilabel": lambda value: isinstance(value, MultiLabelScores),
    }
    return environment.get_template("page.html").render(
        report=report,
        dash=wording.DASH,
        draw=_draw,
        matrix_of=matrix_of,
        shown_classes=_shown_classes,
        summary=_summary(report),
        environment_rows=_environment_rows(report),
    )


def _source(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _summary(report: Report) -> list[tuple[str, ...]]:
    """Return the table of ``effnet compare``, with a column a run."""
    lines = cells([row_of(run.facts, run.measured) for run in report.runs])
    return list(zip(*lines, strict=True))


def _draw(chart: Chart) -> Markup:
    return Markup(chart.svg)


def _shown_classes(report: ClassReport) -> tuple[ClassScores, ...]:
    """Return all classes in their order where they are few, else those that are found worst."""
    if len(report.classes) <= _CLASSES_SHOWN:
        return report.classes
    return tuple(sorted(report.classes, key=lambda scores: scores.f1)[:_CLASSES_SHOWN])


def _environment_rows(report: Report) -> list[tuple[str, list[str]]]:
    rows = [
        (title, [_in_words(run.facts.environment.get(key)) for run in report.runs])
        for key, title in _ENVIRONMENT.items()
    ]
    return [(title, values) for title, values in rows if any(value != wording.DASH for value in values)]


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return wording.DASH if value is None else str(value)
