"""Runs of effnet, as ``effnet train`` does them: its loop, journal and checkpoints included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from torch import Tensor

from effnet.config import Config
from effnet.data.images import DataSplit
from effnet.data.resident import ResidentImages
from effnet.evaluation.evaluator import evaluate_model
from effnet.nn import Network
from effnet.recipes import config_to_toml
from effnet.schedule.progressive import StageSchedule
from effnet.training.checkpoint import load_checkpoint
from effnet.training.display import Display, StepReport
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.journal import create_run
from effnet.training.keeper import load_newest
from effnet.training.loop import train
from effnet.training.step import initial_state
from race.case import Race
from race.clock import RaceClock, Story
from race.composer import Composer
from race.curves import by_size


class Recorder(Display):
    """Is told by the loop what happens, and looks at the clock.

    Args:
        schedule: Of the run.
        story: Where to note it.
        sizes: How large the images are that the network sees, where the schedule does not say; by step.
    """

    def __init__(self, schedule: StageSchedule, story: Story, sizes: Composer | None) -> None:
        super().__init__(schedule, Console(quiet=True), has_panel=False)
        self._stages, self._story, self._sizes = schedule, story, sizes
        self._looked = story.clock.spent

    def step(self, report: StepReport) -> None:
        """Note the time; an evaluation follows at once if one is due."""
        done = report.step
        size = self._sizes.size(done - 1) if self._sizes else self._stages.at(done - 1).image_size
        images = self._stages.samples_before(done)
        self._looked = self._story.note(step=done, image_size=size, images=images)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Note the accuracy, and leave its time out."""
        self._story.clock.leave_out_since(self._looked)
        self._story.judge(record["val_top1"])


class ResizedExperiment(Experiment):
    """A run whose batches are resized once they are put together."""

    composer: Composer

    def build_model(self) -> Network:
        """Return the network, which looks at smaller images while it trains."""
        model = super().build_model()

        def shrink(module: Network, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            return (self.composer.resized(given[0]), *given[1:]) if module.training else None

        model.register_forward_pre_hook(shrink)
        return model


def resized(experiment: Experiment) -> ResizedExperiment:
    """Return the run with Composer's progressive resizing."""
    values = {field.name: getattr(experiment, field.name) for field in fields(experiment)}
    changed = ResizedExperiment(**values)
    total, size = experiment.schedule.total_steps, experiment.schedule.largest_size
    object.__setattr__(changed, "composer", Composer(size, total))
    return changed


def few(experiment: Experiment, images: int) -> Experiment:
    """Return the run with so many of its validation images, evenly taken; 0: all."""
    val = experiment.data.val
    if not 0 < images < len(val):
        return experiment
    indices = np.linspace(0, len(val) - 1, images).round().astype(np.int64)
    return replace(experiment, data=replace(experiment.data, val=val.subset(indices)))


class Opened(NamedTuple):
    """Images that several runs read."""

    data: DataSplit
    resident: ResidentImages | None
    """Where they are kept on the device."""


def run_ours(
    config: Config, race: Race, folder: Path, *, is_composer: bool, opened: Opened | None = None
) -> dict[str, Any]:
    """Train, and judge the moving average of the last step by the validation images of the race.

    Args:
        config: Of the run.
        race: What is judged.
        folder: Of the run, to be made.
        is_composer: Whether Composer's resizing chooses the sizes.
        opened: The images, where they are open already; else opening them is a part of the run.
    """
    story = Story(RaceClock())
    data, resident = opened or (None, None)
    whole = prepare_experiment(config, data=data, resident=resident)
    whole = few(whole, race.last_images)
    experiment = few(whole, race.judged_images)
    if is_composer:
        experiment = resized(experiment)
    recorder = Recorder(experiment.schedule, story, getattr(experiment, "composer", None))
    run = create_run(folder, config_to_toml(experiment.config))
    started = story.note(step=0, image_size=experiment.schedule.stages[0].image_size, images=0)
    train(experiment, run, recorder)
    total = story.clock.spent
    state = initial_state(whole)

    def load(path: Path) -> Any:  # noqa: ANN401
        return load_checkpoint(path, model=state.model, ema=state.ema, optimizer=state.optimizer)

    load_newest(run.checkpoints, load, print)
    if state.ema is not None:
        state.ema.copy_to(state.model)
    scores = evaluate_model(
        state.model,
        whole.data.val,
        whole.preprocessing,
        device=whole.device,
        batch_size=config.evaluate.batch_size,
        workers=config.data.workers,
    )
    return {
        "top1": scores.top1,
        "wall": total.wall,
        "cpu": total.cpu,
        "start": started._asdict(),
        "sizes": by_size(story.points),
        "curve": story.curve,
        "images": experiment.schedule.samples_before(experiment.schedule.total_steps),
        "steps": experiment.schedule.total_steps,
        "kernels": experiment.config.train.kernels,
        "compile": experiment.config.train.compile,
        "precision": experiment.config.train.precision,
    }
