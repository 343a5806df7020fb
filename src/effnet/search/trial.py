"""One candidate in a process of its own: what it costs on this device, then its training.

``python -m effnet.search.trial FOLDER`` does what `effnet.search.job.Job` in that folder says, and leaves
there what came of it. A process that fails harms no other candidate, and gives all its memory back.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from effnet.arch.io import load_spec, to_dict
from effnet.arch.spec import NetworkSpec
from effnet.config import Config
from effnet.errors import UserError
from effnet.files import write_json
from effnet.search.bounds import count
from effnet.search.job import Ending, Job, TrialFolder, read_costs, read_job
from effnet.search.measures import Measures
from effnet.search.schedules.space import Schedule, schedule_from_json
from effnet.training.journal import holds_run

if TYPE_CHECKING:
    from effnet.training.experiment import Experiment
    from effnet.training.loop import RunResult

INTERRUPTED = 130
"""Exit code where the state is saved, and the same job goes on from it."""
_ENOUGH_EPOCHS = 1e6
"""Between evaluations, where only the one at the end of the run counts."""
_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory")


def training_config(job: Job, spec_path: Path) -> Config:
    """Return the complete configuration of a candidate's training."""
    run = _run_here(job)
    return replace(run, model=replace(run.model, network=str(spec_path.resolve()), width=1.0, depth=1.0))


def schedule_config(job: Job, schedule: Schedule) -> Config:
    """Return the complete configuration of a schedule's training."""
    return schedule.applied_to(_run_here(job))


def _run_here(job: Job) -> Config:
    """Return the training of all candidates with this machine's images, evaluated at the first rung."""
    run, rungs = job.settings.run, job.settings.rung_epochs
    return replace(
        run,
        data=replace(run.data, source=job.source, workers=job.threads),
        evaluate=replace(run.evaluate, every_epochs=min(rungs, default=_ENOUGH_EPOCHS)),
    )


def run_trial(folder: TrialFolder) -> Ending:
    """Measure the candidate, and train it unless a bound rejects it.

    Raises:
        Exception: Whatever goes wrong.
    """
    from effnet.api import start_run  # noqa: PLC0415 - seconds to import
    from effnet.training.experiment import prepare_experiment  # noqa: PLC0415

    job = read_job(folder)
    text = folder.spec_path.read_text(encoding="utf-8")
    if schedule := schedule_from_json(text, str(folder.spec_path)):
        run = schedule_config(job, schedule)
        result = _resumed(folder) or start_run(run, folder.run, quiet=True)
        return Ending(
            state="done", measures=Measures(accuracy=result.val_top1, train_seconds=result.step_seconds)
        )
    config = training_config(job, folder.spec_path)
    costs, images = read_costs(folder), None
    if costs is None:
        # A step on noise needs no pixels.
        experiment = prepare_experiment(replace(config, data=replace(config.data, resident=False)))
        images = experiment.data
        costs = measure_costs(job, load_spec(str(folder.spec_path)), experiment)
        write_json(folder.costs_path, to_dict(costs))
    if reason := job.settings.bounds.excess(costs):
        return Ending(state="rejected", measures=costs, reason=reason)
    result = _resumed(folder) or start_run(config, folder.run, quiet=True, images=images)
    return Ending(state="done", measures=replace(costs, accuracy=result.val_top1))


def _resumed(folder: TrialFolder) -> RunResult | None:
    """Go on with the training that an earlier try has begun; None: there is none that is any good."""
    from effnet.api import resume_run  # noqa: PLC0415 - as above

    if holds_run(folder.run):
        try:
            return resume_run(folder.run, quiet=True)
        except UserError as error:
            sys.stderr.write(f"begun anew: {error}\n")
    shutil.rmtree(folder.run, ignore_errors=True)
    return None


def measure_costs(job: Job, spec: NetworkSpec, experiment: Experiment) -> Measures:
    """Return all costs that the search asks for.

    Args:
        job: Of the trial.
        spec: The candidate.
        experiment: Its training.

    Raises:
        torch.OutOfMemoryError: The GPU has no room for it.
    """
    from effnet.search.step_time import measure_latency, measure_step  # noqa: PLC0415
    from effnet.search.turns import Budget  # noqa: PLC0415

    settings = job.settings
    assert job.reference is not None, "networks are measured by a reference"
    budget = Budget(seconds=settings.step_seconds)
    step = measure_step(experiment, spec, job.reference, budget, images=settings.step_images)
    costs = replace(
        count(spec, experiment.preprocessing.image_size),
        step_ms=step.ratio * (settings.reference_ms or step.reference_ms),
        memory_mb=step.memory_mb,
    )
    if settings.needs_latency:
        latency = measure_latency(experiment, spec, job.reference, budget)
        first = settings.reference_latency_ms or latency.reference_ms
        costs = replace(costs, latency_ms=latency.ratio * first)
    return costs


def why(error: Exception) -> str:
    """Return one line about a failure."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return f"out of memory: {text}"
    return text


def stop_with_the_worker() -> None:
    """Save and stop once the worker that holds the other end of standard input is gone, however it went."""

    def watch() -> None:
        # Not through sys.stdin, whose lock the interpreter needs to end.
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, name="watch the worker", daemon=True).start()


def main() -> None:
    """Run the trial in the folder that the command line names."""
    folder = TrialFolder(path=Path(sys.argv[1]))
    stop_with_the_worker()
    try:
        with _alone_in(folder):
            ending = run_trial(folder)
    except Exception as error:
        if _is_interruption(error):
            sys.exit(INTERRUPTED)
        traceback.print_exc()
        ending = Ending(state="failed", measures=read_costs(folder), reason=why(error))
    write_json(folder.ending_path, to_dict(ending))


@contextmanager
def _alone_in(folder: TrialFolder) -> Iterator[None]:
    """Wait until the process of a worker that has lost this trial has left its folder."""
    with (folder.path / ".lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_interruption(error: Exception) -> bool:
    from effnet.training.loop import InterruptedRunError  # noqa: PLC0415

    return isinstance(error, InterruptedRunError)


if __name__ == "__main__":
    main()
