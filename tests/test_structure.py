"""The shape of the project: small files with names of their own, and nothing that ties it to one place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "effnet").rglob("*.py"))
LONGEST = 400

SKIPPED_FOLDERS = {"build", "dist", "runs", "node_modules", "__pycache__"}
TEXT = {".cfg", ".in", ".ini", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}

# Joined here, so that this file does not hold what it forbids.
REGISTRIES = [".".join(parts) for parts in (
    ("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org"), ("download", "pytorch", "org"),
)]  # fmt: skip
MACHINE_PATHS = ["/" + "work/", "/" + "tmp/e/", "/" + "root/"]


def project_texts() -> list[Path]:
    """Return what the project's author wrote; environments, caches and runs are left out."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and name not in SKIPPED_FOLDERS and not name.endswith(".egg-info")
        ]
        found += [Path(folder, name) for name in files if Path(name).suffix in TEXT]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_source_file_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_nothing_is_called_utils():
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_source_file_says_what_it_is_for():
    silent = [path.name for path in SOURCES if (text := path.read_text()) and not text.startswith('"""')]
    assert silent == []


@pytest.mark.parametrize("word", REGISTRIES + MACHINE_PATHS)
def test_no_file_names_a_package_registry_or_a_machine(word):
    texts = project_texts()
    assert ROOT / "pyproject.toml" in texts
    named = [str(path.relative_to(ROOT)) for path in texts if word in path.read_text(encoding="utf-8")]
    assert named == []


def test_recipes_are_part_of_the_package():
    from effnet.recipes import recipe_names

    files = {path.stem for path in (ROOT / "src" / "effnet" / "recipes").glob("*.toml")}
    assert files == set(recipe_names())
    assert '"recipes/*.toml"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
