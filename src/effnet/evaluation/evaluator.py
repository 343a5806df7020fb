"""Run a network over labelled images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.evaluation.metrics import score
from effnet.evaluation.multilabel import AnyScores, MultiLabelCounts
from effnet.nn import EfficientNet


def _ignore(name: str, reason: str) -> None:
    return None


@torch.inference_mode()
def evaluate_model(
    model: EfficientNet,
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    autocast: torch.dtype | None = None,
    report_bad: Callable[[str, str], None] = _ignore,
    output: Output = "softmax",
) -> AnyScores:
    """Score a network on labelled images, by other numbers where these may have several labels.

    Args:
        model: On ``device``; it is left in evaluation mode.
        images: Images and labels; those that cannot be read are left out.
        preprocessing: How the network wants its images.
        device: Where to compute.
        batch_size: Images at a time.
        workers: Threads that prepare images; 0: one for each processor.
        autocast: What to compute in wherever that is safe; None: in single precision throughout.
        report_bad: Called with name and reason for each image that cannot be read.
        output: How logits become probabilities.

    Raises:
        UserError: None of the images can be read.
    """
    model.eval()
    logits: list[Float[Tensor, "N K"]] = []
    labels: list[Int64[Tensor, " N"]] = []
    several = None if images.label_sets is None else MultiLabelCounts(output)
    bad_images = len(images)
    for batch in eval_batches(images, preprocessing, batch_size=batch_size, workers=workers):
        for bad in batch.bad:
            report_bad(bad.name, bad.reason)
        if len(batch.labels) == 0:
            continue
        bad_images -= len(batch.labels)
        pixels = prepare_images(batch.images, preprocessing, device, channels_last=True)
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            answers = model(pixels).float()
        if several is not None:
            several.add(answers, batch.labels.to(device))
            continue
        logits.append(answers.cpu())
        labels.append(batch.labels)
    if several is not None:
        return several.scores(bad_images=bad_images)
    return score(
        torch.cat(logits) if logits else torch.zeros(0, model.spec.num_classes),
        torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64),
        images.class_names,
        bad_images=bad_images,
        output=output,
    )
