import json
import shutil
import sys
from dataclasses import replace

import pytest

from effnet.export import forms, pt2_form
from effnet.weights import load_weights


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The run as pt2 and OpenVINO files, by the Python interface."""
    from effnet.api import export

    folder = tmp_path_factory.mktemp("exported") / "new"
    export(finished, folder, to=("pt2", "openvino"))
    return folder


@pytest.fixture
def mistake_after_progress(effnet, finished):
    """Export the run, which the user got wrong; return the last line, behind those that tell of progress."""

    def export(*arguments):
        answer = effnet("export", finished, *arguments)
        assert answer.code == 2
        return answer.err.splitlines()[-1]

    return export


def test_forms_are_written_with_what_was_found_about_them(exported):
    assert sorted(path.name for path in exported.iterdir()) == [
        "model.bin",
        "model.pt2",
        "model.xml",
        "parity.json",
    ]
    entries = {entry["form"]: entry for entry in json.loads((exported / "parity.json").read_text())}
    assert entries.keys() == {"pt2", "openvino"}
    for entry in entries.values():
        assert entry["max_relative_difference"] < 1e-4
        assert (entry["top1_agreement"], entry["images_compared"]) == (1.0, 3)
        assert entry["top1"] == entry["network_top1"]
        assert entry["images"] == "3 images that the run held out"
        assert entry["latency"]["calls"] == entry["network_latency"]["calls"] > 10
        assert entry["times_as_fast"] > 0
        assert entry["packages"]["torch"]
    assert entries["openvino"]["size_bytes"] == sum(
        (exported / name).stat().st_size for name in ("model.xml", "model.bin")
    )


def test_an_exported_file_predicts_and_evaluates_like_its_run(effnet, finished, exported, photos):
    image = photos / "red" / "0.jpg"
    expected = json.loads(effnet("predict", finished, image, "--json").out)
    for name in ("model.pt2", "model.xml"):
        answer = effnet("predict", exported / name, image, "--json")
        assert (answer.code, answer.err) == (0, "")
        (found,) = json.loads(answer.out)
        for ours, theirs in zip(found["classes"], expected[0]["classes"], strict=True):
            assert ours["name"] == theirs["name"]
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
        scores = json.loads(effnet("evaluate", exported / name, photos, "--json").out)
        of_run = json.loads(effnet("evaluate", finished, photos, "--json").out)
        assert scores["top1"] == of_run["top1"]
        assert scores["loss"] == pytest.approx(of_run["loss"], rel=1e-4)


def test_a_table_says_how_large_close_and_fast_each_file_is(effnet, finished, tmp_path):
    answer = effnet("export", finished, "--to", "onnx", "--out", tmp_path / "mine.onnx", "--dynamic-batch")
    assert answer.code == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["mine.onnx", "parity.json"]
    lines = answer.out.splitlines()
    assert lines[0].split()[:3] == ["file", "precision", "size"]
    assert lines[1].startswith("PyTorch")
    assert lines[2].startswith("mine.onnx")
    assert "100.00%" in lines[2]
    assert "compared on 3 images that the run held out" in answer.out
    assert "writing onnx" in answer.err


def test_weights_without_a_run_are_compared_on_made_images(effnet, finished, tmp_path):
    file = finished / "checkpoints" / "best.safetensors"
    answer = effnet("export", file, "--to", "pt2", "--out", tmp_path / "new", "--json")
    (entry,) = json.loads(answer.out)
    assert (entry["images"], entry["top1"]) == ("64 made images without labels", None)
    assert entry["max_relative_difference"] < 1e-4
    message = effnet("export", file, "--to", "onnx", "--precision", "int8", "--out", tmp_path / "x").err
    assert "is no run, so it has no training images" in message


def test_int8_is_calibrated_on_the_training_images(effnet, finished, photos, tmp_path):
    answer = effnet(
        "export", finished, "--to", "openvino", "--precision", "fp32,int8", "--out", tmp_path / "new",
        "--check", photos, "--max-drop", "0.2", "--keep", "ends", "--json",
    )  # fmt: skip
    if answer.code == 0:  # A network of this size may lose too much; then it must be refused.
        assert [entry["file"] for entry in json.loads(answer.out)] == ["model.xml", "model-int8.xml"]
    else:
        assert "openvino in int8 is refused: on 18 images of" in answer.err
        assert not (tmp_path / "new" / "model-int8.xml").exists()
    assert (tmp_path / "new" / "model.xml").exists()


def test_a_file_that_answers_otherwise_is_refused_and_leaves_nothing(effnet, finished, tmp_path, monkeypatch):
    real = pt2_form.open_file

    def wrong(path, threads):
        card, run = real(path, threads)
        return card, lambda pixels: run(pixels) * 1.001

    monkeypatch.setitem(forms.FORMS, "pt2", replace(forms.FORMS["pt2"], open=wrong))
    answer = effnet("export", finished, "--to", "pt2,openvino", "--out", tmp_path / "new")
    assert answer.code == 1
    assert "pt2 is refused: on 3 images that the run held out its logits differ by up to 0.001" in answer.err
    assert answer.err.endswith(f"; kept: {tmp_path / 'new' / 'model.xml'}\n")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "model.bin",
        "model.xml",
        "parity.json",
    ]
    answer = effnet("export", finished, "--to", "pt2", "--out", tmp_path / "alone" / "model.pt2")
    assert answer.code == 1
    assert not (tmp_path / "alone").exists()
    assert not list(tmp_path.glob(".export-*"))


def test_a_network_that_amplifies_rounding_is_compared_with_double_precision(effnet, finished, tmp_path):
    """Limits below single precision stand for such a network here."""
    answer = effnet(
        "export", finished, "--to", "openvino", "--tolerance", "1e-9", "--out", tmp_path, "--json"
    )
    (entry,) = json.loads(answer.out)
    assert 1e-9 < entry["max_relative_difference"] < 1e-5
    assert 0 < entry["network_rounding"] < 1e-5
    assert entry["max_relative_difference_to_double"] <= 4 * entry["network_rounding"]
    assert "asking the network again in double precision" in answer.err


def test_a_file_for_any_size_that_is_right_at_one_only_is_refused(effnet, finished, tmp_path, monkeypatch):
    real = pt2_form.open_file

    def wrong(path, threads):
        card, run = real(path, threads)
        return card, lambda pixels: run(pixels) * (1.0 if pixels.shape[2] == 16 else 1.001)

    monkeypatch.setitem(forms.FORMS, "pt2", replace(forms.FORMS["pt2"], open=wrong))
    answer = effnet("export", finished, "--to", "pt2", "--dynamic-size", "--out", tmp_path / "new")
    assert answer.code == 1
    assert "pt2 is refused: at 17 px its logits differ by up to 0.001" in answer.err
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_run_is_written_when_that_is_asked_for(effnet, finished, tmp_path):
    pytest.importorskip("coremltools")
    for _ in range(2):  # The second time, the package is there already.
        answer = effnet("export", finished, "--to", "coreml", "--unchecked", "--out", tmp_path)
        assert answer.code == 0
    (line,) = [line for line in answer.out.splitlines() if line.startswith("model.mlpackage")]
    assert "not run" in line
    (entry,) = json.loads((tmp_path / "parity.json").read_text())
    assert (entry["is_checked"], entry["file"]) == (False, "model.mlpackage")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.mlpackage", "parity.json"]


def test_what_a_form_cannot_do_is_told(mistake, finished, tmp_path):
    out = ("--out", tmp_path / "new")
    assert "there is no form 'onix'; did you mean 'onnx'" in mistake("export", finished, "--to", "onix", *out)
    assert "there is no export to LiteRT: its converter needs torch below 2.13" in mistake(
        "export", finished, "--to", "litert", *out
    )
    assert "there is no precision 'int4'; did you mean 'int8'" in mistake(
        "export", finished, "--to", "onnx", "--precision", "int4", *out
    )
    assert "pt2 cannot be exported in int8; it can in fp32, fp16" in mistake(
        "export", finished, "--to", "pt2", "--precision", "int8", *out
    )
    assert "executorch files are for one size; leave --dynamic-size out" in mistake(
        "export", finished, "--to", "executorch", "--dynamic-size", *out
    )
    assert "executorch files are for one batch size; choose one with --batch-size" in mistake(
        "export", finished, "--to", "executorch", "--dynamic-batch", *out
    )
    assert "coreml files cannot be run here" in mistake("export", finished, "--to", "coreml", *out)
    assert "2 files do not fit into" in mistake(
        "export", finished, "--to", "onnx,pt2", "--out", tmp_path / "new.onnx"
    )
    assert "timm and onnx do not go together" in mistake("export", finished, "--to", "timm,onnx", *out)
    assert "keep" in mistake("export", finished, "--to", "onnx", "--keep", "all", *out)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("form", "title"), [("onnx", "ONNX"), ("openvino", "OpenVINO"), ("executorch", "ExecuTorch")]
)
def test_a_package_that_is_missing_is_told(mistake_after_progress, tmp_path, monkeypatch, form, title):
    for name in [name for name in sys.modules if name.partition(".")[0] == form]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, form, None)
    message = mistake_after_progress("--to", form, "--out", tmp_path / "new")
    assert message == f"effnet: {title} needs the package {form}: pip install 'effnet[{form}]'"
    assert not (tmp_path / "new").exists()


def test_options_that_say_nothing_to_an_exported_file_are_told(mistake, exported, photos):
    image = photos / "red" / "0.jpg"
    assert "knows its network and its classes; leave --model out" in mistake(
        "predict", exported / "model.pt2", image, "--model", "v2-s"
    )
    assert "is run on the processor; leave --device cuda out" in mistake(
        "predict", exported / "model.pt2", image, "--device", "cuda"
    )
    assert "was exported for another runtime, which answers but shows no weights" in mistake(
        "export", exported / "model.pt2", "--to", "onnx", "--out", exported / "more"
    )
    assert "takes images of 16 px, got 20; export it with --size 20" in mistake(
        "evaluate", exported / "model.pt2", photos, "--size", "20"
    )


def test_another_export_into_the_folder_adds_to_its_document(effnet, finished, exported, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(exported, folder)
    (folder / "model.xml").unlink()
    effnet("export", finished, "--to", "pt2", "--precision", "fp16", "--out", folder, "--tolerance", "0.05")
    entries = json.loads((folder / "parity.json").read_text())
    assert [entry["file"] for entry in entries] == ["model.pt2", "model-fp16.pt2"]
    assert load_weights(str(finished / "checkpoints" / "best.safetensors")).spec.name == "tiny"
