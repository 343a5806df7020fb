"""The shape of the project: small files with names of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "effnet").rglob("*.py"))
LONGEST = 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_source_file_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_nothing_is_called_utils():
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_source_file_says_what_it_is_for():
    silent = [path.name for path in SOURCES if (text := path.read_text()) and not text.startswith('"""')]
    assert silent == []


def test_recipes_are_part_of_the_package():
    from effnet.recipes import recipe_names

    files = {path.stem for path in (ROOT / "src" / "effnet" / "recipes").glob("*.toml")}
    assert files == set(recipe_names())
    assert '"recipes/*.toml"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
