"""Write a trained network for other runtimes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from effnet.api.reading import run_data, run_validation
from effnet.api.using import load_trained
from effnet.arch import released_preprocessing
from effnet.data.images import LabelledImages
from effnet.data.sources import open_labelled
from effnet.data.splits import stratified_subset
from effnet.errors import UserError
from effnet.export.card import Precision
from effnet.export.checking import Source
from effnet.export.document import Exported
from effnet.export.forms import form_named
from effnet.export.images import CheckImages, calibration_of, made_images
from effnet.export.settings import ExportSettings
from effnet.export.writing import Wish, check_wishes, write_wishes
from effnet.nn import build_model
from effnet.training.journal import holds_run
from effnet.weights import LoadedWeights, with_class_names

DEFAULTS = ExportSettings()


def export(
    source: str | Path,
    out: str | Path,
    *,
    to: Sequence[str],
    precisions: Sequence[Precision] = ("fp32",),
    settings: ExportSettings = DEFAULTS,
    model: str | None = None,
    class_names: str | None = None,
    check: str | None = None,
    check_images: int = 500,
    calibration: str | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Write a network in other forms, as ``effnet export`` does; each is compared with it before it is kept.

    Args:
        source: Run directory, file of weights, or hub name.
        out: A folder, which gets ``model`` with the ending of each form, ``model-int8`` in other precisions,
            and ``parity.json``; or the name of the file, where there is only one.
        to: Names of the forms.
        precisions: Of the arithmetic; each form is written in each.
        settings: How to export.
        model: The network, where a file of weights does not say.
        class_names: A file with the names of the classes, for weights that bring none.
        check: Labelled images to compare on. None: those that the run held out, else made ones.
        check_images: How many of them at most; 0: all.
        calibration: Images to choose the ranges of int8 by. None: those that the run was trained on.
        report: Told what is done next.

    Raises:
        UserError: Something that was given cannot be used.
        RefusedExportError: A form answers otherwise than the network, and was not kept.
    """
    wishes = _wishes(Path(out), to, precisions)
    check_wishes(wishes, settings)
    weights = load_trained(source, model=model)
    if class_names:
        weights = with_class_names(weights, class_names, "--class-names")
    exported = _source(weights, settings)
    return write_wishes(
        exported,
        wishes,
        settings,
        _images_to_check(source, exported, check, check_images),
        lambda: calibration_of(_images_to_calibrate(source, calibration), exported.preprocessing, settings),
        report=report,
    )


def _wishes(out: Path, to: Sequence[str], precisions: Sequence[Precision]) -> list[Wish]:
    forms = [form_named(name) for name in dict.fromkeys(to)]
    asked = [(form, precision) for form in forms for precision in dict.fromkeys(precisions)]
    if not asked:
        raise UserError("no form to export to is given; name one, as onnx")
    if len(asked) == 1 and out.suffix == forms[0].suffix:
        return [Wish(form=forms[0], precision=asked[0][1], path=out)]
    if out.is_file() or out.suffix in {form.suffix for form in forms}:
        raise UserError(f"{len(asked)} files do not fit into {out}; give a folder")
    return [
        Wish(
            form=form,
            precision=precision,
            path=out / f"model{'' if precision == 'fp32' else f'-{precision}'}{form.suffix}",
        )
        for form, precision in asked
    ]


def _source(weights: LoadedWeights, settings: ExportSettings) -> Source:
    preprocessing = weights.preprocessing or released_preprocessing(weights.spec)
    if settings.image_size:
        preprocessing = replace(preprocessing, image_size=settings.image_size)
    return Source(
        network=build_model(weights.spec, weights=weights).eval(),
        class_names=weights.class_names or tuple(map(str, range(weights.spec.num_classes))),
        preprocessing=preprocessing,
        output=weights.output,
        origin=weights.origin,
    )


def _images_to_check(source: str | Path, exported: Source, data: str | None, most: int) -> CheckImages:
    if data is None and not holds_run(Path(source)):
        return made_images(exported.class_names, exported.preprocessing.image_size)
    images = run_validation(Path(source)) if data is None else open_labelled(data)
    images = images.with_classes(exported.class_names)
    chosen = stratified_subset(images, most or len(images), seed=0)
    return CheckImages(
        images=chosen,
        has_labels=True,
        source=f"{len(chosen)} images {'that the run held out' if data is None else f'of {data}'}",
    )


def _images_to_calibrate(source: str | Path, data: str | None) -> LabelledImages:
    if data is not None:
        return open_labelled(data)
    if not holds_run(Path(source)):
        raise UserError(
            f"{source} is no run, so it has no training images to choose the ranges of int8 by; give some "
            "with --calibration"
        )
    return run_data(Path(source)).train
