"""What becomes of a run when a step cannot be done: its numbers are not finite, or the device has no room.

Losses are looked at where they are written down, and weights before they are evaluated or saved, so that good
steps cost nothing and every checkpoint is good. Where something is not finite, the run goes back to the last
one and does its steps again, now watched one by one, until it is known at which step and layer that begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from effnet.config import TrainConfig
from effnet.data.processes import Processes
from effnet.training.checkpoint import state_tensors
from effnet.training.experiment import Experiment
from effnet.training.parallel import micro_batches
from effnet.training.progress import Progress
from effnet.training.shards import own_part
from effnet.training.step import TrainState
from effnet.training.watch import watched

LOWERED = 0.5
"""What the learning rate is multiplied by where ``train.on_non_finite`` is ``lower``."""
_LEAST_SCALE = 2.0**-10
"""Of the loss in fp16; it begins with 2^16 and is halved for every step whose gradients are not finite."""
_DONE = {"skip": "such a step was left out", "lower": "the learning rate was lowered", "stop": ""}


class DivergedRunError(Exception):
    """Numbers are not finite, and nothing more is to be tried; the last checkpoint is from before."""


class SetbackError(Exception):
    """The state of a run is in doubt: it has to go back to its last checkpoint.

    Args:
        reason: What is wrong at which step, and where that begins if it is known.
        step: The one that failed, or the last one that may have.
    """

    def __init__(self, reason: str, *, step: int) -> None:
        super().__init__(reason)
        self.step = step


class NonFiniteError(SetbackError):
    """Something became not finite at this step or at one before it."""


class NonFiniteStepError(SetbackError):
    """It is this step that makes something not finite."""


class NoRoomError(SetbackError):
    """The device has no room for this step."""


class Guard:
    """Knows which steps are watched or left out, and how a run goes on behind a setback.

    Args:
        config: What to do, and how often.
        processes: Which train together; every method is a call that all of them must make.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self._config, self._processes = config, processes
        self._watched_until = 0
        self._failures, self._lowerings, self._micro_batch_size = 0, 0, 0
        self._left_out: set[int] = set()

    def run(self, do_step: Callable[[], Tensor], state: TrainState, step: int) -> Tensor | None:
        """Do a step, and look at all that it computes where the run has failed here before.

        Args:
            do_step: Does it and returns the loss.
            state: What it changes.
            step: Which one it is.

        Returns:
            The loss, or nothing where the step is left out.

        Raises:
            NonFiniteStepError: Something is not finite.
            NoRoomError: The device has no room, and no other process waits for this one.
        """
        if step in self._left_out:
            return None
        try:
            if step >= self._watched_until:
                return do_step()
            loss, findings = watched(do_step, state.model)
            if state.scaler.is_enabled():
                # In fp16 gradients overflow now and then; the scaler leaves such a step out by itself.
                findings.gradients.clear()
        except torch.OutOfMemoryError:
            if self._processes.count > 1:
                raise
        else:
            # The cause first, in whichever process it is; a gradient is averaged, and reaches all of them.
            told = self._first(findings.of_loss(float(loss), step))
            told = told or self._first(findings.of_gradients(step))
            if told := told or self._first(_first_non_finite(state, step)):
                raise NonFiniteStepError(told, step=step)
            return loss
        # Outside of the handler: what it handled refers to the tensors that took the room.
        raise NoRoomError(f"out of memory at step {step}", step=step)

    def check(self, state: TrainState, progress: Progress) -> None:
        """Make sure that a state is good before it is evaluated or saved.

        Raises:
            NonFiniteError: A tensor of it is not finite.
            DivergedRunError: In fp16 gradients are not finite however small they are scaled.
        """
        step = progress.step - 1
        if state.scaler.is_enabled() and state.scaler.get_scale() < _LEAST_SCALE:
            raise DivergedRunError(
                f"gradients are not finite at step {step} though they are scaled by {_LEAST_SCALE:g}; "
                "train.precision 'bf16' or 'fp32' may help"
            )
        if told := self._first(_first_non_finite(state, step)):
            raise NonFiniteError(told, step=step)

    def saved(self, progress: Progress) -> None:
        """Forget the setbacks before a checkpoint, unless the run has done nothing but leave out steps."""
        if progress.step - 1 not in self._left_out:
            self._failures = self._lowerings = 0

    def answer(self, setback: SetbackError, progress: Progress, experiment: Experiment) -> str:
        """Decide how a run goes on that is back at its last checkpoint.

        Args:
            setback: Why it went back.
            progress: At the checkpoint; what is to be different from there on is noted in it.
            experiment: As it was when the setback came, see `adjusted`.

        Returns:
            What to tell the user.

        Raises:
            DivergedRunError: The user does not want to go on, or it has been tried too often.
            torch.OutOfMemoryError: There is no room for a single image.
        """
        match setback:
            case NoRoomError():
                told = self._halve(setback, progress, experiment)
            case NonFiniteStepError():
                told = self._avoid(setback, progress)
            case _:
                self._watched_until = max(self._watched_until, setback.step + 1)
                told = "these steps are done again, to see where that begins"
        progress.rate_scale *= LOWERED**self._lowerings
        progress.non_finite += self._lowerings
        progress.micro_batch_size = self._micro_batch_size or progress.micro_batch_size
        return f"{setback}: back to step {progress.step}, {told}"

    def _first(self, reason: str) -> str:
        """Return what the first process has to tell that has anything to tell."""
        return next(filter(None, self._processes.gather_text(reason)), "")

    def _avoid(self, setback: NonFiniteStepError, progress: Progress) -> str:
        config = self._config
        if config.on_non_finite == "stop" or self._failures == config.max_non_finite:
            tried = f", after {_DONE[config.on_non_finite]} {self._failures} times" if self._failures else ""
            raise DivergedRunError(
                f"{setback}{tried}; a lower learning_rate.base or train.gradient_clip may help. The state of "
                f"step {progress.step} is saved and finite"
            )
        self._failures += 1
        if config.on_non_finite == "skip":
            self._left_out.add(setback.step)
            return f"from where step {setback.step} is left out"
        self._lowerings += 1
        return f"from where the learning rate is {LOWERED**self._lowerings:g} of what it was"

    def _halve(self, setback: NoRoomError, progress: Progress, experiment: Experiment) -> str:
        processes, train = experiment.processes, experiment.config.train
        images = experiment.schedule.at(setback.step).batch_size
        at_once = math.ceil(images / micro_batches(images, processes, train.micro_batch_size))
        if at_once == 1:
            raise torch.OutOfMemoryError(
                f"{setback}, with a single image at a time; a smaller network or image size, or "
                f"model.gradient_checkpointing = true, needs less. The state of step {progress.step} is saved"
            )
        self._micro_batch_size = at_once // 2
        return (
            f"from where {self._micro_batch_size} images are run at a time instead of {at_once}: the batch "
            f"stays {images}, batch norm sees fewer images at once"
        )


def adjusted(experiment: Experiment, progress: Progress) -> Experiment:
    """Return a run as it goes on behind its setbacks."""
    config = experiment.config
    micro_batch_size = progress.micro_batch_size or config.train.micro_batch_size
    rate = replace(config.learning_rate, base=config.learning_rate.base * progress.rate_scale)
    train = replace(config.train, micro_batch_size=micro_batch_size)
    return replace(experiment, config=replace(config, train=train, learning_rate=rate))


def _first_non_finite(state: TrainState, step: int) -> str:
    """Return what is wrong with the first tensor of the state that is not finite; nothing where all are."""
    tensors = {
        name: own_part(tensor)
        for name, tensor in state_tensors(state.model, state.ema, state.optimizer).items()
        if tensor.is_floating_point()
    }
    flags = [tensor.isfinite().all() for tensor in tensors.values()]
    # Waited for at once; counters of steps may be on another device.
    finite = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    names = (name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite)
    return next((f"{name} is not finite after step {step}" for name in names), "")
