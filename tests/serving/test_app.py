import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from effnet.serving.app import PAGE


def post(client, *pictures, **fields):
    files = [("images", (f"{index}.jpg", picture)) for index, picture in enumerate(pictures)]
    return client.post("/v1/predict", files=files, data=fields)


def encoded(picture):
    return base64.b64encode(picture).decode("ascii")


# Answers


def test_an_image_gets_its_classes_most_probable_first(client, photo):
    answer = post(client, photo())
    assert answer.status_code == 200
    document = answer.json()
    (result,) = document["results"]
    assert (document["model"], result["name"]) == ("tiny", "0.jpg")
    probabilities = [found["probability"] for found in result["classes"]]
    assert {found["name"] for found in result["classes"]} == {"blue", "green", "red"}
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


def test_the_service_says_what_the_predictor_says(client, predictor, photo, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photo(5))
    (expected,) = predictor.predict([tmp_path / "photo.jpg"])
    found = post(client, photo(5)).json()["results"][0]["classes"]
    assert [entry["name"] for entry in found] == list(expected.classes)
    assert [entry["probability"] for entry in found] == pytest.approx(list(expected.probabilities), rel=1e-4)


def test_base64_and_data_uris_are_answered_as_files_are(client, photo):
    pictures = [encoded(photo(1)), "data:image/jpeg;base64," + encoded(photo(1))]
    document = client.post("/v1/predict", json={"images": pictures, "top": 2}).json()
    by_file = post(client, photo(1), top=2).json()["results"][0]["classes"]
    assert [result["name"] for result in document["results"]] == ["image 1", "image 2"]
    assert [result["classes"] for result in document["results"]] == [by_file, by_file]


def test_many_images_are_answered_in_order(client, photo):
    together = post(client, *(photo(seed) for seed in range(20))).json()["results"]
    alone = [post(client, photo(seed)).json()["results"][0] for seed in (0, 19)]
    assert [result["name"] for result in together] == [f"{index}.jpg" for index in range(20)]
    for mine, batched in zip(alone, (together[0], together[19]), strict=True):
        assert [c["probability"] for c in batched["classes"]] == pytest.approx(
            [c["probability"] for c in mine["classes"]], rel=1e-4
        )


def test_options_may_stand_in_the_query(client, photo):
    answer = client.post("/v1/predict?top=1", files=[("images", ("a.jpg", photo()))])
    assert len(answer.json()["results"][0]["classes"]) == 1
    answer = client.post("/v1/predict?top=1", json={"images": [encoded(photo())]})
    assert len(answer.json()["results"][0]["classes"]) == 1


def test_a_heat_map_is_drawn_on_what_the_network_sees(client, photo):
    results = post(client, photo(), photo(1), cam="true").json()["results"]
    for result in results:
        kind, _, data = result["cam"].partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).size == (16, 16)
    assert results[0]["cam"] != results[1]["cam"]
    assert "cam" not in post(client, photo()).json()["results"][0]


def test_a_bad_image_does_not_spoil_the_others(client, photo):
    answer = post(client, photo(), b"no image")
    assert answer.status_code == 200
    good, bad = answer.json()["results"]
    assert good["classes"]
    assert bad == {"name": "1.jpg", "error": "not an image of a known format"}


def test_bad_images_alone_are_refused_one_by_one(client, photo):
    answer = post(client, b"no image", photo()[:200])
    assert answer.status_code == 422
    document = answer.json()
    assert document["error"] == "none of the images can be read"
    assert document["results"][1]["error"] == "the JPEG data is truncated"


def test_a_network_is_chosen_by_name(serving, photo):
    with serving(names=("first", "second")) as client:
        assert post(client, photo()).json()["model"] == "first"
        assert post(client, photo(), model="second").json()["model"] == "second"
        refusal = post(client, photo(), model="secnd")
        assert refusal.status_code == 422
        assert refusal.json() == {"error": "no network is called 'secnd'; did you mean 'second'?"}
        assert [model["name"] for model in client.get("/v1/models").json()["models"]] == ["first", "second"]


