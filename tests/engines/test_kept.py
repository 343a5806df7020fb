import json

import pytest
from filelock import FileLock, Timeout

from effnet.engines.figures import Figures
from effnet.engines.kept import Measured, kept_engines, network_digest

ABOUT = {"packages": {"torch": "2"}}
FOUND = Measured(
    figures={
        "eager": Figures(start=0.0, one=0.2, many=0.1),
        "onnx": Figures(start=1.0, one=0.1, many=0.1),
    },
    refused={"openvino": "no"},
    measured="2026-01-02",
)


@pytest.fixture
def kept(predictor, own_folder, tmp_path):
    with kept_engines(predictor.model, 16) as kept:
        staged = tmp_path / "staged"
        staged.mkdir()
        (staged / "model.xml").write_text("layers")
        (staged / "model.bin").write_bytes(b"weights")
        kept.keep_file("openvino", ABOUT, staged)
        yield kept


def test_a_file_is_found_by_what_made_it(kept):
    assert kept.has_file("openvino", ABOUT)
    assert not kept.has_file("onnx", ABOUT)
    assert not kept.has_file("openvino", {"packages": {"torch": "3"}})


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_file_that_was_changed_or_is_gone_does_not_count(kept, name):
    path = kept.folder / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert not kept.has_file("openvino", ABOUT)
    path.unlink()
    assert not kept.has_file("openvino", ABOUT)


@pytest.mark.parametrize("text", ["", "[]", '{"about": 1}', '{"about": {"packages": {"torch": "2"}}}'])
def test_a_damaged_document_does_not_count(kept, text):
    (kept.folder / "openvino.json").write_text(text)
    assert not kept.has_file("openvino", ABOUT)


def test_a_document_cannot_name_files_elsewhere(kept, tmp_path):
    (tmp_path / "other").write_text("layers")
    document = json.loads((kept.folder / "openvino.json").read_text())
    digest = document["files"]["model.xml"]
    document["files"] = {str(tmp_path / "other"): digest}
    (kept.folder / "openvino.json").write_text(json.dumps(document))
    assert not kept.has_file("openvino", ABOUT)


def test_what_was_measured_is_found_for_the_same_machine(kept):
    kept.keep_measured(ABOUT | {"threads": 2}, FOUND)
    assert kept.find_measured(ABOUT | {"threads": 2}) == FOUND
    assert kept.find_measured(ABOUT | {"threads": 3}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"figures": {"onnx": {"start": 0, "one": 1, "many": 1}}},
        {"figures": {"eager": {"start": 0, "one": -1, "many": 1}}},
        {"figures": {"eager": {"start": 0, "one": 1}}},
        {"figures": []},
        {"refused": 1},
    ],
)
def test_damaged_figures_are_measured_again(kept, change):
    kept.keep_measured(ABOUT, FOUND)
    (path,) = kept.folder.glob("measured-*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert kept.find_measured(ABOUT) is None


def test_other_weights_or_another_spec_are_another_network(predictor):
    first = network_digest(predictor.model)
    assert network_digest(predictor.model) == first
    predictor.model.classifier.bias.data += 1e-6
    assert network_digest(predictor.model) != first


def test_one_process_at_a_time(kept):
    with pytest.raises(Timeout):
        FileLock(kept.folder / ".lock", timeout=0, is_singleton=False).acquire()


def test_where_nothing_can_be_written_the_folder_is_temporary(predictor, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file"))
    with kept_engines(predictor.model, 16) as kept:
        assert kept.folder.is_dir()
        assert tmp_path not in kept.folder.parents
    assert not kept.folder.exists()


def test_the_cache_makes_room_before_a_file_is_kept(kept, predictor, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("effnet.engines.kept.make_room", asked.append)
    staged = tmp_path / "more"
    staged.mkdir()
    (staged / "model.onnx").write_bytes(b"12345")
    kept.keep_file("onnx", ABOUT, staged)
    assert asked == [5]
