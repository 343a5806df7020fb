import base64
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from effnet.evaluation.calibration import Bin, Calibration
from effnet.reporting.chart import SERIES, panel, series_colour, series_dash, thinned
from effnet.reporting.curves import constants, schedule_charts, speed_charts, training_charts
from effnet.reporting.facts import read_runs
from effnet.reporting.matrix import MOST_IN_TABLE, matrix_of
from effnet.reporting.missing import Missing
from effnet.reporting.pictures import LARGEST_PX, data_uri
from effnet.reporting.reliability import reliability_chart


def decoded(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_a_chart_is_well_formed_and_takes_its_colours_from_the_page():
    charts = []
    with panel(title="A < B", label='x & "y"', into=charts) as axes:
        for number in range(SERIES):
            axes.plot([0, 1], [number, 1], color=series_colour(number))
    root = ET.fromstring(charts[0].svg.replace("xlink:href", "href"))
    assert root.attrib["aria-label"] == 'A < B: x & "y"'
    assert {f"series{number}" for number in range(SERIES)} <= set(
        re.findall(r"var\(--(\w+)\)", charts[0].svg)
    )
    assert not re.findall(r"#0[12]00", charts[0].svg)
    assert "DejaVu" not in charts[0].svg
    assert "<metadata" not in charts[0].svg


def test_equal_charts_are_equal_text():
    charts = []
    for _ in range(2):
        own = []
        with panel(title="a", label="b", into=own) as axes:
            axes.plot([0, 1], [0, 1])
        charts += own
    assert charts[0] == charts[1]


def test_more_series_than_colours_have_dashes():
    styles = {(series_colour(number), str(series_dash(number))) for number in range(3 * SERIES)}
    assert len(styles) == 3 * SERIES


def test_a_line_of_many_points_keeps_its_mean_and_its_few_points():
    xs, ys = list(range(10_000)), [float(value % 7) for value in range(10_000)]
    short_xs, short_ys = thinned(xs, ys)
    assert len(short_xs) == len(short_ys) <= 600
    assert np.mean(short_ys) == pytest.approx(np.mean(ys), rel=0.01)
    assert thinned([1, 2], [3, 4]) == ([1, 2], [3, 4])


def test_what_changes_has_a_chart_and_what_does_not_has_words(finished):
    (facts,) = read_runs([finished])
    titles = [chart.title for chart in schedule_charts([facts])]
    assert titles[0] == "Image size, px"
    assert titles[-1] == "Learning rate, as planned"
    assert "RandAugment" in titles
    said = " ".join(constants([facts]))
    assert not any(title.lower() in said.lower() for title in titles)
    flat = replace(facts.schedule.stages[1], stage=0, start_step=0)
    single = replace(facts, schedule=replace(facts.schedule, stages=(flat,)))
    assert [chart.title for chart in schedule_charts([single])] == [titles[0], titles[-1]]
    assert any(words.startswith("RandAugment") for words in constants([single]))


def test_curves_say_in_words_from_where_to_where_they_go(finished):
    (facts,) = read_runs([finished])
    first, last = facts.evaluations[0].top1, facts.evaluations[-1].top1
    by_title = {chart.title: chart for chart in training_charts([facts])}
    assert f"finished from {first:.1%} to {last:.1%}" in by_title["Validation top-1"].svg
    assert "16 px" in by_title["Validation top-1"].svg  # The stages are marked.
    assert [chart.title for chart in speed_charts([facts])] == [
        "Images a second",
        "Time spent waiting for images",
    ]


def test_runs_without_schedule_or_records_are_left_out(finished):
    (facts,) = read_runs([finished])
    unknown = replace(facts, schedule=Missing("gone"), metrics=())
    assert schedule_charts([unknown]) == training_charts([unknown]) == constants([unknown]) == ()
    assert len(training_charts([unknown, facts])) == 3


def test_a_small_matrix_is_a_table_whose_worst_mistake_is_seen_best():
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 10]])
    matrix = matrix_of(counts, ["a", "b", "c"])
    assert [[cell.images for cell in row] for row in matrix.rows] == counts.tolist()
    assert [[cell.is_right for cell in row] for row in matrix.rows] == np.eye(3, dtype=bool).tolist()
    assert matrix.rows[0][1].strength == matrix.rows[2][2].strength == 50
    assert matrix.rows[1][0].strength < matrix.rows[0][1].strength
    assert matrix.picture == ""


def test_a_matrix_without_a_mistake_or_an_image_is_a_table_too():
    assert matrix_of(np.diag([3, 4]), ["a", "b"]).rows[0][1].images == 0
    assert matrix_of(np.zeros((2, 2), np.int64), ["a", "b"]).rows[1][1].images == 0


@pytest.mark.parametrize("classes", [MOST_IN_TABLE + 1, 1000])
def test_a_large_matrix_is_a_picture_in_which_single_mistakes_are_seen(classes):
    counts = np.diag(np.full(classes, 50))
    counts[1, classes - 1] = 10
    matrix = matrix_of(counts, [str(index) for index in range(classes)])
    assert matrix.rows == ()
    pixels = np.array(decoded(matrix.picture))
    assert max(pixels.shape) <= 500
    right, wrong = pixels[-1, -1], pixels[1 * len(pixels) // classes, -1]
    assert right[2] > right[0]  # Blue.
    assert wrong[0] > wrong[2]  # Orange.
    assert wrong[3] > 80
    assert pixels[-1, 0, 3] == 0


def test_pictures_are_shrunk_to_what_a_page_shows():
    wide = decoded(data_uri(np.zeros((100, 1000, 3), np.uint8)))
    assert wide.size == (LARGEST_PX, LARGEST_PX // 10)
    small = np.random.default_rng(0).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    assert np.array_equal(np.array(decoded(data_uri(small, "PNG"))), small)


def test_the_reliability_chart_says_its_bins():
    bins = tuple(
        Bin(lower=low, upper=low + 0.5, images=10, accuracy=0.4 + low, confidence=low + 0.25)
        for low in (0.0, 0.5)
    )
    chart = reliability_chart(
        Calibration(
            ece=0.15, bins=bins, loss=1.0, temperature=1.0, ece_after=None, bins_after=(), loss_after=None
        )
    )
    assert "expected calibration error 15.0%" in chart.svg
    assert "90% of 10 answers right at a confidence of 75%" in chart.svg
