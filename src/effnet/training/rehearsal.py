"""Compilation of a network for every image size of a run, before the clock of its training steps starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

from effnet.training.batches import noise_batch
from effnet.training.compiling import is_compiled
from effnet.training.experiment import Experiment
from effnet.training.step import TrainState, rehearse_step, set_phase


@dataclass(frozen=True, kw_only=True, slots=True)
class Compilation:
    """How long it took to compile a network for one image size."""

    image_size: int
    seconds: float


def compile_stages(state: TrainState, experiment: Experiment, start_step: int) -> list[Compilation]:
    """Compile the network of a run for all sizes that are still to come, the largest first.

    Args:
        state: Of the run; it is left as it was.
        experiment: The run.
        start_step: Steps done.

    Returns:
        What it took; nothing where the run is not compiled.
    """
    if not is_compiled(experiment.config):
        return []
    ahead = [stage for stage in experiment.schedule.stages if stage.end_step > start_step]
    shapes = {(stage.image_size, stage.batch_size): stage for stage in ahead}
    done = []
    for (image_size, batch_size), settings in sorted(shapes.items(), reverse=True):
        started = time.monotonic()
        set_phase(state, experiment, settings, is_head_only=False)
        own = len(experiment.processes.share.of(batch_size))
        rehearse_step(state, noise_batch(experiment, settings, own), experiment)
        done.append(Compilation(image_size=image_size, seconds=time.monotonic() - started))
    return done
