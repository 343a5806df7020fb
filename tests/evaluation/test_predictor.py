import json
from dataclasses import replace

import pytest
import torch

from effnet.errors import UserError
from effnet.evaluation.predictor import Predictor
from effnet.weights import LoadedWeights

NAMES = ("red", "green", "blue")


@pytest.fixture
def predictor(make_network, preprocessing) -> Predictor:
    return Predictor(make_network(NAMES), NAMES, preprocessing)


def test_the_most_probable_class_comes_first(predictor, make_image):
    images = [make_image(color, f"{color}.png") for color in ("blue", "red", "green")]
    answers = list(predictor.predict(images))
    assert [answer.classes[0] for answer in answers] == ["blue", "red", "green"]
    for answer, image in zip(answers, images, strict=True):
        assert answer.image == str(image)
        assert set(answer.classes) == set(NAMES)
        assert list(answer.probabilities) == sorted(answer.probabilities, reverse=True)
        assert sum(answer.probabilities) == pytest.approx(1.0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7, 8, 32])
def test_a_bad_image_is_reported_in_its_place_and_the_others_are_answered(predictor, make_image, batch_size):
    colors = ["red", "green", "blue", "blue", "red", "green", "red"]
    images = [make_image(color, f"{index}.png") for index, color in enumerate(colors)]
    images[3].write_bytes(images[3].read_bytes()[:40])
    answers = list(predictor.predict(images, batch_size=batch_size, top=1))
    assert [answer.image for answer in answers] == [str(image) for image in images]
    assert [answer.classes for answer in answers] == [
        ("red",), ("green",), ("blue",), (), ("red",), ("green",), ("red",)
    ]  # fmt: skip
    assert answers[3].error
    assert [answer.error for answer in answers if answer is not answers[3]] == [None] * 6


def test_files_that_are_no_images_all_get_an_answer(predictor, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    paths = [tmp_path / name for name in ("empty.png", "text.png", "folder.png", "gone.png")]
    answers = list(predictor.predict(paths, batch_size=2))
    reasons = [
        "the file is empty",
        "not an image of a known format",
        "is a folder",
        "does not exist any more",
    ]
    for answer, reason in zip(answers, reasons, strict=True):
        assert reason in answer.error
        assert answer.classes == ()


def test_no_image_is_no_answer(predictor):
    assert list(predictor.predict([])) == []


def test_more_classes_than_there_are_is_all_of_them(predictor, make_image):
    (answer,) = predictor.predict([make_image("red", "red.png")], top=99)
    assert len(answer.classes) == len(answer.probabilities) == 3


def test_the_same_image_twice_is_answered_twice(predictor, make_image):
    image = make_image("green", "green.png")
    first, second = predictor.predict([image, image], batch_size=1)
    assert first == second
    assert first.classes[0] == "green"


def test_an_answer_does_not_depend_on_its_batch(predictor, make_image):
    images = [make_image(color, f"{index}.png") for index, color in enumerate(NAMES * 3)]
    alone = [next(iter(predictor.predict([image]))) for image in images]
    together = list(predictor.predict(images, batch_size=9))
    for one, other in zip(alone, together, strict=True):
        assert one.classes == other.classes
        assert one.probabilities == pytest.approx(other.probabilities, rel=1e-5)


def test_answers_become_json(predictor, make_image, tmp_path):
    answers = predictor.predict([make_image("red", "red.png"), tmp_path / "gone.png"], top=2)
    good, bad = json.loads(json.dumps([answer.to_dict() for answer in answers]))
    assert good["image"].endswith("red.png")
    assert next(entry["name"] for entry in good["classes"]) == "red"
    assert len(good["classes"]) == 2
    assert bad.keys() == {"image", "error"}


def test_the_predictor_evaluates_and_learns_nothing(predictor, make_image):
    before = {name: tensor.clone() for name, tensor in predictor.model.state_dict().items()}
    list(predictor.predict([make_image("red", "red.png")]))
    assert not predictor.model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in predictor.model.state_dict().items())


@pytest.fixture
def weights(make_network, preprocessing) -> LoadedWeights:
    model = make_network(NAMES)
    return LoadedWeights(
        state=model.state_dict(),
        spec=model.spec,
        class_names=NAMES,
        preprocessing=preprocessing,
        origin="test",
    )


def test_weights_are_all_that_a_predictor_needs(weights, make_image):
    (answer,) = Predictor.from_weights(weights).predict([make_image("blue", "blue.png")], top=1)
    assert answer.classes == ("blue",)


def test_classes_without_names_are_numbered(weights, make_image):
    nameless = replace(weights, class_names=None)
    (answer,) = Predictor.from_weights(nameless).predict([make_image("blue", "blue.png")], top=1)
    assert answer.classes == ("2",)


def test_weights_without_preprocessing_are_refused(weights):
    with pytest.raises(UserError, match="does not say how images must be prepared"):
        Predictor.from_weights(replace(weights, preprocessing=None))


def test_probabilities_of_a_sigmoid_are_independent(make_network, preprocessing, make_image):
    model, image = make_network(NAMES), make_image("red", "red.png")
    softmax = Predictor(model, NAMES, preprocessing).predict([image])[0]
    sigmoid = Predictor(model, NAMES, preprocessing, output="sigmoid").predict([image])[0]
    assert sigmoid.classes == softmax.classes
    odds = torch.tensor(sigmoid.probabilities).logit().softmax(0)
    assert odds.tolist() == pytest.approx(list(softmax.probabilities), abs=1e-4)
    assert sum(sigmoid.probabilities) != pytest.approx(1.0)


def test_weights_say_how_their_logits_become_probabilities(make_network, preprocessing):
    model = make_network(NAMES)
    weights = LoadedWeights(
        state=model.state_dict(),
        spec=model.spec,
        class_names=NAMES,
        preprocessing=preprocessing,
        origin="here",
        output="sigmoid",
    )
    assert Predictor.from_weights(weights).output == "sigmoid"
    assert Predictor.from_weights(replace(weights, output="softmax")).output == "softmax"
