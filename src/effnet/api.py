"""The Python interface of the verbs: configure, train, resume, load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from effnet.config import Config
from effnet.data.copies import CopySettings, sides_for
from effnet.data.images import DataSplit, LabelledImages
from effnet.data.prepare import PreparedStore, prepare_store
from effnet.data.processes import join_processes
from effnet.data.selection import ALL, Selection
from effnet.data.sources import open_configured, open_labelled
from effnet.errors import UserError
from effnet.evaluation.evaluator import evaluate_model
from effnet.evaluation.multilabel import AnyScores
from effnet.evaluation.predictor import Predictor
from effnet.nn import find_spec
from effnet.recipes import config_from_toml, config_to_toml, resolve_config
from effnet.training.display import open_display
from effnet.training.experiment import Experiment, choose_device, prepare_experiment, sizes_needed
from effnet.training.fitting import with_fitting_micro_batch
from effnet.training.journal import Run, create_run, default_run_path, holds_run, open_run
from effnet.training.keeper import checkpoints_in
from effnet.training.loop import RunResult
from effnet.training.loop import train as run_training
from effnet.training.same_run import check_same_config
from effnet.training.split import check_split, write_split
from effnet.training.tracking import check_tracking
from effnet.training.tune_run import RunTuning, tune_network, tune_run
from effnet.training.waiting import wait_advice
from effnet.weights import LoadedWeights, is_timm_folder, load_weights, with_class_names


def configure(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    changes: Sequence[str] = (),
) -> Config:
    """Return a recipe with changes.

    Args:
        data: What to train on; see ``data.source``.
        recipe: Name or file. None: ``demo`` for digits, ``finetune`` with weights, else ``scratch``.
        model: Name of a network or file of a spec; the recipe's scaling of its own network then falls away.
        weights: Run, file or hub name to start from.
        changes: Single values, as ``"train.epochs=10"``; they win over everything else.

    Raises:
        UserError: There is no such recipe, key, or value.
    """
    if recipe is None:
        is_digits = data is None or str(data) == "digits"
        recipe = "finetune" if weights else "demo" if is_digits else "scratch"
    values: dict[str, str | float] = {}
    if data is not None:
        values["data.source"] = str(data)
    if model is not None:
        values |= {"model.network": str(model), "model.width": 1.0, "model.depth": 1.0}
    if weights is not None:
        values["model.weights"] = _weights_of(weights)
    return resolve_config(str(recipe), changes, values=values)


def train(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    resume: Literal["auto"] | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a network, as ``effnet train`` does; arguments as for `configure`.

    Args:
        data: What to train on.
        recipe: Name or file of a recipe.
        model: Name of a network or file of a spec.
        weights: File or hub name to start from.
        out: Folder of the run; None: ``runs/<date>-<time>-<model>``.
        changes: Single values, as ``"train.epochs=10"``.
        resume: ``auto``: continue the run in ``out`` if there is one.
        quiet: Show nothing while training.

    Raises:
        UserError: Something that was given cannot be used.
    """
    config = configure(data, recipe=recipe, model=model, weights=weights, changes=changes)
    if resume is None:
        return start_run(config, Path(out) if out else None, quiet=quiet)
    if out is None:
        raise UserError("resume='auto' needs the folder of the run; give out")
    return start_or_resume_run(config, Path(out), quiet=quiet)


def start_run(
    config: Config, out: Path | None = None, *, quiet: bool = False, images: DataSplit | None = None
) -> RunResult:
    """Train from a configuration in a new run directory, with all processes that torchrun has started.

    Args:
        config: Of the run, see `configure`.
        out: Its folder; None: ``runs/<date>-<time>-<model>``.
        quiet: Show nothing while training.
        images: What ``config.data`` names, where it is open already.

    Raises:
        UserError: Something in the configuration cannot be had.
    """
    with join_processes(config.train.device) as processes:
        experiment, told = with_fitting_micro_batch(
            prepare_experiment(config, data=images, processes=processes)
        )
        path = out or default_run_path(experiment.spec.name)
        _check_out(path, Path(experiment.config.data.source))
        check_tracking(experiment.config.tracking)
        if processes.is_first:
            run = create_run(path, config_to_toml(experiment.config))
            write_split(run.split_path, experiment.data)
        # The others wait here until there is a folder, whose name may say when it was made.
        path = Path(processes.gather_text(str(path))[0])
        run = run if processes.is_first else Run(path)
        return _train(experiment, run, quiet=quiet, resume=False, told=told)


