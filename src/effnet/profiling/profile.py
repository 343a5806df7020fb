"""Where the time of a training step or of a forward pass goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.profiling.alone import time_alone
from effnet.profiling.device import Peaks, Setting, measure_peaks
from effnet.profiling.layers import layers_of
from effnet.profiling.rows import KindSum, Measured, PassTime, sums_of
from effnet.profiling.step import Step, Whole, setting_of, whole_answer, with_kernels
from effnet.training.experiment import Experiment


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """All layers and parts by themselves, and the whole of them."""

    network: str
    image_size: int
    batch: int
    is_training: bool
    setting: Setting
    threads: int
    rounds: int
    peaks: Peaks
    measured: tuple[Measured, ...]
    wholes: dict[str, Whole]
    """``plain`` as PyTorch computes the layers, by themselves too; and by the kernels of the run, if any."""

    @property
    def kinds(self) -> tuple[KindSum, ...]:
        """What was measured, kind by kind; what takes longest is first."""
        return sums_of(self.measured, self.peaks)

    @property
    def seconds(self) -> float:
        """The sum of all layers and parts."""
        return sum(row.seconds for row in self.kinds)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as ``effnet bench layers --json`` prints it."""
        return {
            "network": self.network,
            "image_size": self.image_size,
            "batch": self.batch,
            "mode": "train" if self.is_training else "infer",
            "device": str(self.setting.device),
            "precision": str(self.setting.precision).removeprefix("torch."),
            "memory_format": str(self.setting.memory_format).removeprefix("torch."),
            "threads": self.threads,
            "rounds": self.rounds,
            "peak_bytes_per_second": self.peaks.bytes_per_second,
            "peak_flops_per_second": self.peaks.flops_per_second,
            "wholes": {name: whole.to_dict() for name, whole in self.wholes.items()},
            "sum_seconds": self.seconds,
            "kinds": [row.to_dict() for row in self.kinds],
            "layers": [item.to_dict(self.peaks) for item in self.measured],
        }


def measure_profile(
    experiment: Experiment, *, is_training: bool, rounds: int, report: Callable[[str], None] | None = None
) -> Profile:
    """Time every distinct layer of a run's network by itself, and the whole of it.

    Args:
        experiment: A run; the batch and image size of its last stage count, its files are not touched.
        is_training: Otherwise forward passes with batch norm folded.
        rounds: Calls of each pass that count.
        report: Told what is being measured.

    Raises:
        UserError: The network is not of the family.
    """
    tell = report or (lambda _: None)
    spec, stage, setting = experiment.spec, experiment.schedule.stages[-1], setting_of(experiment)
    if not isinstance(spec, NetworkSpec):
        raise UserError(f"{spec.name} is not of the family, and only its layers have kinds; give v2-s or so")
    tell("what the device can do")
    peaks = measure_peaks(setting)
    wholes: dict[str, Whole] = {}
    parts: list[Measured] = []
    if is_training:
        for kernels in dict.fromkeys(("plain", experiment.kernels)):
            tell(f"the whole step, kernels {kernels}")
            step = Step(with_kernels(experiment, kernels))
            wholes[kernels] = step.whole(rounds)
            parts = parts or step.parts(rounds)
            del step  # Its memory is needed for the next one and for the layers.
    else:
        tell("the whole forward pass")
        wholes["plain"] = whole_answer(experiment, rounds)
    return Profile(
        network=spec.name,
        image_size=stage.image_size,
        batch=stage.batch_size,
        is_training=is_training,
        setting=setting,
        threads=torch.get_num_threads(),
        rounds=rounds,
        peaks=peaks,
        measured=(*_layers(experiment, spec, is_training, rounds, tell), *parts),
        wholes=wholes,
    )


def _layers(
    experiment: Experiment, spec: NetworkSpec, is_training: bool, rounds: int, tell: Callable[[str], None]
) -> Iterator[Measured]:
    stage, setting = experiment.schedule.stages[-1], setting_of(experiment)
    layers = layers_of(spec, image_size=stage.image_size, batch=stage.batch_size, is_training=is_training)
    for number, layer in enumerate(layers, start=1):
        tell(f"layer {number} of {len(layers)}")
        timed, work = time_alone(layer, setting, rounds=rounds), layer.work(setting.element)
        yield Measured(
            kind=layer.kind,
            name=layer.name,
            shape=layer.inputs[0],
            count=layer.count,
            passes=tuple(
                PassTime(name=name, work=work[name], seconds=seconds)
                for name, seconds in timed.seconds.items()
            ),
            params=layer.params,
            macs=layer.macs,
            activation_bytes=layer.activations * setting.element,
            kept_bytes=timed.kept_bytes,
        )
