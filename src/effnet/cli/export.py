"""The command that writes a trained network for others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from effnet.arch import released_preprocessing
from effnet.cli.options import ClassNamesOption, JsonOption, ModelOption, SourceArgument
from effnet.cli.output import megabytes, print_json, print_table
from effnet.cli.training import FailedCommandError
from effnet.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from effnet.export.document import Exported

_LIBRARIES = ("timm", "torchvision")
_CHECKED = ("onnx", "openvino", "pt2", "executorch", "coreml")


def export(
    source: SourceArgument,
    to: Annotated[
        str,
        typer.Option(
            metavar="FORM[,FORM...]",
            help="onnx, openvino, pt2 (torch.export), executorch, coreml: compared with the network by their "
            "own runtimes before they are kept. timm: a folder for create_model; torchvision: a file.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to, or the name of the only file.")],
    precision: Annotated[
        str, typer.Option(metavar="P[,P...]", help="fp32, fp16 or int8; each form is written in each.")
    ] = "fp32",
    size: Annotated[
        int, typer.Option(help="Image size in pixels instead of the weights' own.", min=0, show_default=False)
    ] = 0,
    batch_size: Annotated[int, typer.Option(help="Images that a file takes at once.", min=1)] = 1,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Any number of images.")] = False,
    dynamic_size: Annotated[bool, typer.Option("--dynamic-size", help="Squares of any side.")] = False,
    preprocess: Annotated[
        bool,
        typer.Option(
            "--preprocess",
            help="Normalise inside: the file takes uint8 N H W C. Images must be resized and cropped before.",
        ),
    ] = False,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Images for the ranges of int8. Default: the run's training images."
        ),
    ] = None,
    calibration_images: Annotated[int, typer.Option(help="How many of them.", min=1)] = 128,
    keep: Annotated[
        str,
        typer.Option(
            help="What stays in floating point in int8: none, ends (first convolution and classifier), se "
            "(squeeze and excitation), or ends+se."
        ),
    ] = "se",
    check: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images to compare on. Default: those that the run held out, else made ones.",
        ),
    ] = None,
    check_images: Annotated[int, typer.Option(help="At most so many; 0: all.", min=0)] = 500,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of logits, as a fraction of an image's largest one. Default: 1e-4 in "
            "fp32, 0.05 in fp16, none in int8.",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of top-1, as a fraction. Default: 0.001 in fp32, 0.005 in fp16, 0.01 in int8.",
            show_default=False,
        ),
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Write also what this machine cannot run to compare it.")
    ] = False,
    model: ModelOption = None,
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a trained network for another runtime or library, and compare what that answers.

    A file that answers otherwise than the network is not kept. `parity.json` beside the files says how far
    they are from it, how large, how accurate and how fast.
    """
    names = to.split(",")
    if {"litert", "tflite"}.intersection(names):
        raise UserError(
            "there is no export to LiteRT: its converter needs torch below 2.13 and a nightly build of "
            "TensorFlow; choose executorch for telephones, or onnx"
        )
    if unknown := [name for name in names if name not in (*_CHECKED, *_LIBRARIES)]:
        raise UserError(
            f"there is no form '{unknown[0]}'{did_you_mean(unknown[0], (*_CHECKED, *_LIBRARIES))}"
        )
    if set(names) & set(_LIBRARIES):
        _export_to_library(source, names, out, model)
        return
    from effnet.api import export as export_source
    from effnet.arch.io import from_dict
    from effnet.export.card import Precision
    from effnet.export.parity import RefusedExportError
    from effnet.export.settings import ExportSettings

    precisions: Any = precision.split(",")
    for name in precisions:
        if name not in get_args(Precision):
            raise UserError(f"there is no precision '{name}'{did_you_mean(name, get_args(Precision))}")
    settings = {
        "image_size": size,
        "batch_size": 0 if dynamic_batch else batch_size,
        "any_size": dynamic_size,
        "raw_pixels": preprocess,
        "keep": keep,
        "calibration_images": calibration_images,
        "tolerance": tolerance,
        "max_drop": max_drop,
        "allow_unchecked": unchecked,
    }
    try:
        exported = export_source(
            source,
            out,
            to=names,
            precisions=precisions,
            settings=from_dict(ExportSettings, settings, "the options"),
            model=model,
            class_names=class_names,
            check=check,
            check_images=check_images,
            calibration=calibration,
            report=lambda text: typer.echo(text, err=True),
        )
    except RefusedExportError as error:
        raise FailedCommandError(str(error)) from None
    if as_json:
        print_json([item.to_dict() for item in exported])
        return
    _print_exported(exported)


def _export_to_library(source: str, names: list[str], out: Path, model: str | None) -> None:
    from effnet.api import load_trained
    from effnet.weights import export_timm, export_torchvision

    if len(names) > 1:
        raise UserError(f"{names[0]} and {names[1]} do not go together; export to timm and torchvision alone")
    weights = load_trained(source, model=model)
    if names == ["timm"]:
        export_timm(
            out,
            weights.state,
            weights.spec,
            class_names=weights.class_names,
            preprocessing=weights.preprocessing or released_preprocessing(weights.spec),
        )
        typer.echo(f"wrote {out}; load it with timm.create_model('local-dir:{out}', pretrained=True)")
    else:
        line = export_torchvision(out, weights.state, weights.spec)
        typer.echo(f"wrote {out}, a state dict for {line}")


def _print_exported(exported: Sequence[Exported]) -> None:
    columns = ("file", "precision", "size", "difference", "same top-1", "top-1", "ms", "p10-p90", "x PyTorch")
    rows: list[tuple[str, ...]] = []
    timed = next((item for item in exported if item.network_latency), None)
    if timed is not None and timed.network_latency is not None and timed.parity is not None:
        latency = timed.network_latency
        size = megabytes(4 * timed.card.parameters)
        rows.append(
            ("PyTorch", "fp32", size, "", "", _share(timed.parity.network_top1), *_times(latency), "1.00")
        )
    for item in exported:
        row = [item.path.name, item.card.precision, megabytes(item.size_bytes)]
        if item.parity is None or item.latency is None:
            rows.append((*row, "not run", "", "", "", "", ""))
            continue
        row += [f"{item.parity.difference:.1e}", _share(item.parity.agreement), _share(item.parity.top1)]
        rows.append((*row, *_times(item.latency), f"{item.speedup:.2f}"))
    print_table(columns, rows)
    first = exported[0]
    batch = f"a batch of {first.latency.batch_size}" if first.latency else ""
    typer.echo(f"\ncompared on {first.images}; times are of {batch or 'nothing'} and in turns with PyTorch")
    typer.echo(f"wrote {', '.join(str(item.path) for item in exported)}")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _times(latency: Any) -> tuple[str, str]:  # noqa: ANN401 - effnet.export.latency.Latency, which needs numpy
    return f"{latency.median_ms:.1f}", f"{latency.quantile_ms(0.1):.1f}-{latency.quantile_ms(0.9):.1f}"