def start_or_resume_run(config: Config, out: Path, *, quiet: bool = False) -> RunResult:
    """Continue the run in a folder, or start it where there is none: the same call begins and goes on.

    Args:
        config: Of the run, see `configure`.
        out: Its folder.
        quiet: Show nothing while training.

    Raises:
        UserError: As `start_run` and `resume_run`, or the run was started with another configuration.
    """
    with join_processes(config.train.device) as processes:
        # All look before one of them makes the folder.
        is_there = processes.any(holds_run(out))
    if not is_there:
        return start_run(config, out, quiet=quiet)
    check_same_config(config, run_config(open_run(out)), out)
    return resume_run(out, quiet=quiet)


def _check_out(path: Path, source: Path) -> None:
    """Refuse a run that the next one would take for a class, or for images of one."""
    if not source.is_dir() or not path.resolve().is_relative_to(source):
        return
    is_beside_splits = (source / "train").is_dir() and path.resolve().relative_to(source).parts[:1] == (
        "runs",
    )
    if not is_beside_splits:
        raise UserError(
            f"the run {path} would lie among its images in {source}; choose another folder with --out"
        )


def tune(
    config: Config,
    *,
    has_data: bool = True,
    compiles: bool = False,
    keeps: bool = True,
    report: Callable[[str], None] | None = None,
) -> RunTuning:
    """Measure which settings are fastest for a run on this machine, as ``effnet tune`` does.

    Args:
        config: Of the run, see `configure`.
        has_data: Whether its images can be read; else only training steps are measured, on noise.
        compiles: Whether compiled networks are measured too, which takes minutes on a processor.
        keeps: Whether runs that say ``auto`` shall use what was found.
        report: Told what is measured next.

    Raises:
        UserError: Something in the configuration cannot be had.
        OSError: What was found cannot be kept.
    """
    measure = tune_run if has_data else tune_network
    return measure(config, compiles=compiles, keeps=keeps, report=report or (lambda text: None))


def resume_run(path: Path, *, quiet: bool = False) -> RunResult:
    """Continue a run at the exact step of its last checkpoint.

    Raises:
        UserError: It is no run, a file of it is damaged, or its data is not what it was. A run that is
            finished gives its result again.
    """
    run = open_run(path)
    config = run_config(run)
    with join_processes(config.train.device) as processes:
        is_begun = bool(checkpoints_in(run.checkpoints))
        experiment = prepare_experiment(config, load=not is_begun, processes=processes)
        if run.split_path.is_file():
            check_split(run.split_path, experiment.data)
        elif processes.is_first:
            write_split(run.split_path, experiment.data)
        return _train(experiment, run, quiet=quiet, resume=True)


def run_config(run: Run) -> Config:
    """Return the resolved configuration of a run.

    Raises:
        UserError: Its file is damaged.
    """
    try:
        text = run.config_path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{run.config_path} is damaged: {error}") from None
    return config_from_toml(text, str(run.config_path))


def prepare(
    data: str | Path,
    out: str | Path,
    settings: CopySettings,
    *,
    workers: int = 0,
    max_bad_fraction: float = 0.05,
    report: Callable[[int, int], None] | None = None,
    selection: Selection = ALL,
) -> PreparedStore:
    """Write copies of images in the sizes that training will read, as ``effnet data prepare`` does.

    Args:
        data: As ``data.source``.
        out: Folder of the store; one that was begun is continued.
        settings: Copies to make; see `sides_to_prepare`.
        workers: Threads; 0: one for each processor.
        max_bad_fraction: Stop when more than this share of the images cannot be read.
        report: Told how many images are read, and of how many.
        selection: Which splits and columns to use.

    Raises:
        UserError: Something that was given cannot be used.
    """
    return prepare_store(
        str(data),
        Path(out),
        settings,
        workers=workers,
        max_bad_fraction=max_bad_fraction,
        report=report,
        selection=selection,
    )


