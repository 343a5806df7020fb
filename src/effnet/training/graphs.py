"""Forward and backward passes that are recorded once as CUDA graphs and then replayed.

A step of a network has thousands of launches; a recorded pass has one. A replay does what was launched while
it was recorded, with the same memory: weights, statistics, drop rates and the state of the random numbers are
read where they lie, so that results are those of the passes as they are, bit for bit.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor, nn

from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.kernels.dispatch import on_device_of
from effnet.training.compiling import runs_as_it_is
from effnet.training.experiment import Experiment

_WARMUP = 3
"""Passes before one of its kind is first recorded: cuDNN tries its algorithms, and Triton compiles."""
_ROOM = 0.15
"""Share of a GPU's memory that recordings leave to evaluation."""

Pool: TypeAlias = tuple[int, int]
"""Where graphs have their memory; those that are never replayed at the same time may share one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """Some work that can be done again."""

    outputs: Sequence[Tensor]
    """What it returned, which every replay overwrites."""
    replay: Callable[[], None]
    """Does it again, on the current stream."""
    pool: Pool | None
    """Where its memory is."""


Work: TypeAlias = Callable[[], Sequence[Tensor]]
Record: TypeAlias = Callable[[Work, int, Pool | None], Recording]
"""Does some work so many times, then records it, undone, with the memory of that pool."""


def records_passes(experiment: Experiment) -> bool:
    """Whether the passes of a run are recorded; a run that goes on elsewhere does them as they are."""
    return experiment.config.train.compile == "graphs" and not _obstacle(experiment)


def check_recording(experiment: Experiment) -> None:
    """Refuse recorded passes that a new run cannot have.

    Raises:
        UserError: There is no GPU, there are several processes, or the network is not of the family.
    """
    obstacle = _obstacle(experiment)
    if experiment.config.train.compile == "graphs" and obstacle:
        raise UserError(
            f"train.compile 'graphs' records the passes of one process on a CUDA device, and {obstacle}; set "
            "train.compile=off"
        )


def _obstacle(experiment: Experiment) -> str:
    if experiment.device.type != "cuda":
        return f"the run is on {experiment.device}"
    if experiment.processes.count > 1:
        return f"the run has {experiment.processes.count} processes"
    # timm's networks have drop rates that a recording would not read again.
    return "" if isinstance(experiment.spec, NetworkSpec) else f"{experiment.spec.name} is no EfficientNet"


def record_on_gpu(work: Work, warmup: int, pool: Pool | None) -> Recording:
    """Record what some work launches on the current GPU; arguments as of `Record`.

    Raises:
        torch.OutOfMemoryError: There is no room for it.
    """
    # A graph of autograd that is kept alive by a cycle would tie its gradients to another stream.
    gc.collect()
    torch.cuda.empty_cache()  # What recordings had that are dropped.
    stream, current = _recording_stream(torch.cuda.current_device()), torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(warmup):
            work()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads load images meanwhile.
            with torch.cuda.graph(
                graph,
                pool=pool,  # type: ignore[arg-type]
                stream=stream,
                capture_error_mode="thread_local",
            ):
                outputs = work()
        except RuntimeError as error:
            # The end of a recording that broke off can hide the reason.
            if isinstance(error.__context__, torch.OutOfMemoryError):
                raise error.__context__ from None
            raise
    current.wait_stream(stream)
    # What recording took is free again; the peak that counts is that of a replay.
    torch.cuda.reset_peak_memory_stats()
    return Recording(outputs=outputs, replay=graph.replay, pool=graph.pool())


@cache
def _recording_stream(device: int) -> torch.cuda.Stream:
    """Return the stream on which all is recorded: memory is shared by what is on the same one."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pass:
    """A recorded pass, with what it reads and whose gradients it leaves."""

    inputs: tuple[Tensor, ...]
    learning: tuple[nn.Parameter, ...]
    recording: Recording


