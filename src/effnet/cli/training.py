"""Commands that plan and train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effnet.cli.output import duration, megabytes, print_json, print_table
from effnet.errors import LostProcessError, UnreachableError, UserError

if TYPE_CHECKING:
    from effnet.config import Config
    from effnet.schedule.progressive import StageSettings
    from effnet.training.loop import RunResult
    from effnet.training.preflight import Plan


class InterruptedCommandError(Exception):
    """The run was asked to stop and has saved its state."""


class FailedCommandError(Exception):
    """Something outside the user's hands went wrong; the message says what."""


EXPECTED_FAILURES = (InterruptedCommandError, FailedCommandError, LostProcessError, UnreachableError, OSError)

DataArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATA]",
        help="A folder of class folders (or of train/ and val/), of parquet files or of tars, a prepared "
        "store or its address, `hf:NAME`, or `digits`.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="Name or file of a recipe, see `effnet recipes`. Default: `demo` for digits, `finetune` with "
        "--weights, else `scratch`."
    ),
]
ModelOption = Annotated[
    str | None, typer.Option(help="Name of a network, see `effnet models`, or the file of a spec.")
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Start from these weights: a run, a file, `pretrained`, or a name on the Hugging Face hub."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the recipe, as train.epochs=10."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


def is_interruption(error: BaseException) -> bool:
    """Whether an expected failure is an interruption."""
    return isinstance(error, InterruptedCommandError)


def plan(
    data: DataArgument = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    changes: SetOption = None,
    measure: Annotated[
        bool, typer.Option(help="Run a few steps of every stage to predict time and memory; needs the data.")
    ] = True,
    at: Annotated[
        list[int] | None,
        typer.Option(metavar="STEP", help="Show what this step trains with; may be given several times."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the stages of a run, and the time and memory it will take on this device."""
    from effnet.schedule.progressive import stage_schedule
    from effnet.training.experiment import network_of, prepare_experiment
    from effnet.training.norm_advice import norm_advice
    from effnet.training.preflight import measure as measure_stages
    from effnet.training.preflight import plan as plan_stages

    config = _configuration(data, recipe, model, weights, changes)
    if data is None and config.data.train_images:
        spec = network_of(config.model)
        schedule = stage_schedule(
            config.progressive,
            config.train,
            train_images=config.data.train_images,
            train_size=spec.train_size,
        )
        result = plan_stages(schedule, spec)
    else:
        experiment = prepare_experiment(config)
        if measure:
            result = measure_stages(experiment, _announce)
        else:
            result = plan_stages(experiment.schedule, experiment.spec)
    steps = _steps_to_show(config, result, at or [])
    advice = norm_advice(config, result.schedule)
    if as_json:
        print_json(result.to_dict() | {"at": steps, "advice": advice})
    else:
        _print_plan(result)
        if advice:
            typer.echo(advice)
        _print_steps(steps)


def train(
    data: DataArgument = None,
    recipe: RecipeOption = None,
    model: ModelOption = None,
    weights: WeightsOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Default: runs/<date>-<time>-<model>.")
    ] = None,
    changes: SetOption = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|auto",
            help="Continue this run at its last checkpoint; nothing else may be given. `auto`: continue the "
            "run in --out if there is one, else start it; for jobs that are restarted as they are.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the result only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network: progressive learning with adaptive regularization, or what the recipe says."""
    if resume == "auto":
        if out is None:
            raise UserError("--resume auto needs the folder of the run; give it with --out")
    elif resume is not None and any((data, recipe, model, weights, out, changes)):
        raise UserError("--resume continues a run as it was started; give nothing but --resume RUN")

    def run() -> RunResult:
        from effnet.api import resume_run, start_or_resume_run, start_run

        if resume is not None and resume != "auto":
            return resume_run(Path(resume), quiet=quiet)
        config = _configuration(data, recipe, model, weights, changes)
        if resume is not None and out is not None:
            return start_or_resume_run(config, out, quiet=quiet)
        return start_run(config, out, quiet=quiet)

    _finish(run, as_json=as_json)


def _finish(run: Callable[[], RunResult], *, as_json: bool) -> None:
    import torch

    from effnet.data.failures import WorkerError
    from effnet.data.processes import this_process
    from effnet.training.guard import DivergedRunError
    from effnet.training.loop import InterruptedRunError

    try:
        result = run()
    except InterruptedRunError as error:
        # All processes are told, and one says it.
        raise InterruptedCommandError(str(error) if this_process().is_first else "") from error
    except DivergedRunError as error:
        raise FailedCommandError(str(error) if this_process().is_first else "") from error
    except (WorkerError, torch.OutOfMemoryError) as error:
        raise FailedCommandError(str(error)) from error
    if not this_process().is_first:
        return
    if as_json:
        print_json(result.to_dict())
        return
    typer.echo(
        f"validation top-1 {result.val_top1:.2%}, best {result.best_val_top1:.2%} at step "
        f"{result.best_step}; {result.steps} steps in {duration(result.train_seconds)}, "
        f"{result.data_wait:.0%} of the steps' time waiting for images"
    )
    if result.stopped_early:
        typer.echo("stopped early: validation did not improve for train.early_stop_epochs")
    if result.non_finite:
        typer.echo(
            f"{result.non_finite} {'step was' if result.non_finite == 1 else 'steps were'} not finite and "
            f"answered as train.on_non_finite says, see {result.run}/metrics.jsonl"
        )
    if result.bad_images:
        images = f"{result.bad_images} image{'s' * (result.bad_images != 1)}"
        typer.echo(f"{images} could not be read in full, see {result.run}/bad-images.jsonl")
    typer.echo(f"run: {result.run}")


def _configuration(
    data: str | None,
    recipe: str | None,
    model: str | None,
    weights: str | None,
    changes: list[str] | None,
) -> Config:
    from effnet.api import configure

    return configure(data, recipe=recipe, model=model, weights=weights, changes=changes or ())


def _print_plan(plan: Plan) -> None:
    from effnet.schedule.progressive import LABELS

    schedule = plan.schedule
    measured = ("images/s", "time", "memory") if plan.costs else ()
    erases = any(stage.erasing_probability for stage in schedule.stages)
    names = [name for name in LABELS if name != "erasing_probability" or erases]
    columns = ("stage", "steps", "epochs", "size", "batch", *(LABELS[name] for name in names), *measured)
    rows = []
    for stage in schedule.stages:
        row = [
            str(stage.stage + 1),
            f"{stage.start_step}-{stage.end_step}",
            f"{schedule.epoch(stage.start_step):.1f}-{schedule.epoch(stage.end_step):.1f}",
            f"{stage.image_size} px",
            str(stage.batch_size),
            *(f"{stage.coupled[name]:.2f}" for name in names),
        ]
        if plan.costs:
            row += _measured_cells(plan, stage.stage)
        rows.append(row)
    print_table(columns, rows)
    _print_totals(plan)


def _steps_to_show(config: Config, plan: Plan, at: list[int]) -> list[dict[str, float]]:
    from effnet.schedule.points import key_steps, values_at

    last = plan.schedule.total_steps - 1
    if outside := [step for step in at if not 0 <= step <= last]:
        raise UserError(f"--at {outside[0]} is no step of the run; its steps are 0 to {last}")
    steps = at or key_steps(config.learning_rate, plan.schedule)
    return [values_at(config.learning_rate, plan.schedule, step) for step in steps]


def _print_steps(steps: list[dict[str, float]]) -> None:
    typer.echo("")
    rows = [
        (
            f"{values['step']}",
            f"{values['epoch']:.2f}",
            f"{values['learning_rate']:.4g}",
            f"{values['stage'] + 1}",
            f"{values['image_size']} px",
            f"{values['batch_size']}",
        )
        for values in steps
    ]
    print_table(("step", "epoch", "learning rate", "stage", "size", "batch"), rows)


def _announce(settings: StageSettings) -> None:
    typer.echo(f"measuring stage {settings.stage + 1} at {settings.image_size} px", err=True)


def _measured_cells(plan: Plan, stage: int) -> list[str]:
    cost, settings = plan.costs[stage], plan.schedule.stages[stage]
    return [
        f"{cost.images_per_second:.1f}",
        duration(settings.steps * cost.seconds_per_step),
        megabytes(cost.memory_bytes),
    ]


def _print_totals(plan: Plan) -> None:
    schedule = plan.schedule
    typer.echo(
        f"\n{schedule.total_steps} steps over {schedule.train_images} images; {plan.relative_macs:.0%} of "
        f"the arithmetic of training at {schedule.largest_size} px throughout"
    )
    if not plan.costs:
        return
    typer.echo(
        f"predicted: {duration(plan.seconds)} of training steps, {plan.relative_seconds:.0%} of the time at "
        f"{schedule.largest_size} px throughout; {megabytes(plan.memory_bytes)} at the peak"
    )
    for settings, cost in zip(schedule.stages, plan.costs, strict=True):
        if not cost.fits:
            typer.echo(
                f"stage {settings.stage + 1} does not fit: a batch of {settings.batch_size} is too large for "
                f"this device, which has room for {cost.measured_batch_size}; `effnet train` runs them in "
                "parts, see train.micro_batch_size"
            )