def sides_to_prepare(config: Config) -> tuple[int, ...]:
    """Return the short sides, in pixels, of the copies that serve all stages of a run and its evaluation.

    Raises:
        UserError: There is no such network or file.
    """
    return sides_for(*sizes_needed(config))


def load(
    source: str | Path, *, model: str | None = None, device: str = "auto", class_names: str | None = None
) -> Predictor:
    """Load a run, a file of weights or a hub name, ready to predict.

    Args:
        source: Run directory, file, or hub name.
        model: The network, where the file does not say.
        device: As ``train.device``.
        class_names: A file with the names of the classes, for weights that bring none.

    Raises:
        UserError: There is no such thing, or it does not say what network it is.
    """
    weights = load_trained(source, model=model)
    if class_names:
        weights = with_class_names(weights, class_names, "--class-names")
    return Predictor.from_weights(weights, device=choose_device(device))


def load_trained(source: str | Path, *, model: str | None = None) -> LoadedWeights:
    """Return the best weights of a run, or those of a file or hub name.

    Args:
        source: Run directory, file, folder in timm's form, or hub name.
        model: The network, where the file does not say.

    Raises:
        UserError: There is no such thing, or it does not say what network it is.
    """
    return load_weights(_weights_of(source), find_spec(model) if model else None)


def _weights_of(source: str | Path) -> str:
    """Return the file with the best weights of a run; what is no run stays as it is."""
    path = Path(source)
    if not path.is_dir() or is_timm_folder(path):
        return str(source)
    run = open_run(path)
    if not run.best_weights.is_file():
        raise UserError(
            f"{path} has not been evaluated yet, so it has no weights to use; "
            f"continue it with: effnet train --resume {path}"
        )
    return str(run.best_weights)


def evaluate(
    source: str | Path,
    data: str | Path | None = None,
    *,
    split: str = "",
    image_size: int | None = None,
    batch_size: int = 64,
    model: str | None = None,
    device: str = "auto",
    class_names: str | None = None,
) -> AnyScores:
    """Measure a network on labelled images, with all processes that torchrun has started.

    Where images may have several labels, these are other numbers.

    Args:
        source: Run directory, file of weights, or hub name.
        data: Labelled images: their validation split where they have one, else all of them. None: the
            validation split of the run.
        split: Names of the splits of ``data`` to measure on instead, as ``test``.
        image_size: Pixels; None: as the weights say.
        batch_size: Images at a time.
        model: The network, where a file does not say.
        device: As ``train.device``.
        class_names: A file with the names of the classes, for weights that bring none.

    Raises:
        UserError: Something that was given cannot be used, or the classes are not those of the network.
    """
    with join_processes(device) as processes:
        # Of several processes, each has made a GPU of its own the one that `cuda` means.
        predictor = load(source, model=model, device=device, class_names=class_names)
        if data is None and split:
            raise UserError("--split chooses among the splits of DATA; give DATA as well")
        images = _run_validation(Path(source)) if data is None else open_labelled(str(data), split)
        preprocessing = predictor.preprocessing
        if image_size is not None:
            preprocessing = replace(preprocessing, image_size=image_size)
        return evaluate_model(
            predictor.model,
            images.with_classes(predictor.class_names),
            preprocessing,
            device=predictor.device,
            batch_size=batch_size,
            output=predictor.output,
            processes=processes,
        )


def _run_validation(path: Path) -> LabelledImages:
    if not path.is_dir():
        raise UserError(f"{path} is no run, so it has no validation images of its own; give DATA")
    run = open_run(path)
    split = open_configured(run_config(run).data)
    check_split(run.split_path, split)
    return split.val


def _train(experiment: Experiment, run: Run, *, quiet: bool, resume: bool, told: str = "") -> RunResult:
    advice = wait_advice(
        experiment.config,
        is_gpu=experiment.device.type == "cuda",
        processors=experiment.processes.workers(0),
    )
    is_quiet = quiet or not experiment.processes.is_first
    with open_display(experiment.schedule, quiet=is_quiet, advice=advice) as display:
        if told:
            display.message(told)
        return run_training(experiment, run, display, resume=resume)
