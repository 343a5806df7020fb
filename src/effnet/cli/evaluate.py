"""The command that measures a trained network."""

from __future__ import annotations

from typing import Annotated

import typer

from effnet.cli.options import ClassNamesOption, DeviceOption, JsonOption, ModelOption, SourceArgument
from effnet.cli.output import print_json, print_table


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
