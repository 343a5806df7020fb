"""Image files in, class names with probabilities out.

Dimension key: N images, K classes, T of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.threads import thread_count
from effnet.errors import UserError
from effnet.evaluation.streaming import (
    BATCH_SIZE,
    CPU_BATCH_SIZE,
    AnsweredBatch,
    Answerer,
    StandIn,
    is_shared,
)
from effnet.nn import build_model
from effnet.weights import LoadedWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer for one image."""

    image: str
    classes: tuple[str, ...] = ()
    """Most probable first; empty where the image could not be read."""
    probabilities: tuple[float, ...] = ()
    error: str | None = None
    """Why there is no answer."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as ``effnet predict --json`` prints it."""
        if self.error:
            return {"image": self.image, "error": self.error}
        pairs = zip(self.classes, self.probabilities, strict=True)
        return {
            "image": self.image,
            "classes": [{"name": name, "probability": probability} for name, probability in pairs],
        }


class Predictor:
    """A network with its class names and preprocessing, ready to answer.

    Args:
        model: The network, which is moved to ``device`` and put into evaluation mode, or whatever computes
            like one, such as an exported file.
        class_names: In the order of the logits.
        preprocessing: How the network wants its images.
        device: Where to compute.
        output: How logits become probabilities.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        *,
        device: torch.device | str = "cpu",
        output: Output = "softmax",
    ) -> None:
        self.device = torch.device(device)
        if isinstance(model, nn.Module):
            model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            model.eval()
        self.model = model
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing
        self.output: Output = output
        self.engine: StandIn | None = None
        """What computes in the place of the network; `effnet.engines.use_engine` chooses it."""

    @classmethod
    def from_weights(cls, weights: LoadedWeights, *, device: torch.device | str = "cpu") -> Predictor:
        """Build the network that a file of weights carries.

        Raises:
            UserError: The file does not say how images must be prepared.
        """
        if weights.preprocessing is None:
            raise UserError(
                f"{weights.origin} does not say how images must be prepared; use a run, a file that effnet "
                "wrote, or a hub name"
            )
        names = weights.class_names or tuple(str(index) for index in range(weights.spec.num_classes))
        model = build_model(weights.spec, weights=weights)
        return cls(model, names, weights.preprocessing, device=device, output=weights.output)

    @property
    def batch_size(self) -> int:
        """Images at a time that are a good choice here."""
        return CPU_BATCH_SIZE if is_shared(self.model, self.device) else BATCH_SIZE

    def answerer(self) -> Answerer:
        """Return the network in the form in which it answers for many images, with its present weights."""
        return Answerer.of(
            self.model,
            self.preprocessing,
            device=self.device,
            output=self.output,
            classes=len(self.class_names),
            stand_in=self.engine,
        )

    def predict(
        self, paths: Sequence[str | Path], *, top: int = 5, batch_size: int | None = None
    ) -> list[Prediction]:
        """Return one answer an image, in order; an unreadable image gets an answer with ``error``.

        Args:
            paths: Image files.
            top: How many classes to name.
            batch_size: Images at a time, at most; None: what is fast here.
        """
        return list(self.predictions(paths, top=top, batch_size=batch_size))

    def predictions(
        self, paths: Sequence[str | Path], *, top: int = 5, batch_size: int | None = None
    ) -> Iterator[Prediction]:
        """Yield what `predict` returns, each answer as soon as it is there."""
        answerer = self.answerer()
        size = batch_size or self.batch_size
        if answerer.is_shared:  # A few images are few batches: each thread gets its share of them.
            size = min(size, max(-(-len(paths) // thread_count(0)), 1))
        batches = (paths[start : start + size] for start in range(0, len(paths), size))
        for answered in answerer.answer(batches):
            yield from self._named(answered, top)

    def _named(self, answered: AnsweredBatch, top: int) -> Iterator[Prediction]:
        places = top_classes(answered.probabilities, top)
        for name, error, row, best in zip(
            answered.names, answered.errors, answered.probabilities, places, strict=True
        ):
            if error is not None:
                yield Prediction(image=name, error=error)
            else:
                yield Prediction(
                    image=name,
                    classes=tuple(self.class_names[index] for index in best),
                    probabilities=tuple(row[best].tolist()),
                )


def top_classes(probabilities: Float32[np.ndarray, "N K"], top: int) -> Int64[np.ndarray, "N T"]:
    """Return the indices of the most probable classes of each row, of equal ones the first one first."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
