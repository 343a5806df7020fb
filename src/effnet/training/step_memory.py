"""How much memory a training step takes: told by a GPU, counted on a processor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from effnet.data.loader import Batch
from effnet.schedule.progressive import StageSettings
from effnet.training.batches import noise_batch
from effnet.training.compiling import uncompiled
from effnet.training.experiment import Experiment
from effnet.training.preflight import peak_memory, synchronize
from effnet.training.step import TrainState, initial_state, rehearse_step, set_phase, train_step

_COUNTED_IMAGES = 4


def step_memory(experiment: Experiment, settings: StageSettings, images: int) -> int:
    """Return the peak of a training step in bytes: weights, gradients, optimizer, average and activations.

    On a processor, which does not tell, it is the sum of all that there is when the backward pass begins;
    what the forward pass keeps for it is counted on a few images and taken in proportion.

    Args:
        experiment: The run; its files are not touched.
        settings: Of the stage.
        images: Run through the network at once.

    Raises:
        torch.OutOfMemoryError: The GPU has no room for it.
    """
    if experiment.device.type == "cuda":
        return _told(experiment, settings, images)
    few = min(images, _COUNTED_IMAGES)
    state, batch = _ready(experiment, settings, few)
    with uncompiled():
        train_step(state, batch, experiment)  # The optimizer makes its state.
        kept = _kept_bytes(experiment, state, batch)
    return _lasting_bytes(state) + kept * images // few


def _told(experiment: Experiment, settings: StageSettings, images: int) -> int:
    device = experiment.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    state, batch = _ready(experiment, settings, images)
    for _ in range(2):  # From the second step on, the optimizer has its state.
        train_step(state, batch, experiment)
    synchronize(device)
    return peak_memory(device) - before


def _ready(experiment: Experiment, settings: StageSettings, images: int) -> tuple[TrainState, Batch]:
    state = initial_state(experiment)
    set_phase(state, experiment, settings, is_head_only=False)
    return state, noise_batch(experiment, replace(settings, batch_size=images), images)


def _lasting_bytes(state: TrainState) -> int:
    """Return the bytes of what stays from step to step, and of the gradients, one for each weight."""
    weights = list(state.model.parameters())
    slots = (value for values in state.optimizer.state.values() for value in values.values())
    average = state.ema.state_dict().values() if state.ema is not None else ()
    lasting = chain(weights, weights, state.model.buffers(), slots, average)
    return sum(value.nbytes for value in lasting if isinstance(value, Tensor))


def _kept_bytes(experiment: Experiment, state: TrainState, batch: Batch) -> int:
    """Return the bytes that the forward pass keeps for the backward pass, weights not counted."""
    weights = _places(chain(state.model.parameters(), state.model.buffers()))
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        rehearse_step(state, batch, experiment)
    return sum(kept.values())


def _places(values: Iterable[Tensor]) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in values}
