"""Answers for any number of images, batch by batch, with all processors at work and little in memory.

On a processor every thread takes whole batches: it decodes, computes with one thread, and goes on. Nobody
waits for anybody at the end of each layer, which is faster than one batch shared by all threads, and what is
computed does not depend on the number of threads. On a GPU, and where an exported network brings threads of
its own, threads decode ahead of one that computes.
Dimension key: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.bad_images import bad_reason
from effnet.data.failures import named_failures
from effnet.data.loader import prepare_images
from effnet.data.pillow import BadImageError
from effnet.data.reading import read_file
from effnet.data.threads import BATCHES_AHEAD, chunks, run_ahead, thread_count
from effnet.data.transforms import eval_image
from effnet.evaluation.metrics import probabilities_of
from effnet.nn import Network
from effnet.nn.folding import fold_norms

CPU_BATCH_SIZE, BATCH_SIZE = 8, 32
"""Images at a time unless told otherwise: for one thread of a processor (measured, docs/results.md), else."""

Forward: TypeAlias = Callable[[Float[Tensor, "N C S S"]], Float[Tensor, "N K"]]


class StandIn(ABC):
    """What computes a network's answers in its place, on the processor; see `effnet.engines`."""

    @abstractmethod
    def __call__(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        """Return the logits of any number of images but none, computed with all threads."""

    @abstractmethod
    def alone(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        """Return the same computed with one thread; several threads may call at a time."""


_View: TypeAlias = UInt8[np.ndarray, "S S 3"] | str
_Names: TypeAlias = Sequence[str | Path]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnsweredBatch:
    """Consecutive images and what the network says to each."""

    names: tuple[str, ...]
    errors: tuple[str | None, ...]
    """Why there is no answer."""
    probabilities: Float32[np.ndarray, "N K"]
    """Softmax, or sigmoid of each class; NaN where there is no answer."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answerer:
    """A network, or whatever computes like one, in the form in which it answers fastest."""

    forward: Forward
    """Normalised pixels in, logits out."""
    preprocessing: Preprocessing
    device: torch.device
    output: Output
    classes: int
    is_shared: bool
    """See the function of this name."""

    @classmethod
    def of(
        cls,
        model: Forward,
        preprocessing: Preprocessing,
        *,
        device: torch.device,
        output: Output,
        classes: int,
        stand_in: StandIn | None = None,
    ) -> Answerer:
        """Fold a network's batch norms; what is no network of ours is used as it is.

        Args:
            model: In evaluation mode and on ``device``, where it is a network; it stays as it is.
            preprocessing: How it wants its images.
            device: Where the pixels are put.
            output: How logits become probabilities.
            classes: How many there are.
            stand_in: Computes in the place of the model, on a processor.
        """
        forward: Forward
        if stand_in is not None:
            forward = stand_in.alone
        else:
            forward = fold_norms(model) if isinstance(model, Network) else model
        return cls(
            forward=forward,
            preprocessing=preprocessing,
            device=device,
            output=output,
            classes=classes,
            is_shared=is_shared(model, device),
        )

    def answer(self, batches: Iterable[_Names], *, workers: int = 0) -> Generator[AnsweredBatch, None, None]:
        """Yield the answers to each batch, in order; batches are fetched a few ahead.

        Args:
            batches: Paths of image files, as many at a time as the network is to see.
            workers: Threads; 0: one for each processor.
        """
        return self._whole(batches, workers) if self.is_shared else self._decoded_ahead(batches, workers)

    def _whole(self, batches: Iterable[_Names], workers: int) -> Generator[AnsweredBatch, None, None]:
        def plan() -> Iterator[tuple[None, list[Callable[[], AnsweredBatch]]]]:
            for names in batches:
                yield None, [partial(self._answer_alone, names)]

        ahead = max(BATCHES_AHEAD, 2 * thread_count(workers))
        with _kept_threads(), closing(run_ahead(plan(), workers, ahead)) as done:
            for _, (answered,) in done:
                yield answered

    def _decoded_ahead(self, batches: Iterable[_Names], workers: int) -> Generator[AnsweredBatch, None, None]:
        def plan() -> Iterator[tuple[_Names, list[Callable[[], list[_View]]]]]:
            for names in batches:
                rows = chunks(len(names), workers)
                yield names, [partial(self._views, names[part.start : part.stop]) for part in rows]

        with closing(run_ahead(plan(), workers)) as done:
            for names, results in done:
                yield self._answered(names, [view for result in results for view in result])

    def _answer_alone(self, names: _Names) -> AnsweredBatch:
        torch.set_num_threads(1)  # Of the calling thread, and of those that are made from now on.
        return self._answered(names, self._views(names))

    def _views(self, names: _Names) -> list[_View]:
        return [self._view(name) for name in names]

    def _view(self, name: str | Path) -> _View:
        """Return an image's pixels, or why there are none."""
        try:
            with named_failures(str(name)):
                return eval_image(read_file(name), self.preprocessing)
        except (BadImageError, OSError) as error:
            return bad_reason(error)

    @torch.inference_mode()
    def _answered(self, names: _Names, views: list[_View]) -> AnsweredBatch:
        probabilities = np.full((len(names), self.classes), np.nan, np.float32)
        good = [index for index, view in enumerate(views) if not isinstance(view, str)]
        if good:
            images = torch.from_numpy(np.stack([view for view in views if not isinstance(view, str)]))
            logits = self.forward(prepare_images(images, self.preprocessing, self.device)).float()
            found = probabilities_of(logits, self.output)
            probabilities[good] = found.cpu().numpy()
        return AnsweredBatch(
            names=tuple(str(name) for name in names),
            errors=tuple(view if isinstance(view, str) else None for view in views),
            probabilities=probabilities,
        )


def is_shared(model: Forward, device: torch.device) -> bool:
    """Tell whether several threads may compute at the same time, each with one thread of its own."""
    return isinstance(model, Network) and device.type == "cpu"


@contextmanager
def _kept_threads() -> Iterator[None]:
    """Set the number of torch's threads back to what it was."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
