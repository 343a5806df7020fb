"""A whole training step or forward pass, and those parts of a step that are no layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from effnet.kernels import Kernels
from effnet.nn.folding import fold_norms
from effnet.profiling.device import Setting, seconds_of
from effnet.profiling.rows import Measured, PassTime
from effnet.profiling.work import PARAMETER_BYTES, Work
from effnet.training.clipping import clip_gradients
from effnet.training.experiment import Experiment
from effnet.training.loss import classification_loss
from effnet.training.preflight import peak_memory, restart_peak
from effnet.training.step import mixed_batch, train_step
from effnet.training.timing import StepTimer


@dataclass(frozen=True, kw_only=True, slots=True)
class Whole:
    """All of it at once."""

    seconds: tuple[float, ...]
    peak_bytes: int
    """Of a GPU's memory; 0 on a processor, which does not tell."""

    @property
    def median(self) -> float:
        """Of the seconds."""
        return median(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "seconds": self.median,
            "seconds_of_calls": list(self.seconds),
            "peak_bytes": self.peak_bytes or None,
        }


def with_kernels(experiment: Experiment, kernels: Kernels) -> Experiment:
    """Return a run whose layers are computed by other kernels."""
    train = replace(experiment.config.train, kernels=kernels)
    return replace(experiment, config=replace(experiment.config, train=train))


def setting_of(experiment: Experiment) -> Setting:
    """Return where and how the layers of a run are computed."""
    is_last = experiment.config.train.memory_format != "contiguous"
    return Setting(
        device=experiment.device,
        precision=experiment.autocast or torch.float32,
        memory_format=torch.channels_last if is_last else torch.contiguous_format,
    )


class Step:
    """The training step of a run on noise.

    Args:
        experiment: A run; the batch and image size of its last stage count.
    """

    def __init__(self, experiment: Experiment) -> None:
        self._run = experiment
        settings = experiment.schedule.stages[-1]
        timer = StepTimer(experiment, settings, settings.batch_size)
        self._state, self._batch = timer.state, timer.batch

    def whole(self, rounds: int) -> Whole:
        """Time steps, optimizer and moving average included."""
        return _whole(lambda: train_step(self._state, self._batch, self._run), self._run.device, rounds)

    def parts(self, rounds: int) -> list[Measured]:
        """Time what is no layer; a step must have been done, for there to be gradients."""
        parts = [self._input(rounds), self._loss(rounds)]
        train = self._run.config.train
        model, params = self._state.model, list(self._state.model.parameters())
        if train.adaptive_clip or train.gradient_clip:
            gradients = [param.grad for param in params if param.grad is not None]
            clipping = Work(macs=0, bytes=2 * _size(gradients))
            parts.append(self._part("clipping", lambda: clip_gradients(model, train), clipping, rounds))
        parts.append(
            self._part("optimizer", self._state.optimizer.step, self._optimizer_work(params), rounds)
        )
        if (average := self._state.ema) is not None:
            averaging = Work(macs=0, bytes=3 * _size(average.state_dict().values()))
            parts.append(self._part("moving average", lambda: average.update(0), averaging, rounds))
        return parts

    def _part(self, kind: str, call: Callable[[], object], work: Work, rounds: int) -> Measured:
        seconds = seconds_of(call, self._run.device, rounds)
        return _measured(kind, PassTime(name="update", work=work, seconds=seconds))

    def _optimizer_work(self, params: list[nn.Parameter]) -> Work:
        """Gradients are read, weights and the optimizer's slots are read and written."""
        slots = [
            value
            for param in params
            for value in self._state.optimizer.state[param].values()
            if isinstance(value, Tensor) and value.numel() == param.numel()
        ]
        return Work(macs=0, bytes=3 * _size(params) + 2 * _size(slots))

    def _input(self, rounds: int) -> Measured:
        """Pixels to the device, to numbers, mixed; a byte in and a number out."""
        seconds = seconds_of(lambda: mixed_batch(self._batch, self._run, 0), self._run.device, rounds)
        work = Work(macs=0, bytes=(1 + PARAMETER_BYTES) * self._batch.images.numel())
        return _measured("input", PassTime(name="forward", work=work, seconds=seconds))

    def _loss(self, rounds: int) -> Measured:
        train = self._run.config.train
        _, targets = mixed_batch(self._batch, self._run, 0)
        logits = torch.randn_like(targets).requires_grad_()

        def forward() -> Tensor:
            return classification_loss(
                logits, targets, loss=train.loss, label_smoothing=train.label_smoothing
            )

        loss, device = forward(), self._run.device
        read = Work(macs=0, bytes=2 * PARAMETER_BYTES * targets.numel())
        written = Work(macs=0, bytes=3 * PARAMETER_BYTES * targets.numel())
        there = seconds_of(forward, device, rounds)
        back = seconds_of(lambda: torch.autograd.grad(loss, logits, retain_graph=True), device, rounds)
        return _measured(
            "loss",
            PassTime(name="forward", work=read, seconds=there),
            PassTime(name="backward", work=written, seconds=back),
        )


def _measured(kind: str, *passes: PassTime) -> Measured:
    return Measured(kind=kind, name=kind, shape=(), count=1, passes=passes)


def whole_answer(experiment: Experiment, rounds: int) -> Whole:
    """Time forward passes of the network as it answers: batch norm folded."""
    device, setting, stage = experiment.device, setting_of(experiment), experiment.schedule.stages[-1]
    model = fold_norms(with_kernels(experiment, "plain").build_model().eval())
    shape = (stage.batch_size, experiment.spec.in_channels, stage.image_size, stage.image_size)
    images = torch.randn(shape, device=device).contiguous(memory_format=setting.memory_format)

    def forward() -> Tensor:
        with setting.autocast():
            return model(images)

    with torch.inference_mode():
        return _whole(forward, device, rounds)


def _whole(work: Callable[[], object], device: torch.device, rounds: int) -> Whole:
    restart_peak(device)
    return Whole(seconds=seconds_of(work, device, rounds), peak_bytes=peak_memory(device))


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
