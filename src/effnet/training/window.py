"""The steps between two records of the journal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from effnet.data.bad_images import BadImage
from effnet.data.loader import Batch
from effnet.data.processes import Processes
from effnet.training.display import Display, StepReport
from effnet.training.guard import NonFiniteError
from effnet.training.journal import Run
from effnet.training.progress import Progress
from effnet.training.stopwatch import Stopwatch
from effnet.training.waiting import WaitClock

REPORT_EVERY_STEPS = 10


class Window:
    """The steps since the last journal record. Losses are waited for only when it is written.

    Args:
        run: Where records are written, by the first process.
        display: Told the same.
        progress: Times and losses are noted in it.
        waits: Of the batches.
        processes: Which train together.
    """

    def __init__(
        self, run: Run, display: Display, progress: Progress, waits: WaitClock, processes: Processes
    ) -> None:
        self._run, self._display, self._progress, self._waits = run, display, progress, waits
        self._processes = processes
        self._losses: list[Tensor] = []
        self._steps: list[int] = []
        self._bad: list[BadImage] = []
        self._images, self._waited = 0, 0.0
        self._clock = Stopwatch()
        self._record: dict[str, Any] = {}

    @property
    def is_empty(self) -> bool:
        """Whether every step is in a record."""
        return not self._losses

    @property
    def is_full(self) -> bool:
        """Whether it is time for a record."""
        return self._progress.step % REPORT_EVERY_STEPS == 0

    def add(self, batch: Batch, loss: Tensor | None, epoch: float, rate: float) -> None:
        """Note a step.

        Args:
            batch: What it trained on.
            loss: This process's part of it, a scalar, not waited for; None where the step was left out.
            epoch: Epochs done with it.
            rate: Its learning rate.
        """
        self._bad += batch.bad
        if loss is None:
            return
        self._losses.append(loss)
        self._steps.append(batch.step)
        self._images += batch.settings.batch_size
        self._record = {
            "step": batch.step + 1,
            "epoch": epoch,
            "stage": batch.settings.stage,
            "image_size": batch.settings.image_size,
            "batch_size": batch.settings.batch_size,
            "learning_rate": rate,
        }

    def flush(self) -> None:
        """Write one record; all processes must call it.

        Raises:
            NonFiniteError: A loss is not finite.
        """
        steps = len(self._losses)
        elapsed = self.keep()
        losses, self._progress.losses = self._progress.losses, []
        if not steps:
            return
        self._record |= {
            "seconds": self._progress.seconds,
            "loss": sum(losses) / len(losses),
            "images_per_second": self._images / elapsed if elapsed else 0.0,
            "data_wait": min(self._waited / elapsed, 1.0) if elapsed else 0.0,
        }
        if self._processes.is_first:
            self._run.journal.write(self._record)
        self._display.step(
            StepReport(
                step=self._record["step"],
                epoch=self._record["epoch"],
                loss=self._record["loss"],
                learning_rate=self._record["learning_rate"],
                images_per_second=self._record["images_per_second"],
                data_wait=self._record["data_wait"],
                seconds_per_step=elapsed / steps,
            )
        )
        self._images, self._waited = 0, 0.0

    def keep(self) -> float:
        """Wait for the losses and leave them, and the time they took, to a later record.

        Images that could not be read are reported at once. All processes must call it.

        Returns:
            Seconds since the clock was started; 0 where it was set back.

        Raises:
            NonFiniteError: A loss is not finite.
        """
        self._bad = report_bad_images(self._bad, self._run, self._display, self._processes)
        losses = self._processes.sum(torch.stack(self._losses).tolist()) if self._losses else []
        for step, loss in zip(self._steps, losses, strict=True):
            if not math.isfinite(loss):
                raise NonFiniteError(f"the loss is {loss} at step {step}", step=step)
        elapsed = self._clock.seconds
        self._progress.seconds += elapsed
        self._progress.step_seconds += elapsed
        waited = self._waits.take()
        self._waited += waited
        self._progress.wait_seconds += waited
        self._progress.losses += losses
        self._losses, self._steps = [], []
        self.restart_clock()
        return elapsed

    def restart_clock(self) -> None:
        """Leave out the time since the last step, which evaluation and saving have accounted for."""
        self._clock.restart()


def report_bad_images(
    bad: Sequence[BadImage], run: Run, display: Display, processes: Processes
) -> list[BadImage]:
    """Note the images that any process could not read; all processes must call it.

    Returns:
        What is left to report: nothing.
    """
    for text in processes.gather_text(json.dumps([[image.name, image.reason] for image in bad])):
        for name, reason in json.loads(text) if processes.is_first else ():
            if run.report_bad_image(name, reason):
                display.message(f"bad image {name}: {reason}")
    return []
