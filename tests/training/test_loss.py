import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from effnet.training.loss import class_targets, classification_loss

LABELS = torch.tensor([[2, 0, -1], [1, -1, -1], [3, 0, 1]])


def test_one_label_an_image_is_a_one_hot_row():
    labels = torch.tensor([2, 0, 1])
    one_hot = torch.nn.functional.one_hot(labels, 4).float()
    for loss in ("softmax", "sigmoid"):
        assert torch.equal(class_targets(labels, 4, loss), one_hot)


def test_labels_share_a_weight_of_one_under_softmax():
    third = 1 / 3
    assert torch.equal(
        class_targets(LABELS, 4, "softmax"),
        torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [third, third, 0, third]]),
    )


def test_every_label_weighs_one_under_sigmoid():
    assert torch.equal(
        class_targets(LABELS, 4, "sigmoid"), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]])
    )


def test_image_without_labels_has_empty_targets():
    labels = torch.tensor([[-1, -1], [1, -1]])
    for loss in ("softmax", "sigmoid"):
        assert class_targets(labels, 2, loss).tolist() == [[0, 0], [0, 1]]


@given(st.lists(st.sets(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=6))
def test_targets_hold_exactly_the_labels_whatever_the_padding(sets):
    labels = torch.tensor([[*members, *[-1] * (6 - len(members))] for members in sets])
    sigmoid, softmax = class_targets(labels, 7, "sigmoid"), class_targets(labels, 7, "softmax")
    assert [set(row.nonzero()[:, 0].tolist()) for row in sigmoid] == sets
    torch.testing.assert_close(softmax.sum(1), torch.ones(len(sets)))
    torch.testing.assert_close(softmax, sigmoid / sigmoid.sum(1, keepdim=True))


def test_softmax_loss_is_the_mean_surprise_of_the_labels():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row, labels in zip(logits.tolist(), ([2, 0], [1], [3, 0, 1]), strict=True):
        norm = math.log(sum(math.exp(value) for value in row))
        expected += sum(norm - row[label] for label in labels) / len(labels) / 3
    loss = classification_loss(
        logits, class_targets(LABELS, 4, "softmax"), loss="softmax", label_smoothing=0.0
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_sigmoid_loss_is_summed_over_classes_and_averaged_over_images():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for row, labels in zip(logits.tolist(), ([2, 0], [1], [3, 0, 1]), strict=True):
        for label, value in enumerate(row):
            chance = 1 / (1 + math.exp(-value))
            expected -= math.log(chance if label in labels else 1 - chance) / 3
    loss = classification_loss(
        logits, class_targets(LABELS, 4, "sigmoid"), loss="sigmoid", label_smoothing=0.0
    )
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_label_smoothing_spreads_the_same_share_with_either_loss():
    logits = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    for loss in ("softmax", "sigmoid"):
        targets = class_targets(LABELS, 4, loss)
        smooth = 0.8 * targets + 0.2 / 4
        smoothed = classification_loss(logits, targets, loss=loss, label_smoothing=0.2)
        torch.testing.assert_close(
            smoothed, classification_loss(logits, smooth, loss=loss, label_smoothing=0.0)
        )
