import numpy as np
import pytest

from effnet.api import load, run_data
from effnet.evaluation.answers import Answers
from effnet.reporting.mistakes import worst_mistakes


@pytest.fixture(scope="module")
def predictor(finished):
    return load(finished, device="cpu")


@pytest.fixture(scope="module")
def images(finished, predictor):
    return run_data(finished).val.with_classes(predictor.class_names)


def answers(images, logits, labels=None):
    return Answers(
        class_names=images.class_names,
        names=tuple(images.names),
        indices=np.arange(len(images)),
        labels=images.labels if labels is None else labels,
        logits=np.array(logits, np.float32),
        output="softmax",
    )


def wrong_by(images, margins):
    """Return logits that give the class behind the true one so much more; below 0, they are right."""
    logits = np.zeros((len(images), len(images.class_names)))
    for row, (label, margin) in enumerate(zip(images.labels, margins, strict=True)):
        logits[row, (label + 1) % 3] = margin
    logits[np.arange(len(images)), images.labels] += 0.1
    return logits


def test_the_worst_come_first_and_right_answers_never(predictor, images):
    found = worst_mistakes(predictor, images, answers(images, wrong_by(images, [1, -1, 4, 2, -2, 3])), most=3)
    assert found.count == 4
    assert [mistake.name for mistake in found.worst] == [images.names[index] for index in (2, 5, 3)]
    worst = found.worst[0]
    label = int(images.labels[2])
    assert worst.labels == (images.class_names[label],)
    assert worst.predicted == images.class_names[(label + 1) % 3]
    total = np.exp(4) + np.exp(0.1) + 1
    assert worst.probability == pytest.approx(np.exp(4) / total)
    assert worst.label_probability == pytest.approx(np.exp(0.1) / total)
    assert worst.image.startswith("data:image/jpeg")
    assert worst.heat.startswith("data:image/jpeg")
    assert worst.heat != worst.image


def test_without_a_mistake_there_is_none(predictor, images):
    found = worst_mistakes(predictor, images, answers(images, wrong_by(images, [-1] * 6)), most=3)
    assert (found.count, found.worst) == (0, ())


def test_an_answer_that_is_one_of_several_labels_is_right(predictor, images):
    labels = np.stack([(images.labels + 2) % 3, (images.labels + 1) % 3, np.full(6, -1)], axis=1)
    labels[0] = [(images.labels[0] + 2) % 3, -1, -1]
    found = worst_mistakes(predictor, images, answers(images, wrong_by(images, [3] * 6), labels), most=9)
    assert [mistake.name for mistake in found.worst] == [images.names[0]]
    assert len(found.worst[0].labels) == 1


def test_a_network_that_cannot_be_looked_into_has_no_heat(predictor, images, monkeypatch):
    from effnet.errors import UserError
    from effnet.reporting import mistakes

    def refuse(*arguments):
        raise UserError("cam is not defined")

    monkeypatch.setattr(mistakes, "heat_maps", refuse)
    found = worst_mistakes(predictor, images, answers(images, wrong_by(images, [3] * 6)), most=2)
    assert found.heat_reason == "cam is not defined"
    assert [mistake.heat for mistake in found.worst] == ["", ""]
