import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import UserError
from effnet.evaluation.calibration import calibration, calibration_error, reliability


def naive_error(probabilities, labels, bins):
    """Equations 2 and 3 of 1706.04599, one image at a time."""
    total = 0.0
    for number in range(bins):
        inside = [
            (row.max(), float(row.argmax() == label))
            for row, label in zip(probabilities, labels, strict=True)
            if number / bins < row.max() <= (number + 1) / bins
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 40),
    bins=st.integers(1, 20),
    output=st.sampled_from(["softmax", "sigmoid"]),
)
def test_the_error_is_that_of_its_definition(draw_answers, seed, images, bins, output):
    answers = draw_answers(images, 4, seed, output=output)
    expected = naive_error(answers.probabilities, answers.labels, bins)
    assert calibration(answers, bins=bins).ece == pytest.approx(expected, abs=1e-6)


def test_bins_tell_accuracy_and_confidence(make_answers):
    logits = np.log([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    lower, upper = reliability(make_answers(logits, [0, 1, 1]), bins=4)
    assert (lower.lower, lower.upper, lower.images, lower.accuracy) == (0.5, 0.75, 1, 1.0)
    assert (upper.lower, upper.upper, upper.images, upper.accuracy) == (0.75, 1.0, 2, 0.5)
    assert [lower.confidence, upper.confidence] == pytest.approx([0.6, 0.85])
    assert calibration_error((lower, upper)) == pytest.approx((0.4 + 2 * 0.35) / 3)


def test_a_confidence_between_two_bins_is_in_the_lower_one(make_answers):
    (only,) = reliability(make_answers([[0.0, 0.0]], [0]), bins=4)
    assert (only.lower, only.upper, only.accuracy) == (0.25, 0.5, 0.0)


def test_confidence_one_is_in_the_last_bin(make_answers):
    (only,) = reliability(make_answers([[200.0, -200.0]], [0]), bins=10)
    assert (only.lower, only.upper, only.images) == (0.9, 1.0, 1)


def test_an_overconfident_network_gets_better_and_its_temperature_is_above_one(make_answers):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, size=(4000, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) > rng.random((4000, 1))).argmax(1)
    result = calibration(make_answers(3 * logits, labels))
    assert result.temperature == pytest.approx(3, rel=0.05)
    assert result.ece > 0.15
    assert result.ece_after < 0.03
    assert result.loss_after < result.loss
    assert sum(part.images for part in result.bins_after) == 4000


def test_what_is_reported_after_is_not_measured_with_what_was_fitted_on_it(draw_answers):
    """Of noise, a temperature that was fitted on the images themselves lowers their loss; of others it
    cannot."""
    from effnet.evaluation.temperature import fit_temperature, scaled_by

    answers = draw_answers(12, 3, seed=5, sharpness=0.0)
    in_sample = calibration(scaled_by(answers, fit_temperature(answers))).loss
    assert calibration(answers).loss_after > in_sample


def test_one_image_has_no_cross_fitted_error(make_answers):
    result = calibration(make_answers([[1.0, 0.0]], [0]))
    assert (result.ece_after, result.bins_after, result.loss_after) == (None, (), None)
    assert result.loss == pytest.approx(math.log(1 + math.exp(-1)))


def test_there_must_be_a_bin(draw_answers):
    with pytest.raises(UserError, match="at least one bin, got 0"):
        calibration(draw_answers(), bins=0)


def test_a_calibration_can_be_written_as_json(draw_answers):
    document = json.loads(json.dumps(calibration(draw_answers()).to_dict(), allow_nan=False))
    assert document["bins"][0].keys() == {"lower", "upper", "images", "accuracy", "confidence"}
