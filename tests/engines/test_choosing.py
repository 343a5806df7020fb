import sys
from dataclasses import replace

import pytest
import torch

from effnet.engines import choosing, measuring, use_engine
from effnet.engines.figures import Figures
from effnet.engines.kept import Measured, kept_engines
from effnet.errors import UserError
from effnet.evaluation.predictor import Predictor
from effnet.export import forms

FIGURES = {
    "eager": Figures(start=0.0, one=0.2, many=0.1),
    "onnx": Figures(start=1.0, one=0.05, many=0.05),
    "openvino": Figures(start=3.0, one=0.1, many=0.04),
}
MEASURING = "measuring which engine is fastest here, once for these weights; --engine eager does not"


@pytest.fixture
def pixels():
    return torch.randn(9, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def lines():
    return []


@pytest.fixture
def measured(monkeypatch, own_folder):
    """Figures that were not measured; how often somebody asked for them."""
    asked = []

    def measure(names, source, kept, threads, *, tell):
        asked.append((list(names), threads))
        figures = {name: FIGURES[name] for name in ("eager", *names)}
        return Measured(figures=figures, refused={}, measured="2026-01-02")

    monkeypatch.setattr(choosing, "measure_engines", measure)
    return asked


def _answers(predictor, pixels):
    """What the network says, what its engine says with all threads, and what with one."""
    with torch.inference_mode():
        expected = predictor.model(pixels)
    return expected, predictor.engine(pixels), predictor.engine.alone(pixels)


@pytest.mark.parametrize("name", ["eager", "onnx", "openvino"])
def test_every_engine_answers_like_the_network(predictor, pixels, lines, name):
    assert use_engine(predictor, name, threads=2, tell=lines.append) == name
    assert lines == [f"engine {name}: as asked for"]
    for count in (1, 2, 9):
        expected, all_threads, alone = _answers(predictor, pixels[:count])
        torch.testing.assert_close(all_threads, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)


def test_the_fastest_is_measured_once_and_kept(predictor, pixels, lines, measured):
    names = ["onnx", "openvino"]
    assert use_engine(predictor, threads=2, tell=lines.append) == "openvino"
    assert measured == [(names, 2)]
    line = "engine onnx for one image and openvino for more: 4.0 and 2.5 times as fast as eager PyTorch "
    assert lines == [MEASURING, line + "(measured 2026-01-02)"]
    expected, all_threads, alone = _answers(predictor, pixels)
    torch.testing.assert_close(all_threads, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)
    again = Predictor(predictor.model, predictor.class_names, predictor.preprocessing)
    assert use_engine(again, threads=2, tell=lines.append) == "openvino"
    assert lines[2:] == [line + "(measured 2026-01-02)"]
    assert len(measured) == 1
    use_engine(again, threads=1)
    assert len(measured) == 2


def test_a_damaged_file_is_written_again(predictor, pixels, lines, measured, own_folder):
    use_engine(predictor, threads=1)
    for path in own_folder.rglob("model.*"):
        path.write_bytes(b"no graph at all")
    assert use_engine(predictor, threads=1, tell=lines.append) == "openvino"
    expected, all_threads, _ = _answers(predictor, pixels)
    torch.testing.assert_close(all_threads, expected, rtol=1e-5, atol=1e-5)


def test_a_few_images_are_answered_without_a_word(predictor, lines, measured):
    assert use_engine(predictor, images=499, tell=lines.append) == "eager"
    assert (lines, measured, predictor.engine) == ([], [], None)


def test_a_few_images_do_not_wait_for_one_who_measures(predictor, lines, measured, monkeypatch):
    monkeypatch.setattr(choosing, "_WAIT_S", 0.1)
    use_engine(predictor, threads=1)
    predictor.engine = None
    with kept_engines(predictor.model, predictor.preprocessing.image_size):
        assert use_engine(predictor, images=100, threads=1, tell=lines.append) == "eager"
    assert (lines, predictor.engine) == ([], None)
    assert use_engine(predictor, images=100, threads=1) == "onnx"


@pytest.mark.parametrize("pays", [False, True])
def test_of_many_images_others_are_measured_where_that_pays(predictor, lines, measured, monkeypatch, pays):
    monkeypatch.setattr(choosing, "measuring_pays", lambda images, seconds: pays and images == 5000)
    assert use_engine(predictor, images=5000, tell=lines.append) == ("openvino" if pays else "eager")
    if pays:
        assert lines == [
            MEASURING, "engine openvino: 2.5 times as fast as eager PyTorch (measured 2026-01-02)"
        ]  # fmt: skip
    else:
        assert lines == ["engine eager: it has answered these images before others have been measured"]
        assert (measured, predictor.engine) == ([], None)


def test_what_is_known_decides_for_any_number_of_images(predictor, lines, measured):
    use_engine(predictor, threads=1)
    predictor.engine = None
    assert use_engine(predictor, images=3, threads=1, tell=lines.append) == "eager"
    assert predictor.engine is None
    assert use_engine(predictor, images=100, threads=1, tell=lines.append) == "onnx"
    assert predictor.engine is not None
    assert lines == [
        "engine eager: no other has answered 3 images sooner (measured 2026-01-02)",
        "engine onnx: 2.0 times as fast as eager PyTorch (measured 2026-01-02)",
    ]


@pytest.fixture
def wrong_onnx(monkeypatch):
    """ONNX files whose answers are a little too large."""
    real = forms.FORMS["onnx"].open

    def wrong(path, calls):
        card, run = real(path, calls)
        return card, lambda pixels: run(pixels) * 1.001

    monkeypatch.setitem(forms.FORMS, "onnx", replace(forms.FORMS["onnx"], open=wrong))


REFUSAL = (
    "on 16 made images without labels its logits differ by up to 0.001 of the largest one; allowed: 0.0001"
)


def test_an_engine_that_answers_otherwise_is_told_and_left_out(predictor, lines, wrong_onnx, own_folder):
    use_engine(predictor, threads=1, tell=lines.append)
    assert lines[:2] == [MEASURING, f"engine onnx cannot be used: {REFUSAL}"]
    assert "onnx" not in lines[2]
    assert not list(own_folder.rglob("*.onnx"))
    assert not list(own_folder.rglob(".begun-*"))
    del lines[:]
    use_engine(predictor, threads=1, tell=lines.append)
    assert lines[0] == f"engine onnx cannot be used: {REFUSAL}"


def test_an_engine_that_is_asked_for_and_answers_otherwise_is_an_error(predictor, wrong_onnx, own_folder):
    with pytest.raises(UserError, match=r"--engine onnx cannot be used: on 16 made images .* leave it out"):
        use_engine(predictor, "onnx", threads=1)


def test_a_converter_that_fails_is_one_line(predictor, lines, monkeypatch, own_folder):
    def broken(*_):
        raise RuntimeError("the graph\nis strange")

    monkeypatch.setattr(measuring, "write_engine", broken)
    assert use_engine(predictor, threads=1, tell=lines.append) == "eager"
    assert lines[1:] == [
        "engine onnx cannot be used: the graph",
        "engine openvino cannot be used: the graph",
        f"engine eager: no other is faster here (measured {lines[3].split()[-1]}",
    ]


def test_missing_packages_are_told(predictor, lines, monkeypatch, own_folder):
    monkeypatch.setattr("effnet.engines.opening.find_spec", lambda module: None)
    assert use_engine(predictor, tell=lines.append) == "eager"
    assert lines == ["engine eager: no other is installed; pip install 'effnet[onnx]' or 'effnet[openvino]'"]
    assert predictor.engine is not None
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs the package onnxruntime: pip .*; or leave --engine onnx out"):
        use_engine(predictor, "onnx")


def test_what_cannot_be_is_told(predictor):
    with pytest.raises(UserError, match="there is no engine 'onx'; did you mean 'onnx'"):
        use_engine(predictor, "onx")
    exported = Predictor(lambda pixels: pixels, ("a",), predictor.preprocessing)
    assert use_engine(exported) == "exported"
    with pytest.raises(UserError, match="is run by its own runtime; leave --engine onnx out"):
        use_engine(exported, "onnx")
    predictor.device = torch.device("cuda")
    assert use_engine(predictor) == "eager"
    with pytest.raises(UserError, match="--engine onnx computes on the processor; add --device cpu"):
        use_engine(predictor, "onnx")


def test_a_cache_that_cannot_be_written_costs_only_time(predictor, pixels, lines, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "file"))
    use_engine(predictor, "openvino", threads=1)
    expected, all_threads, _ = _answers(predictor, pixels)
    torch.testing.assert_close(all_threads, expected, rtol=1e-5, atol=1e-5)
