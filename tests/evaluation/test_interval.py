import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from effnet.errors import UserError
from effnet.evaluation.class_report import report_of
from effnet.evaluation.interval import METRICS, interval, interval_of, mean_interval


def share_covered(draw_interval, truth, *, trials):
    rng = np.random.default_rng(0)
    intervals = [draw_interval(rng) for _ in range(trials)]
    return np.mean([found.low <= truth <= found.high for found in intervals])


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_of_an_accuracy_cover_at_the_stated_rate(confidence):
    """150 trials: four standard errors are 0.13 and 0.07; benchmarks/interval_coverage.py has more."""
    covered = share_covered(
        lambda rng: mean_interval(
            (rng.random(200) < 0.85).astype(float), bounds=(0, 1), confidence=confidence, resamples=300
        ),
        0.85,
        trials=150,
    )
    assert abs(covered - confidence) < 4 * np.sqrt(confidence * (1 - confidence) / 150)


def test_intervals_of_a_skewed_mean_cover_at_the_stated_rate():
    covered = share_covered(
        lambda rng: mean_interval(rng.exponential(size=150), resamples=300), 1.0, trials=150
    )
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 150)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_an_interval_is_near_that_of_the_binomial_distribution(draw_answers, confidence):
    answers = draw_answers(400)
    found = interval(answers, confidence=confidence)
    right = int((answers.logits.argmax(1) == answers.labels).sum())
    expected = binomtest(right, 400).proportion_ci(confidence, method="wilson")
    assert found.value == right / 400
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_with_many_images_percentiles_are_as_good(draw_answers, monkeypatch):
    answers = draw_answers(600)
    accelerated = interval(answers)
    monkeypatch.setattr("effnet.evaluation.interval.MOST_ACCELERATED", 0)
    plain = interval(answers)
    assert (plain.low, plain.high) == pytest.approx((accelerated.low, accelerated.high), abs=0.006)


@pytest.mark.parametrize("metric", METRICS)
def test_the_score_lies_in_its_interval(draw_answers, metric):
    answers = draw_answers(80, 7)
    found = interval(answers, metric, resamples=200)
    assert found.low < found.value < found.high
    assert found == interval(answers, metric, resamples=200)


def test_scores_are_those_of_the_report(draw_answers):
    answers = draw_answers(80, 7)
    report = report_of(answers)
    assert interval(answers, "macro_f1", resamples=50).value == pytest.approx(report.macro.f1)
    assert interval(answers, "macro_recall", resamples=50).value == pytest.approx(report.macro.recall)


def test_a_class_that_a_resample_lacks_is_left_out_of_its_mean(make_answers):
    from effnet.evaluation.interval import _macro

    answers = make_answers(np.eye(3)[[0, 1, 1, 2]], [0, 1, 0, 2])
    rows = np.array([[0, 1, 2, 2], [3, 3, 3, 3]])
    expected = [
        f1_score(
            answers.labels[row],
            answers.logits.argmax(1)[row],
            labels=np.unique(answers.labels[row]),
            average="macro",
        )
        for row in rows
    ]
    np.testing.assert_allclose(_macro(answers, "macro_f1")(rows), expected)


@pytest.mark.parametrize("metric", ["top1", "macro_f1", "macro_recall"])
def test_answers_that_are_all_right_are_not_certain(make_answers, metric):
    found = interval(make_answers(np.eye(2)[[0, 1] * 20], [0, 1] * 20), metric)
    exact = binomtest(40, 40).proportion_ci(method="exact")
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(exact.low)
    wrong = interval(make_answers(np.eye(2)[[0, 1] * 20], [1, 0] * 20), metric)
    assert (wrong.low, wrong.high) == pytest.approx((0.0, 1 - exact.low))


def test_one_image_has_an_interval(make_answers):
    one = make_answers([[2.0, 1.0]], [0])
    assert (interval(one).low, interval(one).high) == (pytest.approx(0.025), 1.0)
    assert interval(one, "loss").low == interval(one, "loss").high


def test_a_score_that_never_varies_has_an_interval_of_no_width():
    found = interval_of(lambda rows: np.full(rows.shape[:-1], 0.5), 10, resamples=20)
    assert (found.low, found.high) == (0.5, 0.5)


def test_mistakes_are_told(draw_answers, make_answers):
    with pytest.raises(UserError, match="above 0 and below 1, got 95"):
        interval(draw_answers(), confidence=95)
    with pytest.raises(UserError, match="several labels"):
        interval(make_answers([[1.0, 0.0]], [[0, 1]]))