# Refusals


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([], "the JSON must be an object"),
        ({}, "'images' must be a list"),
        ({"images": "x"}, "'images' must be a list"),
        ({"images": [1]}, "'images' must be a list"),
        ({"images": []}, "there is no image"),
        ({"images": ["QUJD"], "top": 0}, "'top' must be a whole number"),
        ({"images": ["QUJD"], "top": True}, "'top' must be a whole number"),
        ({"images": ["QUJD"], "cam": "perhaps"}, "'cam' must be true or false"),
        ({"images": ["QUJD"], "model": 3}, "'model' must be the name"),
        ({"images": ["QUJD"], "modle": "x"}, "unknown field 'modle'; did you mean 'model'?"),
        ({"images": ["QUJD"]}, "none of the images can be read"),
    ],
)
def test_json_that_asks_for_something_else_is_told_what_is_wrong(client, document, sentence):
    answer = client.post("/v1/predict", json=document)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(sentence)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"top": ' + b"9" * 5000 + b"}"], ids=range(5)
)
def test_what_is_not_json_is_refused(client, body):
    answer = client.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the body is not valid JSON"})


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "http://localhost/x.jpg", "file:///etc/passwd", "data:,x", "ÄÖ"]
)
def test_no_path_or_address_of_a_client_is_opened(client, photo, text):
    answer = client.post("/v1/predict", json={"images": [text, encoded(photo())]})
    assert answer.status_code == 200
    assert "base64" in answer.json()["results"][0]["error"]


def test_a_pickle_of_a_client_is_not_loaded(client, tmp_path):
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "trap"), "w"))

    assert post(client, pickle.dumps(Trap())).status_code == 422
    assert not (tmp_path / "trap").exists()


def test_forms_that_make_no_sense_are_told_what_is_wrong(client, photo):
    def refused(**request):
        answer = client.post("/v1/predict", **request)
        assert 400 <= answer.status_code < 500
        return answer.json()["error"]

    assert "named 'images', not 'picture'" in refused(files=[("picture", ("a.jpg", photo()))])
    assert "must be files" in refused(files=[("images", (None, "/etc/passwd"))])
    assert "'top' must be" in refused(files=[("images", ("a.jpg", photo()))], data={"top": "many"})
    assert "'cam' must be" in refused(files=[("images", ("a.jpg", photo()))], data={"cam": "many"})
    assert "multipart/form-data" in refused(content=photo(), headers={"content-type": "image/jpeg"})
    assert "multipart/form-data" in refused(content=photo())
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert "cannot be read" not in refused(content=b"--x\r\n", headers=broken)
    assert "boundary" in refused(content=b"--x", headers={"content-type": "multipart/form-data"})
    compressed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert "compressed" in refused(content=b"x", headers=compressed)


def test_large_bodies_are_refused_before_and_while_they_arrive(serving, photo):
    with serving(max_bytes=1000) as client:
        announced = client.post(
            "/v1/predict", content=b"x" * 1001, headers={"content-type": "application/json"}
        )
        assert announced.status_code == 413
        assert announced.json()["error"].startswith("a body of 1,001 bytes; at most 1,000 are accepted")
        read = []

        def endless():
            for _ in range(100):
                read.append(1)
                yield b"x" * 100

        chunked = client.post("/v1/predict", content=endless(), headers={"content-type": "application/json"})
        assert chunked.status_code == 413
        assert "more than 1,000 bytes" in chunked.json()["error"]
        assert client.service.admission.held_bytes == 0


