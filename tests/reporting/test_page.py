import base64
import io
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from effnet.api import run_data
from effnet.reporting import measured, page, report
from effnet.reporting.facts import read_runs
from effnet.reporting.missing import Missing
from effnet.reporting.mistakes import Mistake, Mistakes
from effnet.reporting.page import render, write_page
from effnet.reporting.pictures import data_uri
from effnet.reporting.report import collect_report
from effnet.reporting.samples import stage_samples

from ..pages import Page
from .conftest import EVIL

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECTIONS = (
    "What was run, and how to run it again",
    "Stage schedule",
    "Training",
    "Where the time went",
    "Classes",
    "Confusion",
    "Calibration",
    "Worst mistakes",
    "What the network saw",
    "Environment",
)


@pytest.fixture(scope="module")
def one(finished):
    return collect_report([finished], device="cpu")


@pytest.fixture(scope="module")
def two(finished, another):
    return collect_report([finished, another], device="cpu")


@pytest.fixture
def no_charts(monkeypatch):
    """Leave out what takes most of the time, where it is not what a test is about."""
    for name in ("schedule_charts", "training_charts", "speed_charts"):
        monkeypatch.setattr(report, name, lambda runs: ())


def test_all_sections_of_a_finished_run_are_there(one):
    shown = Page(render(one))
    assert one.missing == ()
    for title in SECTIONS:
        assert title in shown.text
    assert not [attributes for attributes in shown.of("p") if attributes.get("class") == "missing"]
    scores = one.runs[0].measured.scores
    assert f"top-1 {100 * scores.top1:.1f} %" in shown.text
    assert f"effnet train --recipe {one.runs[0].facts.path}/config.toml" in shown.text


def test_the_numbers_are_what_training_found(one):
    run = one.runs[0]
    assert run.measured.scores.top1 == run.facts.best.top1
    assert run.measured.scores.loss == pytest.approx(run.facts.best.loss, rel=1e-6)


def test_names_are_escaped(one):
    text = render(one)
    assert EVIL not in text
    assert "<script" not in text
    assert EVIL in Page(text).text  # As text, where it is read.


def test_the_page_fetches_nothing_and_runs_nothing(one):
    text = render(one)
    shown = Page(text)
    tags = {tag for tag, _ in shown.tags}
    assert not tags & {"script", "iframe", "object", "embed", "audio", "video", "base", "form"}
    for _, attributes in shown.tags:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (name, value)
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    policies = [one["content"] for one in shown.of("meta") if one.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_pictures_can_be_decoded_and_have_words(one):
    pictures = Page(render(one)).of("img")
    assert pictures
    for attributes in pictures:
        head, _, data = attributes["src"].partition(",")
        assert head in {"data:image/jpeg;base64", "data:image/png;base64"}
        Image.open(io.BytesIO(base64.b64decode(data))).load()
        assert attributes["alt"]
    assert all(attributes["aria-label"] for attributes in Page(render(one)).of("svg"))


def test_ids_that_links_go_to_are_there(two):
    shown = Page(render(two))
    ids = {attributes.get("id") for _, attributes in shown.tags}
    assert {attributes["href"].removeprefix("#") for attributes in shown.of("a")} <= ids


def test_every_stage_has_samples(one):
    titles = [stage.title for stage in one.runs[0].samples]
    assert titles == ["Photos", "Stage 1 of 2", "Stage 2 of 2"]
    assert [stage.width for stage in one.runs[0].samples] == [1.0, 0.5, 1.0]
    assert all(len(stage.samples) == 6 for stage in one.runs[0].samples)


def test_of_many_stages_eight_are_shown(finished):
    (facts,) = read_runs([finished])
    first = facts.schedule.stages[0]
    stages = tuple(
        replace(first, stage=number, start_step=number, end_step=number + 1, image_size=8 + number)
        for number in range(12)
    )
    many = replace(facts, schedule=replace(facts.schedule, stages=stages))
    shown = stage_samples(many, run_data(finished), photos=2)
    assert [stage.title for stage in shown] == ["Photos", *["One of 12 stages"] * 8]
    assert shown[-1].settings[0] == "19 px"


def test_a_run_without_weights_has_the_rest(unfinished):
    found = collect_report([unfinished], device="cpu")
    reason = "it has not been evaluated in training yet, so it has no weights to ask"
    assert found.missing == (f"unfinished: {reason}",)
    shown = Page(render(found))
    assert f"Its answers are not in this report: {reason}." in shown.text
    assert shown.text.count(f"{reason.capitalize()}.") == 4  # One in each section.
    assert "not finished" in shown.text
    assert "Image size, px" in shown.text
    assert "Stage 2 of 2" in shown.text


def test_a_run_whose_photos_moved_has_the_rest(moved):
    found = collect_report([moved], device="cpu")
    assert isinstance(found.runs[0].samples, Missing)
    shown = Page(render(found))
    assert "Its images cannot be had: '" in shown.text
    assert "does not exist" in shown.text
    assert "top-1, in training" in shown.text
    assert "Validation top-1" in shown.text


def test_a_run_whose_photos_are_others_has_the_rest(finished, copy, workspace, tmp_path, no_charts):
    run = copy(finished)
    photos = shutil.copytree(workspace / "photos", tmp_path / "photos")
    (photos / "blue" / "0.png").unlink()
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace(str(workspace / "photos"), str(photos)))
    assert "the data is not what this run began with" in collect_report([run]).missing[0]


def test_a_run_before_its_first_record_has_what_there_is(unfinished):
    (unfinished / "metrics.jsonl").write_text("")
    shown = Page(render(collect_report([unfinished], device="cpu")))
    assert "Nothing has been written to the journal yet." in shown.text


