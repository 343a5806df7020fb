import threading

import numpy as np
import pytest
import torch

from effnet.engines.spread import Spread
from effnet.evaluation.predictor import Predictor
from effnet.export import Engine
from effnet.export.card import Card
from effnet.serving import served
from effnet.serving.served import ServedModel, View


def views(count, wants_cam=False):
    rng = np.random.default_rng(0)
    return [View(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8), wants_cam) for _ in range(count)]


def test_a_batch_says_what_its_images_say_alone(predictor):
    model = ServedModel("tiny", predictor, max_pixels=10**6)
    together = model.compute(views(5))
    for scores, view in zip(together, views(5), strict=True):
        (alone,) = model.compute([view])
        assert scores.probabilities == pytest.approx(alone.probabilities, rel=1e-4)
        assert scores.heat is None


def test_heat_maps_are_drawn_of_those_that_want_them(predictor):
    model = ServedModel("tiny", predictor, max_pixels=10**6)
    plain, mapped = model.compute([views(1)[0], views(1, wants_cam=True)[0]])
    assert plain.heat is None
    assert mapped.heat.shape == (16, 16)
    assert 0 <= mapped.heat.min() <= mapped.heat.max() <= 1
    assert plain.probabilities == pytest.approx(mapped.probabilities, rel=1e-4)


def test_an_engine_answers_and_the_network_draws_the_heat_maps(predictor):
    plain = ServedModel("tiny", predictor, max_pixels=10**6).compute(views(5, wants_cam=True))
    asked = []

    def network(pixels):
        asked.append(len(pixels))
        return predictor.model(pixels)

    other = Predictor(predictor.model, predictor.class_names, predictor.preprocessing)
    other.engine = Spread(network, network, sizes=(1, 2), threads=2)
    model = ServedModel("tiny", other, max_pixels=10**6)
    for one, expected in zip(model.compute(views(5, wants_cam=True)), plain, strict=True):
        assert one.probabilities == pytest.approx(expected.probabilities, rel=1e-4)
        np.testing.assert_allclose(one.heat, expected.heat, atol=1e-4)
    assert sorted(asked) == [1, 2, 2]
    model.warm_up(4)
    assert model.cam_error is None


def test_large_images_are_decoded_one_at_a_time(predictor, photo, monkeypatch):
    running, most = [], []

    def decode(*_):
        running.append(1)
        most.append(len(running))
        threading.Event().wait(0.01)
        running.pop()
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(served, "eval_image", decode)
    monkeypatch.setattr(served, "_LARGE_PIXELS", 100)
    model = ServedModel("tiny", predictor, max_pixels=10**6)
    threads = [threading.Thread(target=model.decode, args=(photo(),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5


def test_an_exported_network_answers_without_heat_maps(predictor, serving, photo):
    def engine(pixels):
        return torch.stack([pixels.mean((2, 3))[:, 0]] * 3, 1)

    exported = Predictor(engine, predictor.class_names, predictor.preprocessing)
    files = [("images", ("a.jpg", photo()))]
    with serving(network=exported) as client:
        assert client.post("/v1/predict", files=files).status_code == 200
        refusal = client.post("/v1/predict", files=files, data={"cam": "true"})
        assert refusal.status_code == 422
        assert "an exported network has no layers to look into; leave 'cam' out" in refusal.json()["error"]
        (model,) = client.get("/v1/models").json()["models"]
        assert (model["network"], model["cam"], model["parameters"]) == ("exported", False, None)


def test_an_exported_file_says_what_network_it_holds(predictor, serving):
    card = Card(
        network="tiny",
        parameters=1234,
        class_names=predictor.class_names,
        preprocessing=predictor.preprocessing,
        output="softmax",
        pixels="normalised",
        batch_size=0,
        any_size=False,
        form="onnx",
        precision="int8",
        origin="a test",
        packages={},
    )
    engine = Engine(card, lambda pixels: np.zeros((len(pixels), 3), np.float32), "model.onnx")
    exported = Predictor(engine, predictor.class_names, predictor.preprocessing)
    with serving(network=exported) as client:
        (model,) = client.get("/v1/models").json()["models"]
    assert (model["network"], model["parameters"], model["cam"]) == ("tiny", 1234, False)


def test_a_network_that_fails_at_once_is_a_failure_of_the_service(predictor, serving, photo):
    def engine(pixels):
        raise RuntimeError("no")

    broken = Predictor(engine, predictor.class_names, predictor.preprocessing)
    with serving(network=broken, answer_timeout_s=0.2) as client:
        answer = client.post("/v1/predict", files=[("images", ("a.jpg", photo()))])
        assert answer.status_code == 503
        assert client.get("/readyz").status_code == 503
        assert str(client.service.failure) == "no"
