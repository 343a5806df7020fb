import numpy as np
import pytest

from effnet.evaluation.answers import Answers
from effnet.export.parity import Parity, compare_logits, refusal, relative_differences
from effnet.export.settings import ExportSettings, Limits

LIMITS = Limits(difference=1e-4, agreement=0.9, drop=0.01)


def answers(logits, labels) -> Answers:
    logits = np.asarray(logits, np.float32)
    return Answers(
        class_names=("a", "b"),
        names=tuple(map(str, range(len(logits)))),
        indices=np.arange(len(logits)),
        labels=np.asarray(labels),
        logits=logits,
        output="softmax",
    )


def parity(**changes) -> Parity:
    good = {"images": 10, "difference": 1e-5, "agreement": 1.0, "top1": 0.9, "network_top1": 0.9}
    return Parity(**(good | changes))


def test_differences_are_relative_to_the_largest_logit_of_each_image():
    expected = np.array([[4.0, 0.0], [-0.5, 0.25], [0.0, 0.0]], np.float32)
    logits = np.array([[4.0, 0.004], [-0.5, 0.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(relative_differences(logits, expected), [1e-3, 0.5, 0.0], rtol=1e-6)


def test_what_was_lost_is_counted_on_the_labels():
    network = answers([[1, 0], [1, 0], [0, 1], [0, 1]], [0, 0, 1, 0])
    exported = answers([[1, 0], [0, 1], [0, 1], [1, 0]], [0, 0, 1, 0])
    found = compare_logits(exported, network, has_labels=True)
    assert (found.top1, found.network_top1, found.drop, found.agreement) == (0.75, 0.75, 0.0, 0.5)
    assert compare_logits(exported, network, has_labels=False).drop is None


def test_of_several_labels_any_one_counts():
    labels = np.array([[0, 1], [1, -1]])
    found = compare_logits(
        answers([[0, 1], [1, 0]], labels), answers([[1, 0], [0, 1]], labels), has_labels=True
    )
    assert (found.top1, found.network_top1) == (0.5, 1.0)


def test_a_file_within_its_limits_is_kept():
    assert refusal(parity(), LIMITS) is None
    assert refusal(parity(difference=1e-4, agreement=0.9, top1=None, network_top1=None), LIMITS) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"difference": 1.1e-4}, "its logits differ by up to 0.00011 of the largest one; allowed: 0.0001"),
        ({"difference": float("nan")}, "its logits differ by up to nan"),
        ({"difference": float("inf")}, "its logits differ by up to inf"),
        ({"top1": 0.88}, "it loses 2.00% of top-1; allowed: 1.00%"),
        ({"agreement": 0.85}, "only 85.00% of its first answers are the network's; needed: 90.00%"),
    ],
)
def test_a_file_beyond_a_limit_is_refused(changes, reason):
    assert refusal(parity(**changes), LIMITS).startswith(reason)


def test_what_is_beyond_the_limit_may_be_pytorchs_own_rounding():
    far = {"difference": 3e-4, "rounding": 1e-4}
    assert refusal(parity(**far, exact_difference=4e-4), LIMITS) is None
    assert refusal(parity(**far, exact_difference=4.1e-4), LIMITS).startswith("its logits differ")
    nothing = {"difference": float("nan"), "rounding": 1e-4, "exact_difference": 1e-4}
    assert refusal(parity(**nothing), LIMITS).startswith("its logits differ by up to nan")


def test_logits_that_are_no_numbers_are_refused_even_where_any_difference_is_allowed():
    found = compare_logits(answers([[np.nan, 0.0]], [0]), answers([[1.0, 0.0]], [0]), has_labels=False)
    assert refusal(found, ExportSettings().limits("int8")) is not None


def test_limits_that_were_asked_for_win():
    settings = ExportSettings(tolerance=0.2, max_drop=0.5)
    assert settings.limits("int8") == Limits(difference=0.2, agreement=0.95, drop=0.5)
    assert ExportSettings().limits("fp32") == Limits(difference=1e-4, agreement=0.999, drop=0.001)
