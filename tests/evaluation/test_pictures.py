import numpy as np
import pytest

from effnet.evaluation.calibration import calibration
from effnet.evaluation.interval import Interval
from effnet.evaluation.pictures import draw_confusion, draw_reliability, draw_sizes, save_picture


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_cells_have_numbers_and_sides_names():
    axes = draw_confusion(np.array([[5, 2], [0, 3]]), ("rose", "tulip")).axes[0]
    assert texts(axes) == ["5", "2", "3"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["rose", "tulip"]
    assert axes.get_title() == "8 of 10 right, colours are shares of the true class"


def test_colours_are_shares_of_the_true_class():
    axes = draw_confusion(np.array([[6, 2], [0, 1]]), ("rose", "tulip")).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])


def test_classes_that_nobody_meant_are_left_out():
    axes = draw_confusion(np.diag([3, 0, 4]), ("a", "b", "c")).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "c"]


@pytest.mark.parametrize(("classes", "has_names"), [(40, True), (120, False)])
def test_many_classes_have_no_numbers_and_at_last_no_names(classes, has_names):
    axes = draw_confusion(np.eye(classes, dtype=np.int64), [f"class {i}" for i in range(classes)]).axes[0]
    assert texts(axes) == []
    assert ("class 7" in [tick.get_text() for tick in axes.get_yticklabels()]) == has_names


def test_reliability_shows_both_errors_and_all_images(draw_answers):
    answers = draw_answers(200)
    found = calibration(answers)
    axes, counts = draw_reliability(found).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [
        f"as it is: error {found.ece:.2%}",
        f"temperature {found.temperature:.3g}: error {found.ece_after:.2%}",
    ]
    assert sum(bar.get_height() for bar in counts.patches) == 400
    points = axes.collections[0].get_offsets()
    np.testing.assert_allclose(points, [(part.confidence, part.accuracy) for part in found.bins])


def test_one_image_has_a_picture(make_answers, tmp_path):
    save_picture(draw_reliability(calibration(make_answers([[1.0, 0.0]], [0]))), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_name_the_best():
    top1 = [Interval(value=value, low=value - 0.05, high=value, confidence=0.9) for value in (0.8, 0.9, 0.85)]
    axes = draw_sizes([160, 192, 224], top1).axes[0]
    assert axes.get_title(loc="right") == "best 90.00% at 192 px"
    assert "90% interval" in axes.get_ylabel()
