"""Load what was trained, and evaluate it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from effnet.api.reading import run_validation, weights_of
from effnet.data.images import LabelledImages
from effnet.data.processes import join_processes
from effnet.data.sources import open_labelled
from effnet.engines import use_engine
from effnet.errors import UserError
from effnet.evaluation.evaluator import evaluate_model
from effnet.evaluation.multilabel import AnyScores
from effnet.evaluation.predictor import Predictor
from effnet.export import is_exported, load_engine
from effnet.nn import find_spec
from effnet.training.experiment import choose_device
from effnet.weights import LoadedWeights, load_weights, with_class_names


def load(
    source: str | Path,
    *,
    model: str | None = None,
    device: str = "auto",
    class_names: str | None = None,
    engine: str | None = None,
) -> Predictor:
    """Load a run, a file of weights, an exported file or a hub name, ready to predict.

    Args:
        source: Run directory, file, or hub name. What ``effnet export`` wrote for another runtime answers
            through that, on the processor.
        model: The network, where the file does not say.
        device: As ``train.device``.
        class_names: A file with the names of the classes, for weights that bring none.
        engine: What computes on a processor, as of `effnet.engines.use_engine`: ``auto`` takes the time to
            measure where that is not known yet. None: PyTorch, as it always did.

    Raises:
        UserError: There is no such thing, it does not say what network it is, or the engine cannot be used.
    """
    if is_exported(source):
        predictor = _load_exported(source, model=model, device=device, class_names=class_names)
        use_engine(predictor, engine or "auto")
        return predictor
    weights = load_trained(source, model=model)
    if class_names:
        weights = with_class_names(weights, class_names, "--class-names")
    predictor = Predictor.from_weights(weights, device=choose_device(device))
    if engine is not None:
        use_engine(predictor, engine)
    return predictor


def _load_exported(
    source: str | Path, *, model: str | None, device: str, class_names: str | None
) -> Predictor:
    for option, value in (("--model", model), ("--class-names", class_names)):
        if value is not None:
            raise UserError(f"{source} knows its network and its classes; leave {option} out")
    if device not in {"auto", "cpu"}:
        raise UserError(
            f"{source} is run on the processor; leave --device {device} out, or give the run itself"
        )
    engine = load_engine(source)
    return Predictor(engine, engine.class_names, engine.preprocessing, output=engine.output)


def load_trained(source: str | Path, *, model: str | None = None) -> LoadedWeights:
    """Return the best weights of a run, or those of a file or hub name.

    Args:
        source: Run directory, file, folder in timm's form, or hub name.
        model: The network, where the file does not say.

    Raises:
        UserError: There is no such thing, or it does not say what network it is.
    """
    if is_exported(source):
        raise UserError(
            f"{source} was exported for another runtime, which answers but shows no weights; give the run or "
            "the file of weights that it was exported from"
        )
    return load_weights(weights_of(source), find_spec(model) if model else None)


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
        images = open_images(source, data, split)
        preprocessing = predictor.preprocessing
        if image_size is not None:
            preprocessing = replace(preprocessing, image_size=image_size)
        return evaluate_model(
            predictor.model,
            known_images(images, predictor),
            preprocessing,
            device=predictor.device,
            batch_size=batch_size,
            output=predictor.output,
            processes=processes,
        )


def open_images(source: str | Path, data: str | Path | None, split: str = "") -> LabelledImages:
    """Open the images to measure on: those of ``data``, else those that the run held out.

    Raises:
        UserError: There is no such data, or it is not what it was.
    """
    if data is None and split:
        raise UserError("--split chooses among the splits of DATA; give DATA as well")
    return run_validation(Path(source)) if data is None else open_labelled(str(data), split)


def known_images(images: LabelledImages, predictor: Predictor) -> LabelledImages:
    """Return the images with labels in the order of a network's classes.

    Raises:
        UserError: The network lacks a class that an image has.
    """
    try:
        return images.with_classes(predictor.class_names)
    except UserError as error:
        if not has_no_names(predictor):
            raise
        raise UserError(
            f"{error}; the weights bring no names of their classes, give them with --class-names"
        ) from None


def has_no_names(predictor: Predictor) -> bool:
    """Tell whether classes are called by their numbers, as where weights bring no names."""
    return predictor.class_names == tuple(map(str, range(len(predictor.class_names))))
