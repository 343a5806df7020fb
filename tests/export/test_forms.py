import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import onnx
import pytest
import torch

from effnet.errors import UserError
from effnet.export.calls import Calls
from effnet.export.card import CARD_KEY, card_from_json
from effnet.export.engine import is_exported, load_engine
from effnet.export.forms import FORMS, form_named

RUNNABLE = [name for name, form in FORMS.items() if form.open is not None]
FREE = [name for name in RUNNABLE if FORMS[name].has_any_size]


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_file_answers_like_the_network(write, difference, name):
    assert difference(load_engine(write(name))) < 2e-6


@pytest.mark.parametrize("name", FREE)
def test_a_file_for_any_size_and_batch_is_right_at_odd_and_even_sizes(write, difference, name):
    engine = load_engine(write(name, batch_size=0, any_size=True))
    for side, count in ((18, 3), (17, 1), (23, 2), (32, 4)):
        assert difference(engine, count, side) < 2e-6


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_file_is_called_by_several_threads_at_a_time(write, noise, normalised, name):
    file, pixels = write(name, batch_size=0), normalised(noise(3))
    calls = Calls(threads=1, at_once=2, sizes=(3, 1) if name == "openvino" else ())
    engine, expected = load_engine(file, calls=calls), load_engine(file)(pixels)
    with ThreadPoolExecutor(3) as pool:
        for answer in pool.map(engine, [pixels] * 9):
            torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
        alone = torch.cat(list(pool.map(engine, pixels.split(1))))
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)


_CLOSED = """
import signal, sys
from effnet.export import load_engine
files = [load_engine(sys.argv[1]) for _ in range(2)]
while files:
    del files[0]
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_signals_are_handled_when_files_have_been_open(write, name):
    """OpenVINO gives signal handlers a stack of their own, where the processor has AMX."""
    command = [sys.executable, "-c", _CLOSED, str(write(name))]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "handled\n"


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_file_that_normalises_itself_takes_bytes(write, difference, noise, normalised, name):
    engine = load_engine(write(name, batch_size=2, raw_pixels=True))
    images = noise(3)
    assert difference(engine) < 2e-6
    assert torch.equal(torch.from_numpy(engine.answer(images.numpy())), engine(normalised(images)))


@pytest.mark.parametrize("name", [name for name in RUNNABLE if "fp16" in FORMS[name].precisions])
def test_half_precision_is_smaller_and_close(write, network, difference, name):
    path = write(name, precision="fp16")
    assert difference(load_engine(path)) < 5e-3
    parameters = sum(parameter.numel() for parameter in network.parameters())
    assert weights_bytes(write(name)) - weights_bytes(path) > 1.3 * parameters


@pytest.mark.parametrize("name", [name for name in RUNNABLE if "int8" in FORMS[name].precisions])
def test_int8_is_close_on_what_it_was_calibrated_with(write, difference, name):
    path = write(name, precision="int8")
    assert 1e-4 < difference(load_engine(path), 8) < 0.25


def weights_bytes(path) -> int:
    data = path.with_suffix(".bin")
    return (data if data.exists() else path).stat().st_size


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_says_itself_what_is_needed_to_use_it(write, preprocessing, name, precision):
    if precision not in FORMS[name].precisions:
        return
    engine = load_engine(write(name, precision=precision))
    assert engine.class_names == ("daisy", "rose", "Straße")
    assert engine.preprocessing == preprocessing
    assert engine.output == "sigmoid"
    assert (engine.card.form, engine.card.precision, engine.card.parameters) == (name, precision, 1000)


@pytest.mark.parametrize("name", RUNNABLE)
def test_no_file_tells_where_the_package_lies(write, name):
    path = write(name)
    for file in path.parent.iterdir():
        contents = file.read_bytes()
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                contents = b"".join(map(archive.read, archive.namelist()))
        assert b"site-packages" not in contents
        assert b"src/effnet" not in contents


@pytest.mark.parametrize("name", RUNNABLE)
def test_another_size_than_the_files_is_told(write, name):
    with pytest.raises(UserError, match=r"takes images of 18 px, got 20; export it with --size 20"):
        load_engine(write(name))(torch.zeros(1, 3, 20, 20))


def test_no_images_are_no_answers(write):
    assert load_engine(write("pt2"))(torch.zeros(0, 3, 18, 18)).shape == (0, 3)


def test_batch_norm_is_folded_and_padding_is_part_of_convolutions(write):
    kinds = {node.op_type for node in onnx.load(write("onnx")).graph.node}
    assert not kinds & {"BatchNormalization", "Pad", "Shape"}


def test_dimensions_of_onnx_have_names(write):
    graph = onnx.load(write("onnx", batch_size=0, any_size=True)).graph
    dimensions = [
        dimension.dim_param or dimension.dim_value for dimension in graph.input[0].type.tensor_type.shape.dim
    ]
    assert dimensions == ["batch", 3, "height", "width"]
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_int8_leaves_out_squeeze_and_excitation(write):
    graph = onnx.load(write("onnx", precision="int8")).graph
    weights = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = [node for node in convolutions if node.input[1] not in weights]
    assert len(convolutions) > len(kept) == 4  # Two blocks, two convolutions each.


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("openvino", "openvino", "openvino")],
)
def test_a_package_that_is_missing_is_told_by_its_form(write, monkeypatch, name, package, extra):
    path = write(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'effnet\[{extra}\]'"):
        load_engine(path)


def test_forms_and_files_that_are_not_there_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no form 'onx'; did you mean 'onnx'"):
        form_named("onx")
    with pytest.raises(UserError, match=r"cannot tell the form of .*; known: \.onnx, \.xml"):
        load_engine(tmp_path / "model.h5")
    with pytest.raises(UserError, match="there is no file"):
        load_engine(tmp_path / "model.onnx")
    assert not is_exported(tmp_path / "model.onnx")


@pytest.mark.parametrize("name", RUNNABLE)
def test_damaged_files_are_told(write, tmp_path, name):
    path = write(name)
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="model"):
        load_engine(damaged)


def test_a_file_of_others_is_told(write, tmp_path):
    model = onnx.load(write("onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(
        UserError, match="does not say what it takes and answers; give a file of effnet export"
    ):
        load_engine(tmp_path / "other.onnx")
    model.metadata_props.add(key=CARD_KEY, value=json.dumps({"form": "onnx"}))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match="is missing"):
        load_engine(tmp_path / "other.onnx")


def test_core_ml_is_written_but_not_run_here(write):
    coremltools = pytest.importorskip("coremltools")
    path = write("coreml")
    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    assert card_from_json(model.user_defined_metadata[CARD_KEY], "it").class_names == (
        "daisy",
        "rose",
        "Straße",
    )
    (given,), (logits,) = model.get_spec().description.input, model.get_spec().description.output
    assert (given.name, list(given.type.multiArrayType.shape), logits.name) == (
        "pixels",
        [1, 3, 18, 18],
        "logits",
    )
    with pytest.raises(UserError, match="cannot be run by effnet"):
        load_engine(path)
