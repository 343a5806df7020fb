import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from effnet.errors import UserError
from effnet.evaluation.label_report import label_report_of, truth_of


def draw_several(make_answers, images, classes, seed, output="sigmoid"):
    rng = np.random.default_rng(seed)
    truth = rng.random((images, classes)) < 0.4
    truth[np.arange(images), rng.integers(classes, size=images)] = True
    labels = np.full((images, classes), -1)
    for row, of_image in zip(labels, truth, strict=True):
        found = rng.permutation(np.flatnonzero(of_image))
        row[: len(found)] = found
    logits = rng.normal(size=truth.shape) + 2 * truth - 1
    return make_answers(logits, labels, output=output), truth


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 30),
    classes=st.integers(1, 5),
    threshold=st.sampled_from([0.3, 0.5, 0.8]),
)
def test_numbers_are_those_of_scikit_learn(make_answers, seed, images, classes, threshold):
    answers, truth = draw_several(make_answers, images, classes, seed)
    report = label_report_of(answers, threshold=threshold)
    np.testing.assert_array_equal(truth_of(answers), truth)
    present = np.flatnonzero(truth.any(0))
    probabilities = answers.probabilities
    said = probabilities >= threshold
    assert [row.name for row in report.classes] == [answers.class_names[index] for index in present]
    for row, index in zip(report.classes, present, strict=True):
        pair = truth[:, index], said[:, index]
        assert row.support == truth[:, index].sum()
        assert row.average_precision == pytest.approx(
            average_precision_score(truth[:, index], probabilities[:, index])
        )
        assert row.precision == pytest.approx(precision_score(*pair, zero_division=0))
        assert row.recall == pytest.approx(recall_score(*pair, zero_division=0))
        assert row.f1 == pytest.approx(f1_score(*pair, zero_division=0))
    assert report.macro.average_precision == pytest.approx(
        np.mean([row.average_precision for row in report.classes])
    )
    assert report.macro.f1 == pytest.approx(np.mean([row.f1 for row in report.classes]))
    every = truth[:, present].ravel(), said[:, present].ravel()
    assert report.micro.f1 == pytest.approx(f1_score(*every, zero_division=0))
    assert report.micro.average_precision == pytest.approx(
        average_precision_score(every[0], probabilities[:, present].ravel())
    )
    assert report.exact == pytest.approx((truth == said).all(1).mean())


def test_images_with_one_label_each_may_be_measured_so_too(draw_answers):
    answers = draw_answers(30, 4)
    assert label_report_of(answers).macro.average_precision > 0.5


@pytest.mark.parametrize("threshold", [0, 1, 1.5])
def test_a_threshold_is_a_probability(draw_answers, threshold):
    with pytest.raises(UserError, match=f"above 0 and below 1, got {threshold}"):
        label_report_of(draw_answers(), threshold=threshold)
