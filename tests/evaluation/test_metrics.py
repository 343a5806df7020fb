import json
import math

import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from effnet.evaluation.metrics import judge, score

LETTERS = tuple("abcdefgh")


def test_scores_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 8, generator=generator)
    labels = torch.randint(8, (200,), generator=generator)
    scores = score(judge(logits, labels), LETTERS, bad_images=3)
    probabilities = logits.double().softmax(1).numpy()
    assert scores.top1 == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    assert scores.top5 == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5))
    assert scores.loss == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert (scores.images, scores.bad_images) == (200, 3)
    for index, name in enumerate(LETTERS):
        of_class = labels == index
        expected = (logits.argmax(1)[of_class] == index).double().mean().item()
        assert scores.class_top1[name] == pytest.approx(expected)


def test_a_constant_answer_is_never_right():
    labels = torch.arange(8)
    assert score(judge(torch.zeros(8, 8), labels), LETTERS, bad_images=0).top1 == 0.0
    assert score(judge(torch.zeros(8, 8), labels), LETTERS, bad_images=0).top5 == 0.0


def test_a_tie_counts_against_the_network():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    scores = score(judge(logits, torch.tensor([0, 1])), ("a", "b", "c"), bad_images=0)
    assert scores.top1 == 0.5
    assert scores.class_top1 == {"a": 0.0, "b": 1.0}


@pytest.mark.parametrize(("rank", "counts"), [(1, True), (5, True), (6, False)])
def test_top5_counts_the_first_five_places(rank, counts):
    logits = torch.arange(8.0).flip(0)[None]
    scores = score(judge(logits, torch.tensor([rank - 1])), LETTERS, bad_images=0)
    assert scores.top5 == float(counts)
    assert scores.top1 == float(rank == 1)


def test_among_five_classes_all_are_in_the_first_five():
    scores = score(judge(torch.zeros(4, 5), torch.tensor([0, 1, 2, 3])), tuple("abcde"), bad_images=0)
    assert (scores.top1, scores.top5) == (0.0, 1.0)


def test_classes_without_an_image_have_no_accuracy():
    scores = score(judge(torch.eye(3)[:2], torch.tensor([0, 1])), ("a", "b", "c"), bad_images=0)
    assert scores.class_top1 == {"a": 1.0, "b": 1.0}


def test_scores_can_be_written_as_json():
    scores = score(judge(torch.eye(3), torch.tensor([0, 1, 1])), ("a", "b", "c"), bad_images=1)
    document = json.loads(json.dumps(scores.to_dict()))
    assert document["class_top1"] == {"a": 1.0, "b": 0.5}
    assert document["top1"] == pytest.approx(2 / 3)
    assert document.keys() == {"images", "bad_images", "top1", "top5", "loss", "class_top1"}


def test_a_network_that_answers_nothing_is_never_right():
    scores = score(judge(torch.full((8, 8), math.nan), torch.arange(8)), LETTERS, bad_images=0)
    assert scores.top1 == 0.0
    assert scores.top5 == 0.0


def test_loss_of_a_sigmoid_is_summed_over_the_classes():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]]), torch.tensor([0, 2])
    targets = torch.nn.functional.one_hot(labels, 3).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits.double(), targets, reduction="sum")
    scores = score(judge(logits, labels, "sigmoid"), ("a", "b", "c"), bad_images=0)
    assert scores.loss == pytest.approx(expected.item() / 2)
