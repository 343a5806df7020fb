import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from effnet.evaluation.metrics import judge
from effnet.evaluation.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, scaled_by


def loss(answers, temperature):
    logits = torch.from_numpy(answers.logits.astype(np.float64)) / temperature
    return judge(logits, torch.from_numpy(answers.labels), answers.output)[:, 2].mean().item()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), output=st.sampled_from(["softmax", "sigmoid"]))
def test_no_other_temperature_has_a_smaller_loss(draw_answers, seed, output):
    answers = draw_answers(50, 3, seed, output=output)
    best = minimize_scalar(
        lambda log: loss(answers, np.exp(log)), bounds=np.log((LOWEST, HIGHEST)), method="bounded"
    )
    assert loss(answers, fit_temperature(answers)) <= best.fun + 1e-9


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_a_known_temperature_is_found(make_answers, temperature, output):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, size=(6000, 3))
    if output == "softmax":
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = (probabilities.cumsum(1) > rng.random((6000, 1))).argmax(1)
    else:  # Of independent classes, those images that came to have exactly one.
        drawn = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
        logits, labels = logits[drawn.sum(1) == 1], drawn[drawn.sum(1) == 1].argmax(1)
    found = fit_temperature(make_answers(temperature * logits, labels, output=output))
    if output == "softmax":
        assert found == pytest.approx(temperature, rel=0.06)
    else:
        # That one class is true is known here and not to the sigmoid, so only the ratio is.
        plain = fit_temperature(make_answers(logits, labels, output=output))
        assert found / plain == pytest.approx(temperature, rel=1e-3)


def test_temperatures_have_limits(make_answers):
    right = make_answers(np.eye(3), [0, 1, 2])
    assert fit_temperature(right) == LOWEST
    assert fit_temperature(make_answers(-np.eye(3), [0, 1, 2])) == HIGHEST
    assert fit_temperature(make_answers([[float("nan"), 1.0]], [0])) == 1.0


def test_no_image_has_a_part_in_its_own_temperature(draw_answers):
    answers = draw_answers(20)
    before = cross_fitted(answers, seed=3)
    changed = answers.logits.copy()
    changed[7] = [50, -50, 0, 0]
    after = cross_fitted(answers.with_logits(changed), seed=3)
    assert after[7] == before[7]
    assert 0 < (after != before).sum() < 20


def test_each_image_may_have_its_own_temperature(draw_answers):
    answers = draw_answers(5)
    each = np.arange(1.0, 6.0)
    np.testing.assert_allclose(scaled_by(answers, each).logits, answers.logits / each[:, None], rtol=1e-6)
    np.testing.assert_allclose(scaled_by(answers, 2.0).logits, answers.logits / 2)
