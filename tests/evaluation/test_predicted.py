import numpy as np
import pytest
import torch

from effnet.errors import UserError
from effnet.evaluation.metrics import judge
from effnet.evaluation.predicted import predicted_classes


def test_the_largest_logit_is_the_answer(draw_answers):
    answers = draw_answers()
    np.testing.assert_array_equal(predicted_classes(answers), answers.logits.argmax(1))


def test_an_answer_is_right_exactly_where_accuracy_says_so(make_answers):
    nan = float("nan")
    logits = [[1, 1, 0], [2, 1, 0], [nan, 0, 0], [0, nan, 5], [0, 0, 0], [3, nan, 1], [0, -1, float("inf")]]
    for label in range(3):
        answers = make_answers(logits, [label] * len(logits))
        places = judge(torch.from_numpy(answers.logits), torch.from_numpy(answers.labels))[:, 1]
        np.testing.assert_array_equal(predicted_classes(answers) == label, (places == 1).numpy())


def test_a_network_with_one_class_is_right(make_answers):
    assert predicted_classes(make_answers([[1.0], [-2.0]], [0, 0])).tolist() == [0, 0]


def test_images_with_several_labels_have_no_one_answer(make_answers):
    with pytest.raises(UserError, match="several labels, for which there is no confusion matrix"):
        predicted_classes(make_answers([[1.0, 0.0]], [[0, 1]]))
