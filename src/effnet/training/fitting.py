"""How many images a GPU has room for at once, found out before a run spends anything."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import torch

from effnet.data.processes import ONE_PROCESS
from effnet.errors import UserError
from effnet.schedule.progressive import StageSettings
from effnet.training.batches import noise_batch
from effnet.training.compiling import uncompiled
from effnet.training.experiment import Experiment
from effnet.training.preflight import fitting_batch, synchronize
from effnet.training.step import initial_state, set_phase, train_step

_SPARE = 0.05
"""Share of the device's memory that is left free: for what several processes need, and for fragments."""


def with_fitting_micro_batch(experiment: Experiment) -> tuple[Experiment, str]:
    """Choose ``train.micro_batch_size`` for a run on a GPU where it is left open.

    Args:
        experiment: The run; its weights and files are not touched. All of its processes must make the call.

    Returns:
        The run with the choice, and what to tell the user; nothing where all images of a step fit.

    Raises:
        UserError: There is no room for a single image.
    """
    train = experiment.config.train
    if experiment.device.type != "cuda" or train.micro_batch_size:
        return experiment, ""
    settings = max(experiment.schedule.stages, key=lambda stage: (_pixels(stage), stage.image_size))
    share, fits = _share(experiment, settings), fitting_micro_batch(experiment, settings)
    told = ""
    if fits == share:
        # Steps of smaller images have more of them, and no more pixels.
        fits = max(_share(experiment, stage) for stage in experiment.schedule.stages)
    else:
        told = (
            f"there is room for {fits} of {share} images of {settings.image_size} px at a time: they are run "
            f"so, and batch norm sees {fits} images at once (train.micro_batch_size)"
        )
    config = replace(experiment.config, train=replace(train, micro_batch_size=fits))
    return replace(experiment, config=config), told


def fitting_micro_batch(experiment: Experiment, settings: StageSettings) -> int:
    """Return how many of its share of a stage's images every process has room for: all, half, a quarter ...

    Args:
        experiment: The run.
        settings: Of the stage.

    Raises:
        UserError: There is no room for a single image.
    """
    share = _share(experiment, settings)
    try:
        fits, _ = fitting_batch(share, lambda images: _rehearse(experiment, settings, share, images))
    except torch.OutOfMemoryError:
        raise UserError(
            f"{experiment.device} has no room to train on a single image of {settings.image_size} px; choose "
            "a smaller network or progressive.image_size, or model.gradient_checkpointing = true"
        ) from None
    everywhere = experiment.processes.gather(torch.tensor([[fits]]))
    return int(everywhere.min())


def _rehearse(experiment: Experiment, settings: StageSettings, share: int, images: int) -> None:
    """Do two steps of this process alone, on noise: from the second one on, the optimizer has its state."""
    train = replace(experiment.config.train, micro_batch_size=images)
    config = replace(experiment.config, train=train)
    alone = replace(experiment, config=config, processes=ONE_PROCESS)
    settings = replace(settings, batch_size=share)
    state = initial_state(alone)
    set_phase(state, alone, settings, is_head_only=False)
    spare = _spare_memory(experiment.device)
    # To record takes little time, and graphs have memory of their own.
    with nullcontext() if state.passes is not None else uncompiled():
        for _ in range(2):
            train_step(state, noise_batch(alone, settings, share), alone)
        synchronize(experiment.device)
    del spare


def _spare_memory(device: torch.device) -> torch.Tensor:
    total = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else 0
    return torch.empty(int(_SPARE * total), dtype=torch.uint8, device=device)


def _share(experiment: Experiment, settings: StageSettings) -> int:
    """Return the most images of a step that any process has."""
    return -(-settings.batch_size // experiment.processes.count)


def _pixels(settings: StageSettings) -> int:
    return settings.image_size**2 * settings.batch_size