def test_images_of_too_many_pixels_are_refused_by_their_header(serving, photo, monkeypatch):
    def decode(*arguments):
        raise AssertionError("it was decoded")

    with serving(max_pixels=100) as client:
        monkeypatch.setattr("effnet.serving.served.eval_image", decode)
        for kind in ("jpeg", "png", "webp", "gif"):
            answer = post(client, photo(format=kind))
            assert answer.status_code == 422
            assert answer.json()["results"][0]["error"] == "32 x 24 pixels; at most 100 are accepted"


def test_too_many_images_are_refused(serving, photo):
    with serving(max_images=2) as client:
        for answer in (
            post(client, photo(), photo(), photo()),
            post(client, *([photo()] * 9)),
            client.post("/v1/predict", json={"images": ["QUJD"] * 3}),
        ):
            assert answer.status_code == 413
            assert "images in one request; at most 2 are accepted" in answer.json()["error"]


def test_a_full_queue_tells_clients_to_come_again(serving, photo):
    with serving(max_images=2, max_queue=2) as client:
        with client.service.admission.admit(1):
            assert post(client, photo()).status_code == 200
            refusal = post(client, photo(), photo())
            assert refusal.status_code == 429
            assert refusal.headers["retry-after"] == "1"
            assert refusal.json()["error"].startswith("1 images are waiting and at most 2 may")
        with client.service.admission.admit(2):
            assert post(client, photo()).status_code == 429
        assert post(client, photo(), photo()).status_code == 200
        assert client.service.admission.images == 0


def test_too_many_bytes_at_a_time_are_told_to_come_again(serving, photo):
    with serving(max_bytes=4000, max_held_bytes=4000) as client:
        client.service.admission.hold(3500)
        assert post(client, photo()).status_code == 429
        client.service.admission.release(3500)
        assert post(client, photo()).status_code == 200


def test_an_answer_that_takes_too_long_is_given_up(serving, photo, monkeypatch):
    import threading

    with serving(answer_timeout_s=0.2) as client:
        go = threading.Event()
        model = client.service.models["tiny"]
        monkeypatch.setattr(model, "draw_cam", lambda *_: go.wait(10))
        answer = post(client, photo(), cam="true")
        go.set()
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("no answer within 0.2 seconds")
        assert post(client, photo()).status_code == 200


def test_a_decoder_that_fails_is_one_bad_image(serving, photo, monkeypatch, caplog):
    def fail(*_):
        raise MemoryError

    with serving() as client:
        monkeypatch.setattr("effnet.serving.served.eval_image", fail)
        assert post(client, photo()).json()["results"][0]["error"] == "the image cannot be decoded"
    assert "a decoder failed" in caplog.text


def test_a_forward_pass_that_fails_is_told_and_the_next_one_works(serving, photo, monkeypatch):
    with serving() as client:
        post(client, photo())
        with monkeypatch.context() as patch:
            patch.setattr("effnet.serving.served.prepare_images", None)
            answer = post(client, photo())
        assert answer.status_code == 500
        assert answer.json() == {"error": "the service failed at this request; its log says why"}
        assert post(client, photo()).status_code == 200
        assert client.service.admission.images == 0
        assert 'route="/v1/predict",status="500"} 1.0' in client.get("/metrics").text


# About the service


def test_a_token_is_asked_for(serving, photo):
    with serving(token="secret") as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}):
            for answer in (
                client.post("/v1/predict", files=[("images", ("a.jpg", photo()))], headers=headers),
                client.get("/v1/models", headers=headers),
                client.get("/metrics", headers=headers),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "Authorization: Bearer TOKEN" in answer.json()["error"]
        right = {"authorization": "Bearer secret"}
        answer = client.post("/v1/predict", files=[("images", ("a.jpg", photo()))], headers=right)
        assert answer.status_code == 200
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/limits").json()["needs_token"] is True


def test_a_token_may_have_any_characters(serving):
    with serving(token="gehe\u00efm \u2603") as client:
        for token, status in (("gehe\u00efm \u2603", 200), ("gehe\u00efm", 401), ("\u2603", 401)):
            answer = client.get("/v1/models", headers={"authorization": f"Bearer {token}".encode()})
            assert answer.status_code == status


def test_the_service_tells_about_its_networks_and_limits(client):
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["network"], model["image_size"]) == ("tiny", "tiny", 16)
    assert model["classes"] == ["blue", "green", "red"]
    assert model["parameters"] > 100
    assert client.get("/v1/limits").json() == {
        "max_bytes": 32 * 2**20,
        "max_pixels": 50_000_000,
        "max_images": 32,
        "needs_token": False,
    }


