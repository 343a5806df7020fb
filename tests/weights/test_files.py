from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from effnet.arch.preprocessing import Preprocessing
from effnet.errors import UserError
from effnet.weights.files import read_weights, save_weights
from effnet.weights.storage import read_metadata, read_tensors, write_tensors

NAMES = tuple("abcdefg")
PREPROCESSING = Preprocessing(image_size=48, interpolation="bicubic", crop_fraction=0.9)


def save(path, state, spec, **changes):
    told = {"class_names": NAMES, "preprocessing": PREPROCESSING, "provenance": "a test"} | changes
    save_weights(path, state, spec, **told)


def test_everything_comes_back(tmp_path, tiny, make_state):
    spec, path = replace(tiny, padding="symmetric", norm_epsilon=1e-5), tmp_path / "x.safetensors"
    save(path, make_state(spec), spec)
    loaded = read_weights(path)
    assert (loaded.spec, loaded.class_names, loaded.preprocessing) == (spec, NAMES, PREPROCESSING)
    assert loaded.origin == f"{path} (a test)"
    assert all(torch.equal(loaded.state[name], tensor) for name, tensor in make_state(spec).items())


def test_what_is_not_known_comes_back_as_none(tmp_path, tiny, make_state):
    save(
        tmp_path / "x.safetensors",
        make_state(tiny),
        tiny,
        class_names=None,
        preprocessing=None,
        provenance="",
    )
    loaded = read_weights(tmp_path / "x.safetensors")
    assert loaded.class_names is loaded.preprocessing is None
    assert loaded.origin == str(tmp_path / "x.safetensors")


def test_equal_weights_are_equal_bytes(tmp_path, tiny, make_state):
    for name in ("x", "y"):
        save(tmp_path / name, make_state(tiny), tiny)
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_class_names_must_be_as_many_as_classes(tmp_path, tiny, make_state):
    with pytest.raises(UserError, match="tiny has 7 classes, got 2 class names"):
        save(tmp_path / "x.safetensors", make_state(tiny), tiny, class_names=["a", "b"])
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_none(tmp_path):
    save_file({"conv_stem.weight": torch.ones(2)}, tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors") is None


def test_a_file_that_contradicts_itself_is_refused(tmp_path, tiny, make_state):
    path = tmp_path / "x.safetensors"
    save(path, make_state(tiny), replace(tiny, num_classes=9), class_names=None)
    with pytest.raises(UserError, match=r"says 3 channels and 9 classes; it holds \(3, 7\)"):
        read_weights(path)


def test_the_output_comes_back_and_softmax_leaves_no_trace(tmp_path, tiny, make_state):
    for output in ("softmax", "sigmoid"):
        save(tmp_path / output, make_state(tiny), tiny, output=output)
        assert read_weights(tmp_path / output).output == output
    assert "output" not in read_metadata(tmp_path / "softmax")


def test_an_unknown_output_is_refused(tmp_path, tiny, make_state):
    save(tmp_path / "x", make_state(tiny), tiny, output="sigmoid")
    write_tensors(
        tmp_path / "x", read_tensors(tmp_path / "x"), read_metadata(tmp_path / "x") | {"output": "tanh"}
    )
    with pytest.raises(UserError, match="has the output 'tanh'; allowed: softmax, sigmoid"):
        read_weights(tmp_path / "x")
