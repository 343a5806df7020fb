"""Which ways to compute a training step are measured, and which of them is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from effnet.arch import load_spec
from effnet.arch.external import ExternalSpec
from effnet.arch.family import released_preprocessing
from effnet.config import Config, ModelConfig, TrainConfig
from effnet.training import experiment as experiment_module
from effnet.training import ways as ways_module
from effnet.training.experiment import default_precision, supports_bf16
from effnet.training.ways import TURNS, Choices, Compute, choices_for, fastest, kernels_on

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SPEC = load_spec("v2-b0")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A GPU with bf16 and Triton beside a processor without either."""
    monkeypatch.setattr(ways_module, "has_triton", lambda: True)
    for module in (ways_module, experiment_module):
        monkeypatch.setattr(module, "supports_bf16", lambda device: device.type == "cuda")


def choices(
    device: torch.device, *, compiles: bool, model: ModelConfig | None = None, **train: Any
) -> Choices:
    config = Config(train=TrainConfig(**train), model=model or ModelConfig())
    return choices_for(config, SPEC, device, compiles=compiles)


GPU = Choices(
    kernels=("plain", "triton-norm", "triton"),
    memory_formats=("channels_last", "contiguous"),
    precisions=("bf16", "fp32"),
    modes=("off", "graphs", "default", "reduce-overhead", "max-autotune-no-cudagraphs"),
)


def measure(given: Choices, seconds: dict[str, float]) -> list[str]:
    """Return what is measured on a machine where a way takes the product of its parts' times."""
    known: dict[Compute, float] = {}
    for following in TURNS:
        for way in following(given, known):
            known.setdefault(way, 1.0)
            for part in str(way).split():
                known[way] *= seconds.get(part, 1.0)
    return [str(way) for way in known]


def test_choices_on_a_processor_and_on_a_gpu():
    assert choices(CPU, compiles=False).modes == ("off",)
    assert choices(CPU, compiles=True).modes == ("off", "default")
    assert choices(CPU, compiles=True).precisions == ("fp32",)
    assert choices(CUDA, compiles=True, kernels="triton").modes == GPU.modes
    # To record needs no compiler.
    assert choices(CUDA, compiles=False).modes == ("off", "graphs")
    # What a run does without being measured comes first.
    assert choices(CUDA, compiles=False).precisions == ("bf16", "fp32")


def test_what_the_configuration_fixes_is_not_varied():
    fixed = {
        "kernels": "triton",
        "memory_format": "contiguous",
        "precision": "fp16",
        "compile": "default",
    }
    only = Choices(
        kernels=("triton",), memory_formats=("contiguous",), precisions=("fp16",), modes=("default",)
    )
    assert choices(CUDA, compiles=True, **fixed) == only
    assert choices(CPU, compiles=False, **fixed) == only
    assert measure(only, {}) == ["triton contiguous fp16 default"]


def test_numbas_kernels_leave_one_layout_and_no_compiler():
    left = choices(CPU, compiles=True, kernels="numba")
    assert (left.memory_formats, left.modes) == (("channels_last",), ("off",))


def test_recomputed_blocks_are_not_compiled():
    given = choices(CUDA, compiles=True, model=ModelConfig(gradient_checkpointing=True))
    assert given.modes == ("off",)


def test_few_of_all_combinations_are_measured():
    assert measure(
        GPU, {"fp32": 2.5, "contiguous": 1.2, "triton": 0.8, "max-autotune-no-cudagraphs": 0.9}
    ) == [
        "plain channels_last bf16 off",
        "plain contiguous bf16 off",
        "plain channels_last fp32 off",
        "plain contiguous fp32 off",
        # fp32 takes too long for any kernels to make good.
        "triton-norm channels_last bf16 off",
        "triton channels_last bf16 off",
        # What is slow to launch may be fast to replay, so the fastest with each kernels is recorded.
        "plain channels_last bf16 graphs",
        "triton-norm channels_last bf16 graphs",
        "triton channels_last bf16 graphs",
        # The compiler may do with plain kernels what the others do.
        "triton channels_last bf16 default",
        "plain channels_last bf16 default",
        "triton channels_last bf16 reduce-overhead",
        "triton channels_last bf16 max-autotune-no-cudagraphs",
    ]


