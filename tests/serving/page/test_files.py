"""The files of the page: part of the package, small, and free of what its security policy forbids."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "src" / "effnet" / "serving" / "page"
FILES = sorted(PAGE.iterdir())


def test_the_page_is_part_of_the_package():
    assert '"serving/page/*"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short_and_names_no_other_site(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[\w.]+|//[\w-]+\.\w+/", text) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_texts_never_become_html_or_code(path):
    text = path.read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert re.findall(forbidden, text) == []
    if path.suffix == ".html":
        assert re.findall(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", text) == []


def test_every_file_is_loaded_by_the_page():
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    loaded = set(re.findall(r'(?:src|href)="([\w.]+)"', index))
    for path in PAGE.glob("*.js"):
        loaded |= set(re.findall(r'from "\./([\w.]+)"', path.read_text(encoding="utf-8")))
    assert loaded | {"index.html"} == {path.name for path in FILES}
