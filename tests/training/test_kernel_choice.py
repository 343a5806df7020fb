from dataclasses import replace

import pytest
import torch

from effnet.api import start_run
from effnet.arch import ExternalSpec, load_spec
from effnet.arch.family import released_preprocessing
from effnet.config import Config, TrainConfig
from effnet.errors import UserError
from effnet.training import kernel_choice
from effnet.training.kernel_choice import check_kernels, default_kernels, kernels_line

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = load_spec("v2-b0")
EAGER = TrainConfig(kernels="numba", precision="fp32", memory_format="channels_last", compile="off")


@pytest.fixture(autouse=True)
def with_numba(monkeypatch):
    monkeypatch.setattr(kernel_choice, "has_numba", lambda: True)


@pytest.fixture
def without_numba(monkeypatch, with_numba):
    monkeypatch.setattr(kernel_choice, "has_numba", lambda: False)


def test_numba_is_the_default_where_its_kernels_run():
    assert default_kernels(EAGER, SPEC, CPU) == "numba"
    assert default_kernels(replace(EAGER, precision="bf16"), SPEC, CPU) == "numba"
    assert default_kernels(EAGER, SPEC, CUDA) == "plain"
    for change in ({"precision": "fp16"}, {"memory_format": "contiguous"}, {"compile": "default"}):
        assert default_kernels(replace(EAGER, **change), SPEC, CPU) == "plain"
    other = ExternalSpec(
        name="timm:resnet50", train_size=224, classifier="fc", preprocessing=released_preprocessing(SPEC)
    )
    assert default_kernels(EAGER, other, CPU) == "plain"


def test_without_numba_the_default_is_plain_and_a_line_advises_it(without_numba):
    assert default_kernels(EAGER, SPEC, CPU) == "plain"
    plain = Config(train=replace(EAGER, kernels="plain"))
    assert "pip install 'effnet[cpu]'" in kernels_line(plain, SPEC, CPU)
    assert kernels_line(plain, SPEC, CUDA) == ""


def test_going_on_without_numba_is_told(without_numba):
    assert "Numba is not installed here" in kernels_line(Config(train=EAGER), SPEC, CPU)


@pytest.mark.parametrize(
    ("train", "device", "message"),
    [
        (EAGER, CUDA, "is for processors, and the run is on cuda"),
        (replace(EAGER, compile="default"), CPU, "do not go together"),
        (replace(EAGER, memory_format="contiguous"), CPU, "set it to channels_last, or train.kernels=plain"),
    ],
)
def test_kernels_that_never_run_are_refused(train, device, message):
    check_kernels(EAGER, CPU)
    with pytest.raises(UserError, match=message):
        check_kernels(train, device)


def test_what_numba_computes_is_told_of_each_precision():
    for precision, expected in (
        ("fp32", "depthwise convolutions, batch norm and what follows it by Numba (train.kernels)"),
        ("bf16", "depthwise convolutions by Numba (train.kernels)"),
    ):
        assert kernels_line(Config(train=replace(EAGER, precision=precision)), SPEC, CPU) == expected


def test_numba_that_is_asked_for_has_to_be_there(without_numba):
    with pytest.raises(UserError, match="needs the package numba, which is not installed"):
        check_kernels(EAGER, CPU)


def test_a_run_says_and_keeps_what_computes_it(digits_run, tmp_path, capsys):
    pytest.importorskip("numba", reason="it comes with the extra 'cpu'")
    short = replace(digits_run, train=replace(digits_run.train, epochs=0.1))
    start_run(short, tmp_path / "run")
    assert "batch norm and what follows it by Numba" in capsys.readouterr().err
    assert 'kernels = "numba"' in (tmp_path / "run" / "config.toml").read_text()
    assert '"numba": "' in (tmp_path / "run" / "environment.json").read_text()
