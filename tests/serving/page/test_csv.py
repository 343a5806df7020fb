"""The results as a file for spreadsheets."""

from __future__ import annotations

import csv
import io
import json

import pytest
from playwright.sync_api import expect


def download(page):
    with page.expect_download() as started:
        page.get_by_role("button", name="Download CSV").click()
    assert started.value.suggested_filename == "predictions.csv"
    text = started.value.path().read_bytes().decode("utf-8")
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def test_the_file_holds_every_answer_and_every_error(page, image, add):
    names = ['a, "b".png', "=1+1.png", "@home.png", "-x.png", "ü.png"]
    add(*(image("teal", name) for name in names))
    add({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"text"})
    rows = download(page)
    assert [row["image"] for row in rows] == [
        "notes.txt",
        names[0],
        "'=1+1.png",
        "'@home.png",
        "'-x.png",
        "ü.png",
    ]
    assert {row["model"] for row in rows} == {"right"}
    assert rows[0]["error"] == "This is not an image, but text/plain."
    assert rows[0]["class_1"] == ""
    for row in rows[1:]:
        assert row["class_1"] == "teal"
        assert row["error"] == ""
        assert sum(float(row[f"probability_{rank}"]) for rank in (1, 2, 3)) == pytest.approx(1, abs=1e-5)
    assert "agree" not in rows[0]


def test_a_comparison_has_a_row_for_each_network(page, image, add):
    add(image("amber"), image("teal"))
    page.get_by_label("Compare with").select_option("wrong")
    expect(page.locator("#progress")).to_be_hidden()
    rows = [(row["image"], row["model"], row["class_1"], row["agree"]) for row in download(page)]
    assert rows == [
        ("amber.png", "right", "amber", "no"),
        ("amber.png", "wrong", "violet", "no"),
        ("teal.png", "right", "teal", "yes"),
        ("teal.png", "wrong", "teal", "yes"),
    ]


def test_an_image_that_waits_has_a_row_that_says_so(page, image):
    page.route("**/v1/predict", lambda route: None)
    page.set_input_files("#files", [image("teal")])
    expect(page.locator("#progress")).to_be_visible()
    assert [row["error"] for row in download(page)] == ["not answered yet"]


def test_a_text_is_read_back_and_is_no_formula(page):
    texts = ["=1", "+1", "-1", "@a", "\tx", "\rx", "a,b", 'say "a"', "two\nlines", "plain", ""]
    rows = [[text, -0.5, "end"] for text in texts]
    made = page.evaluate(f"import('/csv.js').then((csv) => csv.toCsv({json.dumps(rows)}))")
    assert made.endswith("\r\n")
    for text, row in zip(
        texts, csv.reader(io.StringIO(made.removeprefix("\ufeff"), newline="")), strict=True
    ):
        cell, number, end = row
        assert cell.removeprefix("'") == text
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert (number, end) == ("-0.5", "end")
