"""The ways to compute a training step on a device, and which of them are worth measuring.

All combinations would be dozens. They are measured in five turns, each about what the ones before leave open:

1. every precision in every memory format, with plain kernels and uncompiled;
2. other kernels, which work on channels last alone, in every precision that took at most 2.2 times the
   fastest in turn 1: no kernels have made a step more than so many times as fast anywhere (V1-B0 in bf16 on
   a processor, docs/log.md);
3. on a GPU, passes recorded as CUDA graphs for the fastest with each kernels: what takes long because it is
   launched piece by piece need not take long when it is replayed;
4. the compiler's default mode for the fastest so far, and for the fastest with plain kernels, as the compiler
   fuses itself what the other kernels fuse, and cannot compile Numba's;
5. the compiler's other modes for the faster of those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Literal, TypeAlias

import torch

from effnet.arch.external import AnySpec
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.kernels import Kernels
from effnet.kernels.dispatch import has_triton
from effnet.native import has_numba
from effnet.training.compiling import is_compiler_mode
from effnet.training.experiment import Experiment, default_precision, supports_bf16
from effnet.training.tuned import AUTO

MemoryFormat: TypeAlias = Literal["channels_last", "contiguous"]
Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
CompileMode: TypeAlias = Literal["off", "graphs", "default", "reduce-overhead", "max-autotune-no-cudagraphs"]

PRECISION_GAIN = 1.1
"""Another precision than the device's own changes results; it is taken where it is so many times as fast."""
_KERNELS_GAIN = 2.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Compute:
    """How training steps are computed."""

    kernels: Kernels
    memory_format: MemoryFormat
    precision: Precision
    compile: CompileMode

    @property
    def changes(self) -> dict[str, str | int]:
        """The settings under their keys."""
        return {f"train.{name}": value for name, value in asdict(self).items()}

    @property
    def is_compiled(self) -> bool:
        """By ``torch.compile``."""
        return is_compiler_mode(self.compile)

    def __str__(self) -> str:
        return " ".join(asdict(self).values())

    def applied_to(self, experiment: Experiment) -> Experiment:
        """Return the run computed in this way."""
        train = replace(experiment.config.train, **asdict(self))
        config = replace(experiment.config, train=train)
        return replace(experiment, config=config)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What there is to choose from; the first of each needs no reason."""

    kernels: tuple[Kernels, ...]
    memory_formats: tuple[MemoryFormat, ...]
    precisions: tuple[Precision, ...]
    modes: tuple[CompileMode, ...]

    @property
    def compiler_modes(self) -> tuple[CompileMode, ...]:
        """Those that are tried of ``torch.compile``."""
        return tuple(mode for mode in self.modes[1:] if mode != "graphs")


Seconds: TypeAlias = Mapping[Compute, float]
"""Of the ways that were measured, failures left out; comparable with each other. Compilation by torch is
included, which every run pays; a start that a machine pays once is not."""


def choices_for(config: Config, spec: AnySpec, device: torch.device, *, compiles: bool) -> Choices:
    """Return what is to be chosen; what the configuration fixes is not varied.

    Args:
        config: Of the run; ``auto`` leaves a choice.
        spec: Its network; only those of the family have other kernels.
        device: bf16 is tried where the device computes in it and not merely imitates it.
        compiles: Whether compilation, which takes minutes, is among the choices; recording is anyway.
    """
    train, own = config.train, default_precision(device)
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if supports_bf16(device) else ("fp32",)
    modes: tuple[CompileMode, ...] = ("off",)
    layouts: tuple[MemoryFormat, ...] = ("channels_last", "contiguous")
    if train.kernels == "numba":  # It reads no other layout, and the compiler does not see it.
        layouts = ("channels_last",)
    elif not config.model.gradient_checkpointing:
        is_gpu = device.type == "cuda"
        if is_gpu and isinstance(spec, NetworkSpec):
            modes += ("graphs",)
        if compiles:
            modes += ("default", *(("reduce-overhead", "max-autotune-no-cudagraphs") if is_gpu else ()))
    return Choices(
        kernels=kernels_on(device, spec) if train.kernels == AUTO else (train.kernels,),
        memory_formats=layouts if train.memory_format == AUTO else (train.memory_format,),
        precisions=(
            tuple(sorted(precisions, key=lambda precision: precision != own))
            if train.precision == AUTO
            else (train.precision,)
        ),
        modes=modes if train.compile == AUTO else (train.compile,),
    )


def kernels_on(device: torch.device, spec: AnySpec) -> tuple[Kernels, ...]:
    """Return the kernels that train a network on a device, plain ones first."""
    if not isinstance(spec, NetworkSpec):
        return ("plain",)
    if device.type == "cuda":
        return ("plain", "triton-norm", "triton") if has_triton() else ("plain",)
    return ("plain", "numba") if has_numba() else ("plain",)


def arithmetic(choices: Choices, seconds: Seconds) -> list[Compute]:
    """Return the ways of the first turn."""
    del seconds
    return [
        Compute(
            kernels=choices.kernels[0],
            memory_format=memory_format,
            precision=precision,
            compile=choices.modes[0],
        )
        for precision, memory_format in product(choices.precisions, choices.memory_formats)
    ]


def other_kernels(choices: Choices, seconds: Seconds) -> list[Compute]:
    """Return the ways of the second turn."""
    least = min(seconds.values())
    return [
        replace(way, kernels=kernels)
        for kernels, precision in product(choices.kernels[1:], choices.precisions)
        for way in seconds
        if (way.precision, way.memory_format) == (precision, "channels_last")
        and min(taken for other, taken in seconds.items() if other.precision == precision)
        <= _KERNELS_GAIN * least
    ]


def recorded(choices: Choices, seconds: Seconds) -> list[Compute]:
    """Return the ways of the third turn."""
    if "graphs" not in choices.modes[1:]:
        return []
    fastest_with = (
        fastest(choices, {way: taken for way, taken in seconds.items() if way.kernels == kernels})
        for kernels in dict.fromkeys(way.kernels for way in seconds)
    )
    return [replace(way, compile="graphs") for way in fastest_with]


def compiled(choices: Choices, seconds: Seconds) -> list[Compute]:
    """Return the ways of the fourth turn."""
    plain = {way: taken for way, taken in seconds.items() if way.kernels == choices.kernels[0]}
    ways = dict.fromkeys(fastest(choices, of) for of in (seconds, plain) if of)
    # Numba's kernels are unknown to the compiler.
    return [
        replace(way, compile=mode)
        for mode in choices.compiler_modes[:1]
        for way in ways
        if way.kernels != "numba"
    ]


def other_modes(choices: Choices, seconds: Seconds) -> list[Compute]:
    """Return the ways of the fifth turn."""
    modes = choices.compiler_modes
    ways = {way: taken for way, taken in seconds.items() if way.compile in modes[:1]}
    return [replace(fastest(choices, ways), compile=mode) for mode in modes[1:] if ways]


TURNS: tuple[Callable[[Choices, Seconds], list[Compute]], ...] = (
    arithmetic,
    other_kernels,
    recorded,
    compiled,
    other_modes,
)


def fastest(choices: Choices, seconds: Seconds) -> Compute:
    """Return the way that takes the least time, another precision than the first charged `PRECISION_GAIN`."""
    return min(
        seconds,
        key=lambda way: seconds[way] * (1.0 if way.precision == choices.precisions[0] else PRECISION_GAIN),
    )
