"""Image files in, class names with probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.data.reading import read_file
from effnet.errors import UserError
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

    def predict(self, paths: Sequence[str | Path], *, top: int = 5, batch_size: int = 32) -> list[Prediction]:
        """Return one answer an image, in order; an unreadable image gets an answer with ``error``.

        Args:
            paths: Image files.
            top: How many classes to name.
            batch_size: Images at a time.
        """
        images = LabelledImages(
            class_names=self.class_names,
            labels=np.arange(len(paths), dtype=np.int64),
            names=tuple(str(path) for path in paths),
            read=lambda index: read_file(paths[index]),
        )
        return list(self._answers(images, top, batch_size))

    @torch.inference_mode()
    def _answers(self, images: LabelledImages, top: int, batch_size: int) -> Iterator[Prediction]:
        batches = eval_batches(images, self.preprocessing, batch_size=batch_size, workers=0)
        for start, batch in enumerate(batches):
            errors = {bad.name: bad.reason for bad in batch.bad}
            rows = {}
            if len(batch.labels):
                pixels = prepare_images(batch.images, self.preprocessing, self.device, channels_last=True)
                logits = self.model(pixels).float()
                probabilities = (logits.sigmoid() if self.output == "sigmoid" else logits.softmax(1)).cpu()
                values, indices = probabilities.topk(min(top, len(self.class_names)))
                rows = {
                    int(label): (indices[row].tolist(), values[row].tolist())
                    for row, label in enumerate(batch.labels)
                }
            for index in range(start * batch_size, min((start + 1) * batch_size, len(images))):
                name = images.names[index]
                if index not in rows:
                    yield Prediction(image=name, error=errors.get(name, "not readable"))
                    continue
                classes, scores = rows[index]
                yield Prediction(
                    image=name,
                    classes=tuple(self.class_names[class_index] for class_index in classes),
                    probabilities=tuple(scores),
                )
