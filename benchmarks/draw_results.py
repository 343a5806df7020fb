"""Draw everything in `benchmarks/results` as one page, and put the main figures into the documents.

    make results-page

The page, docs/benchmarks.html, fetches nothing, has no script, follows light and dark and fits a phone.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from results_page import gpu, input, racing, searching, serving, speed
from results_page.documents import for_readme, for_results, updated
from results_page.section import Section, read

from effnet.files import whole_file

HERE = Path(__file__).resolve().parent
KINDS = (
    (speed, "Training steps and answers on a processor", "make bench-cpu"),
    (racing, "Time to a stated accuracy", racing.COMMAND),
    (gpu, "Training steps and answers on a GPU", gpu.COMMAND),
    (input, "The input pipeline", "make bench-input DATA=photos"),
    (serving, "Predicting, serving and exported files", "python benchmarks/predict_speed.py RUN PHOTOS"),
    (searching, "Searches and ablations", "effnet search PHOTOS"),
)


def page(folder: Path) -> str:
    """Return the page of a folder of results."""
    sections: list[Section] = []
    missing = []
    for kind, name, command in KINDS:
        found = kind.sections(folder)
        sections += found
        if not found:
            missing.append((name, command))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["with_code"] = _with_code
    template = environment.from_string((HERE / "results_page" / "page.html").read_text(encoding="utf-8"))
    return template.render(
        sections=sections,
        missing=missing,
        style=Markup(files("effnet.reporting").joinpath("page.css").read_text(encoding="utf-8")),
        draw=lambda chart: Markup(" ".join(chart.svg.split())),
    )


def _with_code(text: str) -> Markup:
    """Return a sentence in which what stands between backticks is set as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else p for n, p in enumerate(parts))


def main() -> None:
    """Write the page, its picture and the tables of the documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--root", type=Path, default=HERE.parent, help="with README.md and docs")
    arguments = parser.parse_args()
    root, results = arguments.root, arguments.results
    written = {root / "docs" / "benchmarks.html": page(results)}
    for path, parts in (
        (root / "README.md", for_readme(results)),
        (root / "docs" / "results.md", for_results(results)),
    ):
        written[path] = updated(path.read_text(encoding="utf-8"), parts)
    for path, text in written.items():
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{path}: {len(text.encode()) / 1000:.0f} kB")
    report = read(results, speed.FILE)
    if report:
        speed.draw(report, root / "docs" / "images" / speed.PICTURE)


if __name__ == "__main__":
    main()