def test_without_compilation_the_fastest_with_each_kernels_is_recorded():
    given = replace(GPU, modes=("off", "graphs"), kernels=("plain", "triton"))
    measured = measure(given, {"fp32": 1.4, "contiguous": 0.9})
    assert [way for way in measured if way.endswith("graphs")] == [
        "plain contiguous bf16 graphs",
        "triton channels_last bf16 graphs",
    ]
    assert measured[-1].endswith("graphs")


def test_what_is_recorded_is_compiled_by_nothing():
    way = Compute(kernels="plain", memory_format="channels_last", precision="bf16", compile="graphs")
    assert not way.is_compiled
    assert not replace(way, compile="off").is_compiled
    assert replace(way, compile="reduce-overhead").is_compiled


def test_kernels_are_tried_on_channels_last_whichever_format_is_faster_and_in_both_precisions():
    measured = measure(GPU, {"fp32": 1.4, "channels_last": 1.1})
    assert [way for way in measured if way.startswith("triton ") and way.endswith("off")] == [
        "triton channels_last bf16 off",
        "triton channels_last fp32 off",
    ]


PROCESSOR = Choices(
    kernels=("plain", "numba"),
    memory_formats=("channels_last", "contiguous"),
    precisions=("fp32", "bf16"),
    modes=("off", "default"),
)


def test_kernels_of_numba_are_not_compiled_and_are_tried_in_bf16_however_slow_that_is_with_plain_ones():
    assert measure(PROCESSOR, {"contiguous": 1.2, "numba": 0.8, "bf16": 2.0}) == [
        "plain channels_last fp32 off",
        "plain contiguous fp32 off",
        "plain channels_last bf16 off",
        "plain contiguous bf16 off",
        "numba channels_last fp32 off",
        "numba channels_last bf16 off",
        "plain channels_last fp32 default",
    ]


def test_a_processor_has_the_kernels_of_numba_where_that_is_installed(monkeypatch):
    for has_numba, expected in ((True, ("plain", "numba")), (False, ("plain",))):
        monkeypatch.setattr(ways_module, "has_numba", lambda has=has_numba: has)
        assert kernels_on(CPU, SPEC) == expected
        assert choices(CPU, compiles=False).kernels == expected
    assert kernels_on(CUDA, SPEC) == ("plain", "triton-norm", "triton")
    other = ExternalSpec(
        name="timm:x", preprocessing=released_preprocessing(SPEC), train_size=224, classifier="fc"
    )
    assert kernels_on(CPU, other) == kernels_on(CUDA, other) == ("plain",)


def test_without_channels_last_there_are_no_other_kernels():
    measured = measure(replace(GPU, memory_formats=("contiguous",)), {})
    assert {way.split()[0] for way in measured} == {"plain"}


def test_another_precision_than_the_first_must_be_faster_by_a_tenth():
    own = Compute(kernels="plain", memory_format="channels_last", precision="fp32", compile="off")
    other = replace(own, precision="bf16")
    given = replace(GPU, precisions=("fp32", "bf16"))
    assert fastest(given, {own: 1.09, other: 1.0}) == own
    assert fastest(given, {own: 1.11, other: 1.0}) == other
    assert fastest(GPU, {own: 0.92, other: 1.0}) == other


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, True),
        ({"neon": True, "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "bf16": False}, False),
        ({}, False),
    ],
)
def test_a_processor_computes_in_bf16_where_it_says_so(monkeypatch, capabilities, expected):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert supports_bf16(CPU) is expected
    # Whether it is faster depends on the network, so nothing but a measurement chooses it.
    assert default_precision(CPU) == "fp32"


def test_a_gpu_with_bf16_takes_it_unmeasured():
    assert default_precision(CUDA) == "bf16"
