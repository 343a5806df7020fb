import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import average_precision_score, log_loss

from effnet.errors import UserError
from effnet.evaluation.multilabel import MultiLabelCounts


def drawn(images, classes, *, seed=0, most=4):
    """Logits that know something, and labels in rows filled up with -1."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, most + 1, (images,), generator=generator)
    labels = torch.rand(images, classes, generator=generator).argsort(1)[:, :most]
    labels[torch.arange(most) >= counts[:, None]] = -1
    logits = torch.randn(images, classes, generator=generator) + 1.5 * one_hot(labels, classes)
    return logits, labels


def one_hot(labels, classes):
    rows = torch.zeros(len(labels), classes + 1)
    return rows.scatter(1, labels % (classes + 1), 1.0)[:, :classes]


def counted(logits, labels, output="sigmoid", *, parts=1):
    counts = MultiLabelCounts(output)
    for some, their in zip(logits.chunk(parts), labels.chunk(parts), strict=True):
        counts.add(some, their)
    return counts.scores(bad_images=0)


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
def test_area_is_that_of_scikit_learn_within_the_error_that_is_told(output, seed):
    logits, labels = drawn(60, 50, seed=seed)
    scores = counted(logits, labels, output)
    probabilities = logits.log_softmax(1) if output == "softmax" else logits
    expected = average_precision_score(one_hot(labels, 50).flatten(), probabilities.flatten())
    assert abs(scores.pr_auc - expected) <= scores.pr_auc_error
    assert scores.pr_auc_error < 0.01
    assert scores.pr_auc == pytest.approx(expected, abs=1e-3)


def test_area_is_exact_where_scores_that_differ_are_in_different_bins():
    logits, labels = drawn(80, 40)
    coarse = (4 * logits).round() / 4
    expected = average_precision_score(one_hot(labels, 40).flatten(), coarse.flatten())
    assert counted(coarse, labels).pr_auc == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(2, 9), st.sampled_from([1e-30, 1e-3, 1.0, 1e4]), st.integers(0, 999))
def test_error_holds_for_scores_of_any_size(images, classes, scale, seed):
    logits, labels = drawn(images, classes, seed=seed, most=2)
    scores = counted(scale * logits, labels)
    expected = average_precision_score(one_hot(labels, classes).flatten(), (scale * logits).flatten())
    assert abs(scores.pr_auc - expected) <= scores.pr_auc_error + 1e-12


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_first_answers_are_counted_as_by_hand(output):
    logits, labels = drawn(100, 30)
    scores = counted(logits, labels, output)
    first, among_five, every = [], [], 0
    for row, padded in zip(logits.tolist(), labels.tolist(), strict=True):
        own = {label for label in padded if label >= 0}
        answers = sorted(range(30), key=lambda label: -row[label])[:5]
        first.append(len(own & set(answers[:1])))
        among_five.append(len(own & set(answers)))
        every += len(own)
    assert scores.images == 100
    assert scores.top1 == scores.precision_at_1 == pytest.approx(sum(first) / 100)
    assert scores.top5 == pytest.approx(sum(count > 0 for count in among_five) / 100)
    assert scores.precision_at_5 == pytest.approx(sum(among_five) / 500)
    assert scores.recall_at_1 == pytest.approx(sum(first) / every)
    assert scores.recall_at_5 == pytest.approx(sum(among_five) / every)


def test_losses_are_those_of_scikit_learn_and_of_the_step():
    logits, labels = drawn(20, 10)
    targets = one_hot(labels, 10).double()
    chances = logits.double().sigmoid()
    by_class = [log_loss(targets[:, k], chances[:, k], labels=[0, 1]) for k in range(10)]
    assert counted(logits, labels).loss == pytest.approx(sum(by_class), rel=1e-6)
    shares = targets / targets.sum(1, keepdim=True)
    expected = torch.nn.functional.cross_entropy(logits.double(), shares)
    assert counted(logits, labels, "softmax").loss == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_of_the_images_give_the_same(parts):
    logits, labels = drawn(21, 12)
    assert counted(logits, labels, "softmax", parts=parts) == counted(logits, labels, "softmax")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_constant_answer_is_never_right(value):
    _, labels = drawn(10, 40)
    scores = counted(torch.full((10, 40), value), labels)
    assert scores.top1 == scores.top5 == scores.recall_at_5 == 0.0
    share = (labels >= 0).sum().item() / 400
    assert scores.pr_auc <= share + 1e-12


def test_not_a_number_counts_against_the_network_wherever_it_is():
    logits, labels = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[0]])
    assert counted(logits, labels).pr_auc == counted(logits, labels).top1 == 1.0
    for place in range(3):
        broken = logits.clone()
        broken[0, place] = float("nan")
        assert counted(broken, labels).top1 == 0.0
        assert counted(broken, labels).pr_auc < 1.0


def test_perfect_answers_score_one():
    _, labels = drawn(30, 20, most=1)
    scores = counted(one_hot(labels, 20), labels)
    assert (scores.top1, scores.recall_at_1, scores.recall_at_5, scores.pr_auc) == (1.0,) * 4
    assert scores.precision_at_5 == pytest.approx(0.2)


def test_no_image_is_an_error():
    with pytest.raises(UserError, match="none of the 3 images to evaluate could be read"):
        MultiLabelCounts("softmax").scores(bad_images=3)


def test_scores_have_names_for_json():
    logits, labels = drawn(4, 8)
    scores = counted(logits, labels).to_dict()
    assert list(scores)[:4] == ["images", "bad_images", "top1", "top5"]
    assert all(np.isfinite(list(scores.values())))
