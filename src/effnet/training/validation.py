"""When a run evaluates its network, and what becomes of the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from effnet.data.bad_images import BadImage
from effnet.evaluation.evaluator import evaluate_model
from effnet.evaluation.metrics import Scores
from effnet.evaluation.multilabel import AnyScores
from effnet.nn import Network
from effnet.schedule.points import milestones
from effnet.training.algorithms import by_rules
from effnet.training.batches import eval_worker_kind
from effnet.training.compiling import uncompiled
from effnet.training.display import Display
from effnet.training.ema import Ema
from effnet.training.experiment import Experiment
from effnet.training.journal import Run
from effnet.training.progress import Progress
from effnet.training.shards import is_cut, whole
from effnet.training.step import TrainState
from effnet.training.stopwatch import Stopwatch
from effnet.training.window import report_bad_images
from effnet.weights import save_weights


def is_evaluation_step(experiment: Experiment, step: int) -> bool:
    """Whether the network is evaluated once ``step`` steps are done: every so often, and at milestones."""
    schedule = experiment.schedule
    if step in milestones(experiment.config.progressive, schedule):
        return True
    every = experiment.config.evaluate.every_epochs
    return math.floor(schedule.epoch(step) / every) > math.floor(schedule.epoch(step - 1) / every)


def evaluate_run(
    experiment: Experiment, run: Run, state: TrainState, progress: Progress, display: Display
) -> None:
    """Evaluate the moving average where there is one; note the result, and keep the weights that are best.

    Args:
        experiment: The run; its validation images are read.
        run: Where to write.
        state: Its network is left in evaluation mode, with its own weights.
        progress: Result, best result and time are noted in it.
        display: Told the result.
    """
    clock, processes = Stopwatch(), experiment.processes
    bad: list[BadImage] = []
    raw: AnyScores | None = None
    if state.passes is not None:
        state.passes.make_room()
    if experiment.config.evaluate.raw and state.ema:
        with _evaluated(state.model, None, experiment) as model:
            raw = _scores(experiment, model, bad)
    with _evaluated(state.model, state.ema, experiment) as model:
        scores = _scores(experiment, model, bad)
        progress.val_top1 = scores.top1
        if scores.top1 > progress.best_val_top1:
            progress.improved_step = progress.step
        if scores.top1 >= progress.best_val_top1:
            progress.best_val_top1, progress.best_step = scores.top1, progress.step
            if processes.is_first:
                _save_best(run, model, experiment, progress)
    progress.seconds += clock.seconds
    report_bad_images(bad, run, display, processes)
    progress.stopped_early = _is_hopeless(experiment, progress)
    record = _evaluation_record(experiment, progress, scores)
    if raw:
        record |= {"val_raw_top1": raw.top1, "val_raw_loss": raw.loss}
    if progress.stopped_early:
        record["stopped_early"] = True
    if processes.is_first:
        run.journal.write(record)
    display.evaluated(record)


@contextmanager
def _evaluated(model: Network, ema: Ema | None, experiment: Experiment) -> Iterator[Network]:
    """Give the network with its averages, or with its own weights, for the length of a ``with`` block."""
    tensors = ema.state_dict() if ema else model.state_dict()
    if any(is_cut(tensor) for tensor in tensors.values()):
        # Processes may have different numbers of batches, so none can wait for parts of another one's.
        copy = experiment.build_model()
        copy.load_state_dict(whole(tensors, is_kept=True))
        yield copy
    else:
        with ema.swapped_into(model) if ema else nullcontext():
            yield model


def _scores(experiment: Experiment, model: Network, bad: list[BadImage]) -> AnyScores:
    with uncompiled(), by_rules():
        return evaluate_model(
            model,
            experiment.data.val,
            experiment.preprocessing,
            device=experiment.device,
            batch_size=experiment.config.evaluate.batch_size,
            workers=experiment.config.data.workers,
            worker_kind=eval_worker_kind(experiment),
            autocast=experiment.autocast,
            report_bad=lambda name, reason: bad.append(BadImage(name, reason)),
            output=experiment.config.train.loss,
            processes=experiment.processes,
        )


def _save_best(run: Run, model: Network, experiment: Experiment, progress: Progress) -> None:
    save_weights(
        run.best_weights,
        model.state_dict(),
        experiment.spec,
        class_names=experiment.data.class_names,
        preprocessing=experiment.preprocessing,
        provenance=f"effnet, step {progress.step} of {experiment.schedule.total_steps}",
        output=experiment.config.train.loss,
    )


def _is_hopeless(experiment: Experiment, progress: Progress) -> bool:
    """Whether the run has not improved for as long as it may; never at its own end."""
    schedule, patience = experiment.schedule, experiment.config.train.early_stop_epochs
    waited = schedule.epoch(progress.step) - schedule.epoch(progress.improved_step)
    return 0 < patience <= waited and progress.step < schedule.total_steps


def _evaluation_record(experiment: Experiment, progress: Progress, scores: AnyScores) -> dict[str, Any]:
    settings = experiment.schedule.at(progress.step - 1)
    return {
        "step": progress.step,
        "epoch": experiment.schedule.epoch(progress.step),
        "stage": settings.stage,
        "image_size": settings.image_size,
        "seconds": progress.seconds,
        "val_top1": scores.top1,
        "val_top5": scores.top5,
        "val_loss": scores.loss,
        "val_images": scores.images,
        "val_image_size": experiment.preprocessing.image_size,
    } | _of_several_labels(scores)


def _of_several_labels(scores: AnyScores) -> dict[str, float]:
    if isinstance(scores, Scores):
        return {}
    return {
        f"val_{name}": value
        for name, value in scores.to_dict().items()
        if name.startswith(("precision", "recall", "pr_auc"))
    }
