import numpy as np
import pytest
import torch

from effnet.arch.preprocessing import Preprocessing
from effnet.data.images import LabelledImages
from effnet.errors import UserError
from effnet.evaluation.answers import answer_images

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def _images(unreadable=()):
    def read(index):
        if index in unreadable:
            raise OSError("gone")
        return np.full((8, 8, 3), 20 * index, np.uint8)

    return LabelledImages(
        class_names=("dark", "bright"),
        labels=np.array([0, 0, 0, 1, 1, 1, 1]),
        names=tuple(f"image {index}" for index in range(7)),
        read=read,
    )


def _model(pixels):
    brightness = pixels.mean((1, 2, 3))
    return torch.stack([-brightness, brightness], dim=1)


def _answer(images, **settings):
    return answer_images(
        _model, images, PREPROCESSING, device=torch.device("cpu"), batch_size=3, workers=2, **settings
    )


def test_each_image_has_its_own_answer_in_order():
    answers = _answer(_images())
    brightness = 2 * 20 * np.arange(7) / 255 - 1
    np.testing.assert_allclose(answers.logits[:, 1], brightness, atol=1e-5)
    assert answers.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert answers.indices.tolist() == list(range(7))


def test_unreadable_images_are_left_out_and_named():
    answers = _answer(_images(unreadable={1, 3, 4, 5}))
    assert answers.names == ("image 0", "image 2", "image 6")
    assert answers.indices.tolist() == [0, 2, 6]
    assert answers.labels.tolist() == [0, 0, 1]
    assert [bad.name for bad in answers.bad] == ["image 1", "image 3", "image 4", "image 5"]


def test_probabilities_follow_the_output():
    softmax, sigmoid = _answer(_images()), _answer(_images(), output="sigmoid")
    np.testing.assert_allclose(softmax.probabilities.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(sigmoid.probabilities, 1 / (1 + np.exp(-sigmoid.logits)), atol=1e-6)


def test_progress_is_told_in_images():
    told = []
    _answer(_images(), report=told.append)
    assert told == [3, 6, 7]


def test_nothing_readable_is_a_mistake():
    with pytest.raises(UserError, match="none of the 7 images could be read"):
        _answer(_images(unreadable=set(range(7))))


def test_answers_to_some_images(draw_answers):
    answers = draw_answers(6)
    some = answers.subset(np.array([4, 1]))
    assert (some.names, some.indices.tolist()) == (("image 4", "image 1"), [4, 1])
    np.testing.assert_array_equal(some.logits, answers.logits[[4, 1]])
    np.testing.assert_array_equal(some.labels, answers.labels[[4, 1]])


def test_some_classes_in_another_order(make_answers):
    answers = make_answers([[1, 2, 3], [4, 5, 6]], [2, 0], class_names=("a", "b", "c"))
    some = answers.with_classes(("c", "a"))
    assert some.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(some.logits, [[3, 1], [6, 4]])
    np.testing.assert_allclose(some.probabilities.sum(1), 1, rtol=1e-6)


def test_classes_of_several_labels_are_renumbered(make_answers):
    answers = make_answers([[1, 2, 3], [4, 5, 6]], [[2, 1], [1, -1]], class_names=("a", "b", "c"))
    assert answers.with_classes(("c", "b")).labels.tolist() == [[0, 1], [1, -1]]


def test_classes_that_are_missing_are_told(make_answers):
    answers = make_answers([[1, 2, 3]], [0], class_names=("rose", "tulip", "daisy"))
    with pytest.raises(UserError, match="no class 'roses' among its 3; did you mean 'rose'"):
        answers.with_classes(("roses", "tulip"))
    with pytest.raises(UserError, match="images have the class 'rose', which is none of the 2"):
        answers.with_classes(("tulip", "daisy"))
