"""Run a network over labelled images."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.data.images import LabelledImages
from effnet.data.loader import eval_batches, prepare_images
from effnet.data.processes import ONE_PROCESS, Processes
from effnet.data.worker_processes import WorkerKind
from effnet.evaluation.metrics import judge, score
from effnet.evaluation.multilabel import AnyScores, MultiLabelCounts


def _ignore(name: str, reason: str) -> None:
    return None


@torch.inference_mode()
def evaluate_model(
    model: Callable[[Tensor], Tensor],
    images: LabelledImages,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    batch_size: int,
    workers: int = 0,
    worker_kind: WorkerKind = "threads",
    autocast: torch.dtype | None = None,
    report_bad: Callable[[str, str], None] = _ignore,
    output: Output = "softmax",
    processes: Processes = ONE_PROCESS,
) -> AnyScores:
    """Score a network on labelled images, by other numbers where these may have several labels.

    Args:
        model: A network on ``device``, which is left in evaluation mode, or whatever computes like one.
        images: Images and labels; those that cannot be read are left out.
        preprocessing: How the network wants its images.
        device: Where to compute.
        batch_size: Images at a time.
        workers: Threads that prepare images; 0: one for each processor.
        worker_kind: Whether each of them has a process; see `eval_batches`.
        autocast: What to compute in wherever that is safe; None: in single precision throughout.
        report_bad: Called with name and reason for each image that this process cannot read.
        output: How logits become probabilities.
        processes: Which evaluate together; each image counts once, and all get the scores of all images.

    Raises:
        UserError: None of the images can be read.
    """
    if isinstance(model, nn.Module):
        model.eval()
    judged: list[Float64[Tensor, "N 3"]] = [torch.zeros(0, 3, dtype=torch.float64)]
    several = None if images.label_sets is None else MultiLabelCounts(output)
    bad_images = 0
    prepared = eval_batches(
        images,
        preprocessing,
        batch_size=batch_size,
        workers=processes.workers(workers),
        worker_kind=worker_kind,
        share=processes.share,
    )
    with closing(prepared) as batches:
        for batch in batches:
            bad_images += len(batch.bad)
            for bad in batch.bad:
                report_bad(bad.name, bad.reason)
            if len(batch.labels) == 0:
                continue
            pixels = prepare_images(batch.images, preprocessing, device, channels_last=True)
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                logits = model(pixels).float()
            if several is not None:
                several.add(logits, batch.labels.to(device))
            else:
                judged.append(judge(logits.cpu(), batch.labels, output))
    bad_images = int(processes.sum([bad_images])[0])
    if several is not None:
        several.gather(processes)
        return several.scores(bad_images=bad_images)
    return score(processes.gather(torch.cat(judged)), images.class_names, bad_images=bad_images)
