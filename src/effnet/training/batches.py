"""The batches of a run, from wherever its images are."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

import torch

from effnet.config import DataConfig
from effnet.data.failures import WorkerError
from effnet.data.images import LabelledImages
from effnet.data.loader import Batch, train_batches
from effnet.data.process_filling import pack_work, why_not_sendable
from effnet.data.resident import resident_batches
from effnet.data.worker_processes import FEWEST_IMAGES, FEWEST_PROCESSES, WorkerKind
from effnet.errors import UnreachableError
from effnet.schedule.progressive import StageSchedule, StageSettings
from effnet.training.experiment import Experiment


def run_batches(
    experiment: Experiment, schedule: StageSchedule, *, seed: int, start_step: int = 0
) -> Generator[Batch, None, None]:
    """Yield this process's share of the batch of every step from ``start_step`` on.

    Args:
        experiment: The run; its images come from the device where they are kept there.
        schedule: Of the run, or of a few steps to measure.
        seed: Of the order and of all augmentation.
        start_step: The first step to yield.

    Yields:
        Batches. Closing the generator stops its threads and processes.
    """
    augment, processes = experiment.config.augment, experiment.processes
    data, workers = experiment.config.data, processes.workers(experiment.config.data.workers)
    data = replace(data, workers=workers)
    if experiment.resident is not None:
        return resident_batches(
            experiment.resident,
            schedule,
            data,
            augment,
            seed=seed,
            start_step=start_step,
            share=processes.share,
        )
    kind = worker_kind(data, workers, experiment.device, experiment.data.train)
    data = replace(data, worker_kind=kind)
    return train_batches(
        experiment.data.train,
        schedule,
        data,
        augment,
        seed=seed,
        start_step=start_step,
        share=processes.share,
    )


def check_workers(data: DataConfig, images: LabelledImages) -> None:
    """Refuse processes that could not read a run's images.

    Args:
        data: Of the run.
        images: To train on.

    Raises:
        UserError: They are asked for.
    """
    if data.worker_kind == "processes" and not data.resident:
        pack_work(images, [images])


def eval_worker_kind(experiment: Experiment) -> WorkerKind:
    """Return what prepares the images that a run is evaluated on; the results are the same."""
    images = experiment.data.val
    if len(images) < FEWEST_IMAGES or why_not_sendable(images):
        return "threads"
    data = experiment.config.data
    return worker_kind(data, experiment.processes.workers(data.workers), experiment.device, images)


def worker_kind(data: DataConfig, workers: int, device: torch.device, images: LabelledImages) -> WorkerKind:
    """Return what prepares images.

    Args:
        data: ``worker_kind`` may leave it open.
        workers: How many there are in this process.
        device: That computes.
        images: To be prepared.
    """
    if data.worker_kind != "auto":
        return data.worker_kind
    # A processor that trains never waits for images for long, and two threads do not wait for each other.
    pays = device.type == "cuda" and workers >= FEWEST_PROCESSES
    return "processes" if pays and not why_not_sendable(images) else "threads"


def noise_batch(experiment: Experiment, settings: StageSettings, images: int) -> Batch:
    """Return a batch of noise: how long a step takes does not depend on what is to be seen.

    Args:
        experiment: The run.
        settings: Of the stage that the batch shall belong to.
        images: How many.
    """
    generator = torch.Generator().manual_seed(experiment.config.train.seed)
    shape = (images, settings.image_size, settings.image_size, experiment.spec.in_channels)
    return Batch(
        images=torch.randint(256, shape, generator=generator, dtype=torch.uint8),
        labels=torch.randint(experiment.spec.num_classes, (images,), generator=generator),
        settings=settings,
        step=0,
        drawn=None,
        bad=(),
    )


class Feed:
    """Batches until the last one, or until they cannot be had any more: the steps before are good.

    Args:
        batches: Of `run_batches`.
    """

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.failure: WorkerError | UnreachableError | None = None
        """Why they ended early."""

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._batches
        except (WorkerError, UnreachableError) as error:
            self.failure = error