def test_setbacks_are_told(finished, copy):
    run = copy(finished)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "failed_step": 4, "setback": "the loss is nan at step <4>"}\n')
    found = collect_report([run], evaluates=False)
    assert found.runs[0].facts.setbacks == ("the loss is nan at step <4>",)
    assert "the loss is nan at step <4>" in Page(render(found)).text


def test_more_classes_than_a_matrix_has_room_for_are_said(one, monkeypatch):
    monkeypatch.setattr(measured, "_MOST_IN_MATRIX", 2)
    run = one.runs[0]
    few = replace(run.measured, one_label=measured._of_one_label(run.measured.answers))
    assert few.one_label.matrix is None
    shown = Page(render(replace(one, runs=(replace(run, measured=few),)))).text
    assert "There are 3 classes, too many for a matrix." in shown


def test_damaged_weights_are_said(finished, copy, no_charts):
    run = copy(finished)
    (run / "checkpoints" / "best.safetensors").write_bytes(b"nothing")
    found = collect_report([run], device="cpu")
    assert any("best.safetensors" in reason for reason in found.missing)
    assert "Stage schedule" in render(found)


def test_without_evaluation_nothing_is_asked(finished, no_charts):
    found = collect_report([finished], evaluates=False)
    assert found.runs[0].measured == Missing("not evaluated, as --no-evaluate was given")
    assert "Stage 2 of 2" in render(found)


def test_two_runs_are_side_by_side(two):
    shown = Page(render(two))
    assert "2 runs side by side finished another network tiny tiny recipe scratch scratch" in shown.text
    differences = shown.section("Differences in configuration", "Stage schedule")
    for line in ("train.epochs 2 1", "train.seed 0 1"):
        assert line in differences
    compared = shown.section("Paired comparison", "mean of the classes")
    assert "finished \N{MINUS SIGN} another 6" in compared
    assert len(two.schedule) == len({chart.title for chart in two.schedule})
    for chart in two.training:
        assert "var(--series0)" in chart.svg
        assert "var(--series1)" in chart.svg


def test_runs_on_other_images_are_not_compared(finished, several_labels, no_charts):
    found = collect_report([finished, several_labels], device="cpu")
    assert isinstance(found.pairs[0].comparison, Missing)
    assert f"finished and several: {found.pairs[0].comparison.reason}." in Page(render(found)).text


def test_one_missing_run_leaves_the_other_as_it_is(finished, moved, no_charts):
    found = collect_report([moved, finished], device="cpu")
    assert not isinstance(found.runs[1].measured, Missing)
    assert isinstance(found.pairs[0].comparison, Missing)
    assert "does not exist" in Page(render(found)).text


def test_images_with_several_labels_have_the_sections_that_make_sense(several_labels, no_charts):
    found = collect_report([several_labels], device="cpu")
    shown = Page(render(found))
    assert found.missing == ()
    assert "PR-AUC" in shown.text
    assert "there is no confusion matrix" in shown.text
    assert "there is no calibration of the first answer" in shown.text
    assert "Worst mistakes" in shown.text


def test_a_page_that_would_be_too_large_has_fewer_pictures(one, monkeypatch, tmp_path):
    """Noise is what JPEG saves least on."""
    uri = data_uri(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    run = one.runs[0]
    stages = tuple(
        replace(stage, samples=(replace(stage.samples[0], image=uri),) * 8) for stage in run.samples
    )
    mistake = Mistake(
        name="a", labels=("b",), predicted="c", probability=1.0, label_probability=0.0, image=uri, heat=uri
    )
    mistakes = Mistakes(count=9, worst=(mistake,) * 8, heat_reason="")
    full = replace(one, runs=(replace(run, samples=stages, mistakes=mistakes),))

    def pictures(limit):
        monkeypatch.setattr(page, "LARGEST_BYTES", limit)
        size = write_page(tmp_path / "page.html", full)
        assert size == (tmp_path / "page.html").stat().st_size < limit
        return Page((tmp_path / "page.html").read_text()).of("img")

    assert len(pictures(15_000_000)) == 3 * 8 + 2 * 8
    everything = (tmp_path / "page.html").stat().st_size
    assert len(pictures(everything)) == 3 * 4 + 2 * 4
    assert len(pictures(everything - 33 * len(uri))) == 3 + 2
    assert pictures(everything - 39 * len(uri)) == []
    text = Page((tmp_path / "page.html").read_text()).text
    assert "9 of 6 answers are wrong; their pictures would make this page too large." in text


def test_the_style_knows_light_dark_phone_and_print():
    style = page._source("page.css")
    for part in ("prefers-color-scheme: dark", "max-width: 640px", "@media print"):
        assert part in style
    defined = set(re.findall(r"--([a-z0-9]+):", style))
    assert {f"series{number}" for number in range(8)} | {"text", "quiet", "line", "shade"} <= defined


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")
def test_a_browser_requests_the_file_alone(two, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path / "page.html"
    write_page(path, two)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width in (1280, 390):
            opened = browser.new_page(viewport={"width": width, "height": 900})
            requests, said = [], []
            opened.on("request", lambda request, to=requests: to.append(request.url))
            opened.on("console", lambda message, to=said: to.append(message.text))
            opened.on("pageerror", lambda error, to=said: to.append(str(error)))
            opened.goto(path.as_uri())
            wide = opened.evaluate("document.documentElement.scrollWidth")
            broken = opened.evaluate("[...document.images].filter(image => !image.naturalWidth).length")
            assert {url for url in requests if not url.startswith("data:")} == {path.as_uri()}
            assert said == []
            assert wide == width  # Nothing reaches beyond the page.
            assert broken == 0
        browser.close()
