import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effnet.errors import UserError
from effnet.evaluation.averaging import mean_answers, mean_logits


def probabilities(logits, output):
    return logits.sigmoid() if output == "sigmoid" else logits.softmax(-1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), output=st.sampled_from(["softmax", "sigmoid"]))
def test_the_mean_is_of_probabilities(seed, count, output):
    logits = 3 * torch.randn(count, 5, 4, generator=torch.Generator().manual_seed(seed))
    expected = probabilities(logits.double(), output).mean(0)
    found = probabilities(mean_logits(logits, output).double(), output)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_probabilities_that_are_nearly_zero_or_one_stay_finite(output):
    logits = torch.tensor([[[200.0, -200.0]], [[150.0, -150.0]]])
    assert mean_logits(logits, output).isfinite().all()


def test_an_ensemble_of_one_is_that_one(draw_answers):
    answers = draw_answers()
    assert mean_answers([answers]) is answers


def test_members_may_have_their_classes_in_another_order(draw_answers):
    first, second = draw_answers(sharpness=2.0), draw_answers(sharpness=0.5)
    turned = second.with_classes(second.class_names[::-1])
    together = mean_answers([first, turned])
    np.testing.assert_allclose(
        together.probabilities, (first.probabilities + second.probabilities) / 2, rtol=1e-5
    )
    np.testing.assert_array_equal(together.labels, first.labels)


def test_members_must_answer_the_same_question(draw_answers, make_answers):
    answers = draw_answers(6)
    with pytest.raises(UserError, match="4 and 5 classes, such as 'class 4' in one of them only"):
        mean_answers([answers, draw_answers(6, 5)])
    with pytest.raises(UserError, match="softmax and sigmoid"):
        mean_answers([answers, draw_answers(6, output="sigmoid")])
    with pytest.raises(UserError, match="the same images"):
        mean_answers([answers, draw_answers(5)])
