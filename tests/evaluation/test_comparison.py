import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effnet.errors import UserError
from effnet.evaluation.comparison import compare


def exact_mcnemar(only_first, only_second):
    """Twice the tail of a fair coin, as statsmodels' ``mcnemar(exact=True)`` has it."""
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1)) / 2**n
    return min(2 * tail, 1.0)


def pair(make_answers, both, first, second, neither):
    """Answers with so many images of each kind, one class being true of all."""
    right = (
        [1] * (both + first) + [0] * (second + neither),
        [1] * both + [0] * first + [1] * second + [0] * neither,
    )
    return tuple(make_answers([[2.0 * flag - 1, 0.0] for flag in flags], [0] * len(flags)) for flags in right)


@given(first=st.integers(0, 30), second=st.integers(0, 30))
def test_the_test_is_that_of_mcnemar(make_answers, first, second):
    result = compare(*pair(make_answers, 3, first, second, 2), resamples=10)
    assert result.p_value == pytest.approx(exact_mcnemar(first, second), rel=1e-9)
    assert (result.both_right, result.only_first, result.only_second, result.both_wrong) == (
        3,
        first,
        second,
        2,
    )


def test_the_difference_is_paired(make_answers):
    first, second = pair(make_answers, 180, 12, 4, 4)
    result = compare(first, second)
    assert (result.top1_first, result.top1_second) == (0.96, 0.92)
    assert result.difference.value == pytest.approx(0.04)
    # Of a mean of 12 times 1, 4 times -1 and 184 times 0: the normal approximation.
    error = 1.96 * math.sqrt((16 / 200 - 0.04**2) / 200)
    assert result.difference.low == pytest.approx(0.04 - error, abs=0.008)
    assert result.difference.high == pytest.approx(0.04 + error, abs=0.008)


def test_equal_networks_are_equal(draw_answers):
    result = compare(draw_answers(), draw_answers())
    assert (result.difference.value, result.loss_difference.value, result.p_value) == (0, 0, 1.0)
    assert result.difference.low < 0 < result.difference.high


def test_the_order_of_classes_does_not_matter(draw_answers):
    answers = draw_answers()
    turned = answers.with_classes(answers.class_names[::-1])
    result = compare(answers, turned)
    assert result.only_first == result.only_second == 0
    assert result.loss_difference.value == pytest.approx(0, abs=1e-7)


def test_the_loss_is_compared_too(draw_answers):
    good, bad = draw_answers(sharpness=3.0), draw_answers(sharpness=0.0)
    assert compare(good, bad, resamples=100).loss_difference.high < 0


def test_only_the_same_images_can_be_compared(draw_answers, make_answers):
    answers = draw_answers(6)
    with pytest.raises(UserError, match="got 6 and 5 images"):
        compare(answers, answers.subset(np.arange(5)))
    with pytest.raises(UserError, match="image 0 is image 0 for one and image 5 for the other"):
        compare(answers, answers.subset(np.arange(5, -1, -1)))
    labels = answers.labels.copy()
    labels[2] = (labels[2] + 1) % 4
    true, other = f"class {answers.labels[2]}", f"class {labels[2]}"
    with pytest.raises(UserError, match=f"image 2 has the class {true} for one and {other} for the other"):
        compare(answers, make_answers(answers.logits, labels))


def test_a_comparison_can_be_written_as_json(draw_answers):
    document = json.loads(json.dumps(compare(draw_answers(), draw_answers()).to_dict()))
    assert document["difference"].keys() == {"value", "low", "high", "confidence"}
