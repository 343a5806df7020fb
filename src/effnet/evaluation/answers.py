"""What a network said to each of some labelled images: all that metrics, comparisons and reports need.

Dimension key: N images, K classes, S side, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.bad_images import BadImage
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.errors import UserError, did_you_mean
from effnet.evaluation.metrics import probabilities_of


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Answers:
    """Logits beside the truth, in the order of the images; those that could not be read are left out."""

    class_names: tuple[str, ...]
    names: tuple[str, ...]
    """Of the images."""
    indices: Int64[np.ndarray, " N"]
    """Places of the images among all that were asked for."""
    labels: Int64[np.ndarray, "N ..."]
    """Indices into ``class_names``; one an image, or rows filled up with -1 where there may be several."""
    logits: Float32[np.ndarray, "N K"]
    output: Output
    """How logits become probabilities."""
    bad: tuple[BadImage, ...] = ()

    def __len__(self) -> int:
        """Return the number of images that were answered."""
        return len(self.logits)

    @property
    def probabilities(self) -> Float32[np.ndarray, "N K"]:
        """Softmax, or sigmoid of each class."""
        return probabilities_of(torch.from_numpy(self.logits), self.output).numpy()

    def subset(self, rows: Int64[np.ndarray, " M"]) -> Answers:
        """Return the answers to some of the images, in the order of ``rows``."""
        return replace(
            self,
            names=tuple(self.names[int(row)] for row in rows),
            indices=self.indices[rows],
            labels=self.labels[rows],
            logits=self.logits[rows],
        )

    def with_logits(self, logits: Float32[np.ndarray, "N K"]) -> Answers:
        """Return other answers to the same images."""
        return replace(self, logits=logits)

    def with_classes(self, class_names: tuple[str, ...]) -> Answers:
        """Return the same answers with the classes in another order, or with some of them only.

        What is left out is as if the network had never heard of it: probabilities of a softmax sum up to 1
        again.

        Raises:
            UserError: The network lacks one of these classes, or an image has one that is left out.
        """
        index_of = {name: index for index, name in enumerate(self.class_names)}
        position = {name: index for index, name in enumerate(class_names)}
        for name in class_names:
            if name not in index_of:
                raise UserError(
                    f"the network has no class '{name}' among its {len(index_of)}"
                    f"{did_you_mean(name, self.class_names[:20])}"
                )
        moved = np.array([position.get(name, -1) for name in self.class_names], dtype=np.int64)
        used = np.unique(self.labels[self.labels >= 0])
        if (lacking := used[moved[used] < 0]).size:
            raise UserError(
                f"images have the class '{self.class_names[lacking[0]]}', which is none of the "
                f"{len(class_names)} that are asked for"
            )
        return replace(
            self,
            class_names=class_names,
            labels=np.where(self.labels >= 0, moved[self.labels], -1),
            logits=np.ascontiguousarray(self.logits[:, [index_of[name] for name in class_names]]),
        )


@torch.inference_mode()
def answer_images(
    model: Callable[[Float[Tensor, "N C S S"]], Float[Tensor, "N K"]],
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    output: Output = "softmax",
    report: Callable[[int], None] | None = None,
) -> Answers:
    """Ask a network, or whatever computes like one, for its logits of labelled images.

    Args:
        model: Normalised pixels in, logits out. A network must be in evaluation mode and on ``device``.
        images: Images with labels; those that cannot be read are left out.
        preprocessing: How the network wants its images.
        device: Where the pixels are put.
        batch_size: Images at a time.
        workers: Threads that prepare images; 0: one for each processor.
        output: How logits become probabilities.
        report: Told after each batch how many images have been read.

    Raises:
        UserError: None of the images can be read.
    """
    logits: list[Float32[np.ndarray, "_ K"]] = []
    labels: list[Int64[np.ndarray, "_ ..."]] = []
    good: list[Int64[np.ndarray, " _"]] = []
    bad: list[BadImage] = []
    batches = eval_batches(images, preprocessing, batch_size=batch_size, workers=workers)
    for number, batch in enumerate(batches):
        bad += batch.bad
        good.append(batch.indices.numpy())
        if len(batch.labels):
            pixels = prepare_images(batch.images, preprocessing, device)
            logits.append(model(pixels).float().cpu().numpy())
            labels.append(batch.labels.numpy())
        if report:
            report(min((number + 1) * batch_size, len(images)))
    if not logits:
        raise UserError(f"none of the {len(images)} images could be read")
    indices = np.concatenate(good)
    return Answers(
        class_names=images.class_names,
        names=tuple(images.names[int(index)] for index in indices),
        indices=indices,
        labels=_stacked(labels),
        logits=np.concatenate(logits),
        output=output,
        bad=tuple(bad),
    )


def _stacked(labels: list[Int64[np.ndarray, "_ ..."]]) -> Int64[np.ndarray, "N ..."]:
    """Put rows of different lengths below each other."""
    if labels[0].ndim == 1:
        return np.concatenate(labels)
    width = max(rows.shape[1] for rows in labels)
    return np.concatenate(
        [np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=-1) for rows in labels]
    )