def test_the_service_is_ready_once_it_is_warm_and_until_it_drains(serving, photo):
    with serving() as client:
        assert client.get("/healthz").json() == {"status": "alive"}
        post(client, photo())
        assert client.get("/readyz").json() == {"status": "ready"}
        client.service.is_draining = True
        assert client.get("/readyz").status_code == 503
        assert "shutting down" in client.get("/readyz").json()["error"]
        last = post(client, photo())
        assert (last.status_code, last.headers["connection"]) == (200, "close")
        client.service.is_draining = False


def test_prometheus_reads_what_happened(serving, photo):
    with serving() as client:
        post(client, photo(), photo())
        post(client, b"no image")
        client.get("/nothing/here")
        text = client.get("/metrics").text
    assert 'effnet_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'effnet_requests_total{route="/v1/predict",status="422"} 1.0' in text
    assert 'status="404"' in text
    assert "nothing" not in text
    assert re.search(r'effnet_batch_images_sum\{model="tiny"\} 2.0', text)
    assert "effnet_queue_images 0.0" in text
    assert "effnet_requests_in_flight 1.0" in text
    assert 'effnet_request_seconds_bucket{le="0.05",route="/v1/predict"}' in text


def test_the_log_has_one_json_object_a_request(serving, photo):
    lines = []
    with serving(log=lines.append) as client:
        post(client, photo())
        client.get("/nothing")
    first, second = map(json.loads, lines)
    assert (first["method"], first["path"], first["status"]) == ("POST", "/v1/predict", 200)
    assert first["bytes"] > 50
    assert first["ms"] > 0
    assert (second["path"], second["status"]) == ("/nothing", 404)


def test_every_response_has_headers_that_keep_browsers_safe(client):
    for path in ("/healthz", "/nothing", "/"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


def test_other_sites_may_ask_only_when_they_are_allowed(serving):
    asking = {"origin": "https://a.example"}
    with serving() as client:
        assert "access-control-allow-origin" not in client.get("/healthz", headers=asking).headers
    with serving(allow_origins=("https://a.example",)) as client:
        assert (
            client.get("/healthz", headers=asking).headers["access-control-allow-origin"] == asking["origin"]
        )
        other = client.get("/healthz", headers={"origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


def test_the_interface_describes_itself_without_scripts_from_elsewhere(client):
    document = client.get("/openapi.json").json()
    predict = document["paths"]["/v1/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "401", "413", "422", "429", "503"} <= set(predict["responses"])
    assert client.get("/docs").status_code == 404
    assert client.get("/redoc").status_code == 404


def test_wrong_addresses_and_methods_are_told(client):
    assert "nothing at this address" in client.get("/v1/nothing").json()["error"]
    answer = client.get("/v1/predict")
    assert (answer.status_code, "GET is not possible" in answer.json()["error"]) == (405, True)


def test_the_page_is_at_the_root_and_never_an_old_one(client):
    for path in PAGE.iterdir():
        answer = client.get("/" if path.name == "index.html" else f"/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["cache-control"] == "no-cache"
    assert client.get("/page.js").headers["content-type"].startswith("text/javascript")
    assert client.post("/").status_code == 405


def test_nothing_beside_the_page_is_served(client):
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd"):
        assert client.get(path).status_code == 404
    assert np.all([path.suffix != ".py" for path in PAGE.rglob("*")])