class RecordedPasses:
    """The passes of one network, each recorded when it is first done for images of its kind.

    Recordings of one image size share their memory, and are dropped when the size changes. A kind that has
    been recorded before is recorded without warming up, in about the time of one pass.

    Args:
        model: The network; its parameters and buffers must stay the tensors that they are.
        work: Runs it on images, targets and a weight, leaves the gradients of that weight times their mean
            loss, and returns the mean loss without its graph.
        device: Where it is.
        record: Records; tests have another one.
    """

    def __init__(
        self,
        model: nn.Module,
        work: Callable[[Tensor, Tensor, Tensor], Tensor],
        device: torch.device,
        record: Record = record_on_gpu,
    ) -> None:
        self._work, self._device, self._record = work, device, record
        self._modules, self._parameters = tuple(model.modules()), tuple(model.parameters())
        self._buffers = tuple(model.buffers())
        self._size: tuple[int, ...] = ()
        self._known: set[Hashable] = set()
        self._passes: dict[Hashable, _Pass] = {}

    def run(self, images: Tensor, targets: Tensor, weight: Tensor, *, is_part: bool) -> Tensor:
        """Do a pass and add its gradients to those that the parameters have.

        Args:
            images: As the network takes them.
            targets: Of their classes.
            weight: A scalar, of their mean loss.
            is_part: Whether gradients are added up over several passes; else they are left in memory that
                the next pass overwrites.

        Returns:
            The mean loss, which the next pass overwrites.
        """
        if runs_as_it_is():
            self.drop()  # It needs their memory.
            return self._work(images, targets, weight)
        given = (images, targets, weight)
        key = self._kind(given)
        if images.shape[2:] != self._size or key not in self._known:
            # To warm up takes as much memory again.
            self.drop()
        self._size = tuple(images.shape[2:])
        found = self._passes.get(key)
        if found is None:
            found = self._passes[key] = self._recorded(key, given)
        for static, value in zip(found.inputs, given, strict=True):
            static.copy_(value)
        found.recording.replay()
        mean, *gradients = found.recording.outputs
        _add_gradients(found.learning, gradients, is_part=is_part)
        return mean

    def drop(self) -> None:
        """Give back the memory of all recordings; passes are recorded again when they are next done."""
        self._passes.clear()

    def make_room(self) -> None:
        """Drop all recordings where they leave little memory to what is not recorded."""
        if self._device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self._device)
            if free < _ROOM * total:
                self.drop()

    def _kind(self, given: Sequence[Tensor]) -> Hashable:
        """Return all that decides what is launched; rates are in buffers, and read by every replay."""
        return (
            tuple((value.shape, value.dtype, value.stride()) for value in given),
            tuple(module.training for module in self._modules),
            tuple(parameter.requires_grad for parameter in self._parameters),
        )

    def _recorded(self, key: Hashable, given: Sequence[Tensor]) -> _Pass:
        inputs = tuple(value.clone() for value in given)
        learning = tuple(parameter for parameter in self._parameters if parameter.requires_grad)

        def work() -> list[Tensor]:
            sums = [parameter.grad for parameter in learning]
            for parameter in learning:
                parameter.grad = None
            mean = self._work(*inputs)
            gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
            for parameter, gradient in zip(learning, sums, strict=True):
                parameter.grad = gradient
            return [mean, *gradients]

        pool = next((known.recording.pool for known in self._passes.values()), None)
        with self._unchanged():
            try:
                with on_device_of(inputs[0]):
                    recording = self._record(work, 0 if key in self._known else _WARMUP, pool)
            except RuntimeError:
                self.drop()
                raise
        self._known.add(key)
        return _Pass(inputs=inputs, learning=learning, recording=recording)

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Leave statistics and random numbers behind as they are."""
        before = [buffer.clone() for buffer in self._buffers]
        try:
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                yield
        finally:
            with torch.no_grad():
                for buffer, value in zip(self._buffers, before, strict=True):
                    buffer.copy_(value)


def _add_gradients(learning: Sequence[nn.Parameter], gradients: list[Tensor], *, is_part: bool) -> None:
    sums = [parameter.grad for parameter in learning if parameter.grad is not None]
    if sums:
        torch._foreach_add_(sums, gradients)
        return
    if is_part:
        own = [torch.empty_like(gradient) for gradient in gradients]
        torch._foreach_copy_(own, gradients)
        gradients = own
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.grad = gradient
