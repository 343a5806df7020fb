"""Accuracy of a network of a supernet on its own: the images are decoded once for thousands of networks.

Dimension key: N images, S side, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import NetworkSpec, Output
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.data.splits import stratified_subset
from effnet.errors import UserError
from effnet.evaluation.metrics import judge
from effnet.nn import EfficientNet
from effnet.search.supernet.calibration import calibrate
from effnet.search.supernet.network import Supernet
from effnet.training.experiment import Experiment

CALIBRATION_IMAGES = 512


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Yardstick:
    """Images by which all networks are measured alike."""

    calibration: UInt8[Tensor, "N S S C"]
    """Training images, seen as in evaluation, for the statistics of batch norm."""
    images: UInt8[Tensor, "M S S C"]
    """Of the minival."""
    labels: Int64[Tensor, " M"]
    preprocessing: Preprocessing
    device: torch.device
    batch_size: int
    autocast: torch.dtype | None
    output: Output

    def calibrated(self, supernet: Supernet, spec: NetworkSpec) -> EfficientNet:
        """Return a network of the supernet on its own, ready to be evaluated."""
        network = supernet.extract(spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            calibrate(network, self._batches(self.calibration))
        return network

    @torch.no_grad()
    def accuracy(self, network: EfficientNet) -> float:
        """Return the top-1 accuracy on the minival, as a fraction."""
        network.eval()
        judged = []
        labels = iter(torch.split(self.labels, self.batch_size))
        for pixels in self._batches(self.images):
            with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
                logits = network(pixels).float()
            judged.append(judge(logits.cpu(), next(labels), self.output))
        return (torch.cat(judged)[:, 1] == 1).double().mean().item()

    def _batches(self, images: Tensor) -> Iterator[Float[Tensor, "N C S S"]]:
        for pixels in torch.split(images, self.batch_size):
            yield prepare_images(pixels, self.preprocessing, self.device)


def yardstick_of(
    experiment: Experiment, *, most_images: int = 0, calibration_images: int = CALIBRATION_IMAGES
) -> Yardstick:
    """Decode the images by which the networks of a supernet are compared.

    Args:
        experiment: Its data's ``val`` is the minival.
        most_images: Of the minival, of each class its share; 0: all.
        calibration_images: Of the training images, likewise.

    Raises:
        UserError: Images have several labels, or none can be read.
    """
    config, data = experiment.config, experiment.data
    if data.val.label_sets is not None:
        raise UserError("networks are ranked by their accuracy, which images of several labels do not have")
    chosen = [
        stratified_subset(images, count or len(images), seed=config.data.split_seed)
        for images, count in ((data.train, calibration_images), (data.val, most_images))
    ]
    (calibration, _), (images, labels) = (_decoded(part, experiment) for part in chosen)
    # Batch norm must not see one class at a time, in the order of folders.
    order = torch.from_numpy(np.random.default_rng(config.data.split_seed).permutation(len(calibration)))
    return Yardstick(
        calibration=calibration[order],
        images=images,
        labels=labels,
        preprocessing=experiment.preprocessing,
        device=experiment.device,
        batch_size=config.evaluate.batch_size,
        autocast=experiment.autocast,
        output=config.train.loss,
    )


def _decoded(images: LabelledImages, experiment: Experiment) -> tuple[Tensor, Tensor]:
    batches = list(
        eval_batches(
            images,
            experiment.preprocessing,
            batch_size=experiment.config.evaluate.batch_size,
            workers=experiment.config.data.workers,
        )
    )
    pixels, labels = (torch.cat([getattr(batch, part) for batch in batches]) for part in ("images", "labels"))
    if not len(pixels):
        raise UserError(f"none of the {len(images)} images to compare networks by could be read")
    return pixels, labels
