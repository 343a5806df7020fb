"""Commands that use a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from effnet.arch import released_preprocessing
from effnet.cli.output import print_json, print_table
from effnet.errors import UserError

SourceArgument = Annotated[
    str, typer.Argument(metavar="RUN|WEIGHTS", help="A run directory, a file of weights, or a hub name.")
]
ModelOption = Annotated[
    str | None, typer.Option(help="The network, for a file of weights that does not say.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ClassNamesOption = Annotated[
    str | None,
    typer.Option(help="A file with the names of the classes, one a line, for weights that bring none."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


def evaluate(
    source: SourceArgument,
    data: Annotated[
        str | None,
        typer.Argument(metavar="[DATA]", help="Labelled images. Default: the run's own validation split."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Splits of DATA to measure on, as test or validation+test.")
    ] = "",
    size: Annotated[
        int | None, typer.Option(help="Image size in pixels instead of the weights' own.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network on labelled images: top-1, top-5, loss, and top-1 of every class.

    Where images may have several labels: PR-AUC, and precision and recall of the first and of five answers.
    """
    from effnet.api import evaluate as evaluate_source
    from effnet.data.processes import this_process
    from effnet.evaluation.metrics import Scores

    scores = evaluate_source(
        source,
        data,
        split=split,
        image_size=size,
        batch_size=batch_size,
        model=model,
        device=device,
        class_names=class_names,
    )
    if not this_process().is_first:
        return
    if as_json:
        print_json(scores.to_dict())
        return
    if isinstance(scores, Scores):
        print_table(("class", "top-1"), [(name, f"{top1:.2%}") for name, top1 in scores.class_top1.items()])
        typer.echo("")
    else:
        typer.echo(
            f"PR-AUC {scores.pr_auc:.4f} (within {scores.pr_auc_error:.1g}), "
            f"precision@1 {scores.precision_at_1:.2%}, precision@5 {scores.precision_at_5:.2%}, "
            f"recall@1 {scores.recall_at_1:.2%}, recall@5 {scores.recall_at_5:.2%}"
        )
    typer.echo(
        f"top-1 {scores.top1:.2%}, top-5 {scores.top5:.2%}, loss {scores.loss:.4f}, {scores.images} images"
    )
    if scores.bad_images:
        typer.echo(f"{scores.bad_images} unreadable images were left out")


def predict(
    source: SourceArgument,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to name.", min=1)] = 3,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 32,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the most probable classes of images; an unreadable one is reported, the others are answered."""
    from effnet.api import load
    from effnet.data.folders import image_files

    paths = image_files(images)
    predictor = load(source, model=model, device=device, class_names=class_names)
    answers = predictor.predict(paths, top=top, batch_size=batch_size)
    if as_json:
        print_json([answer.to_dict() for answer in answers])
    for answer in answers:
        if answer.error:
            typer.echo(f"{answer.image}: {answer.error}", err=True)
        elif not as_json:
            pairs = zip(answer.classes, answer.probabilities, strict=True)
            typer.echo(f"{answer.image}: " + ", ".join(f"{name} {share:.1%}" for name, share in pairs))
    if all(answer.error for answer in answers):
        raise UserError("none of the images could be read")


def export(
    source: SourceArgument,
    to: Annotated[
        Literal["timm", "torchvision"],
        typer.Option(help="timm: a folder for create_model; torchvision: a file."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write.")],
    model: ModelOption = None,
) -> None:
    """Write a trained network under the names of another library."""
    from effnet.api import load_trained
    from effnet.weights import export_timm, export_torchvision

    weights = load_trained(source, model=model)
    if to == "timm":
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
