import numpy as np
import pytest
import torch

from effnet.evaluation.predictor import Predictor
from effnet.evaluation.streaming import Answerer

NAMES = ("red", "green", "blue")


def batched(images, size):
    return [tuple(images[start : start + size]) for start in range(0, len(images), size)]


@pytest.fixture
def images(make_image) -> list[str]:
    return [str(make_image(NAMES[index % 3], f"{index}.png")) for index in range(11)]


def _answers(model, preprocessing, images, *, workers=1, size=4):
    answerer = Answerer.of(
        model, preprocessing, device=torch.device("cpu"), output="softmax", classes=len(NAMES)
    )
    return list(answerer.answer(batched(images, size), workers=workers))


def test_batches_are_answered_in_order(make_network, preprocessing, images):
    answers = _answers(make_network(NAMES), preprocessing, images)
    assert [answered.names for answered in answers] == batched(images, 4)
    found = np.concatenate([answered.probabilities for answered in answers])
    assert found.argmax(1).tolist() == [index % 3 for index in range(11)]
    np.testing.assert_allclose(found.sum(1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_answers_do_not_depend_on_the_threads(make_network, preprocessing, images, workers):
    model = make_network(NAMES)
    one = _answers(model, preprocessing, images)
    several = _answers(model, preprocessing, images, workers=workers)
    for first, second in zip(one, several, strict=True):
        assert np.array_equal(first.probabilities, second.probabilities)


def test_the_folded_network_answers_as_the_network_does(make_network, preprocessing, images):
    model = make_network(NAMES)
    torch.manual_seed(1)
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            tensor.uniform_(0.5, 1.5)
    folded = _answers(model, preprocessing, images)
    plain = _answers(model.forward, preprocessing, images)
    for first, second in zip(folded, plain, strict=True):
        np.testing.assert_allclose(first.probabilities, second.probabilities, rtol=1e-4)


def test_whatever_computes_logits_can_answer(preprocessing, images):
    seen = []

    def engine(pixels):
        seen.append(tuple(pixels.shape))
        return pixels.mean((2, 3))

    answers = _answers(engine, preprocessing, images, workers=2)
    assert seen == [(4, 3, 8, 8), (4, 3, 8, 8), (3, 3, 8, 8)]
    assert [answered.probabilities.argmax(1).tolist() for answered in answers] == [
        [0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1]
    ]  # fmt: skip


@pytest.mark.parametrize("is_network", [True, False])
def test_what_cannot_be_read_has_a_reason_and_no_answer(
    make_network, preprocessing, images, tmp_path, is_network
):
    model = make_network(NAMES)
    bad = [str(tmp_path / "gone.png"), images[0], str(tmp_path)]
    answers = _answers(model if is_network else model.forward, preprocessing, bad, size=3)
    (answered,) = answers
    assert answered.errors == ("does not exist any more", None, "is a folder")
    assert np.isnan(answered.probabilities).all(1).tolist() == [True, False, True]
    (nothing,) = _answers(model, preprocessing, bad[2:])
    assert np.isnan(nothing.probabilities).all()


def test_batches_are_fetched_only_a_few_ahead(make_network, preprocessing, make_image):
    image, fetched = str(make_image("red", "red.png")), []

    def batches():
        for number in range(1000):
            fetched.append(number)
            yield (image,)

    answerer = Predictor(make_network(NAMES), NAMES, preprocessing).answerer()
    answers = answerer.answer(batches(), workers=2)
    next(answers)
    assert len(fetched) < 10
    answers.close()


def test_the_number_of_threads_is_left_as_it_was(make_network, preprocessing, images):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        _answers(make_network(NAMES), preprocessing, images, workers=2)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_defect_is_raised_and_names_the_image(make_network, preprocessing, images, monkeypatch):
    from effnet.data.failures import WorkerError

    def broken(*_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("effnet.evaluation.streaming.eval_image", broken)
    with pytest.raises(WorkerError, match=r"0\.png: ZeroDivisionError: oops"):
        _answers(make_network(NAMES), preprocessing, images)
