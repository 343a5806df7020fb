import shutil
from pathlib import Path

import pytest
import torch

from effnet.api import evaluate
from effnet.data.sources import open_labelled
from effnet.errors import UserError
from effnet.evaluation.evaluator import evaluate_model
from effnet.weights import save_weights

NAMES = ("red", "green", "blue")
CPU = torch.device("cpu")


@pytest.fixture
def photos(make_image, tmp_path) -> Path:
    """Folders in the order blue, green, red; one of the two green ones is blue."""
    for name, color in {
        "blue/1": "blue", "blue/2": "blue", "green/1": "green", "green/2": "blue",
        "red/1": "red", "red/2": "red", "red/3": "red",
    }.items():  # fmt: skip
        make_image(color, f"photos/{name}.png")
    return tmp_path / "photos"


@pytest.fixture
def weights(make_network, preprocessing, tmp_path) -> Path:
    model = make_network(NAMES)
    path = tmp_path / "colors.safetensors"
    save_weights(
        path,
        model.state_dict(),
        model.spec,
        class_names=NAMES,
        preprocessing=preprocessing,
        provenance="test",
    )
    return path


def test_classes_are_compared_by_name_in_whatever_order_they_come(weights, photos):
    scores = evaluate(weights, photos)
    assert scores.class_top1 == {"red": 1.0, "green": 0.5, "blue": 1.0}
    assert scores.top1 == pytest.approx(6 / 7)
    assert (scores.images, scores.bad_images) == (7, 0)


def test_data_may_lack_classes_of_the_network(weights, photos):
    shutil.rmtree(photos / "green")
    assert evaluate(weights, photos).class_top1 == {"red": 1.0, "blue": 1.0}


def test_a_class_that_the_network_does_not_know_is_told(weights, photos):
    (photos / "green").rename(photos / "gren")
    with pytest.raises(UserError, match=r"class 'gren', which is none of .* did you mean 'green'\?"):
        evaluate(weights, photos)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_bad_images_are_left_out_reported_and_counted(
    weights, photos, batch_size, make_network, preprocessing
):
    (photos / "red" / "2.png").write_bytes(b"")
    (photos / "blue" / "1.png").write_text("no image")
    reported = []
    scores = evaluate_model(
        make_network(NAMES),
        open_labelled(str(photos)).with_classes(NAMES),
        preprocessing,
        device=CPU,
        batch_size=batch_size,
        report_bad=lambda name, reason: reported.append((name, reason)),
    )
    assert (scores.images, scores.bad_images) == (5, 2)
    assert scores.class_top1 == {"red": 1.0, "green": 0.5, "blue": 1.0}
    assert reported == [
        ("blue/1.png", "not an image of a known format"), ("red/2.png", "the file is empty")
    ]  # fmt: skip


def test_the_batch_and_the_threads_change_nothing(photos, make_network, preprocessing):
    images, model = open_labelled(str(photos)).with_classes(NAMES), make_network(NAMES)
    one = evaluate_model(model, images, preprocessing, device=CPU, batch_size=1)
    all_ = evaluate_model(model, images, preprocessing, device=CPU, batch_size=64, workers=3)
    assert (one.top1, one.class_top1) == (all_.top1, all_.class_top1)
    assert one.loss == pytest.approx(all_.loss, rel=1e-4)


def test_evaluation_leaves_the_statistics_alone(photos, make_network, preprocessing):
    model = make_network(NAMES).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate_model(model, open_labelled(str(photos)), preprocessing, device=CPU, batch_size=4)
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_images_at_another_size_are_the_users_choice(weights, photos):
    assert evaluate(weights, photos, image_size=16).images == 7


@pytest.mark.parametrize("batch_size", [1, 64])
def test_images_none_of_which_can_be_read_are_the_users_mistake(weights, photos, batch_size):
    for file in photos.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="read"):
        evaluate(weights, photos, batch_size=batch_size)
