"""The command that shows what networks look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effnet.cli.data import progress_bar
from effnet.cli.options import ClassNamesOption, DeviceOption, JsonOption, ModelOption
from effnet.cli.output import print_json, print_table
from effnet.errors import UserError

if TYPE_CHECKING:
    from effnet.explanation.gallery import Gallery


def explain(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|WEIGHTS... IMAGE...",
            help="One or several trained networks, and behind them image files or folders of them.",
        ),
    ],
    method: Annotated[
        str,
        typer.Option(
            help="cam, grad-cam, grad-cam++, layer-cam, eigen-cam, occlusion, integrated-gradients; several "
            "with commas between them; or all."
        ),
    ] = "cam",
    about: Annotated[
        str,
        typer.Option(
            "--class", help="The class to explain: its name; predicted; or true, the folder of an image."
        ),
    ] = "predicted",
    layer: Annotated[
        str, typer.Option(help="Whose feature maps are weighed: stem, stage1 ... or head, the last ones.")
    ] = "head",
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("explained"),
    size: Annotated[
        int | None, typer.Option(help="Image size in pixels instead of the weights' own.", min=1)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the maps as .npy, too: signed, not scaled.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Play the insertion and deletion game with every map, and with random ones."
        ),
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 8,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    class_names: ClassNamesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw what networks look at: heat over each image as the network sees it, that is behind its crop.

    Writes an overlay for each image and method, sheet.png with all side by side (and more sheets, for up to
    160 images), and explanation.json. An unreadable image is reported, the others are explained.
    """
    from effnet.data.folders import image_files
    from effnet.explanation.gallery import Gallery, unique_names
    from effnet.explanation.images import images_of_files
    from effnet.explanation.methods import methods_named

    networks, images = _told_apart(sources)
    methods = methods_named(method)
    gallery = Gallery(
        out=out,
        images=images_of_files(image_files(images)),
        methods=methods,
        about=about,
        layer=layer,
        check=check,
        raw=raw,
    )
    predictors = [_load(source, size, model, device, class_names) for source in networks]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"--out must be a folder, and '{out}' is or lies in a file") from None
    for name, source, predictor in zip(unique_names(networks), networks, predictors, strict=True):
        with progress_bar(f"images, {name}", quiet=False) as announce:
            gallery.add(name, source, predictor, batch_size=batch_size, report=announce)
    for bad in gallery.bad:
        typer.echo(f"{bad.name}: {bad.reason}", err=True)
    if len(gallery.bad) == len(gallery.images):
        raise UserError("none of the images could be read")
    sheets = gallery.finish()
    if as_json:
        print_json(gallery.summary())
        return
    _print(gallery)
    typer.echo(f"pictures: {', '.join(map(str, sheets))}, and one an image in {out}")


def _told_apart(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Return the networks, which come first, and the images behind them."""
    from effnet.export import is_exported
    from effnet.training.journal import holds_run
    from effnet.weights import is_timm_folder
    from effnet.weights.formats import has_known_ending

    def is_network(argument: str) -> bool:
        path = Path(argument)
        if path.is_dir():
            return holds_run(path) or is_timm_folder(path)
        return has_known_ending(path) or is_exported(path)

    count = 1
    while count < len(arguments) and is_network(arguments[count]):
        count += 1
    if count == len(arguments):
        raise UserError(
            f"there are no images to explain behind '{arguments[-1]}'; give image files or folders of them"
        )
    return list(arguments[:count]), [Path(argument) for argument in arguments[count:]]


def _load(source: str, size: int | None, model: str | None, device: str, class_names: str | None) -> Any:  # noqa: ANN401
    from dataclasses import replace

    from effnet.api import load

    predictor = load(source, model=model, device=device, class_names=class_names)
    if size is not None:
        predictor.preprocessing = replace(predictor.preprocessing, image_size=size)
    return predictor


def _print(gallery: Gallery) -> None:
    summary = gallery.summary()
    rows = [
        (
            Path(image["image"]).name,
            network["name"],
            f"{answer['predicted']} {answer['predicted_probability']:.1%}",
            f"{answer['explained']} {answer['explained_probability']:.1%}",
        )
        for image in summary["images"]
        for network, answer in zip(summary["networks"], image.get("answers", ()), strict=False)
    ]
    print_table(("image", "network", "predicted", "explained"), rows)
    for network in summary["networks"]:
        typer.echo(f"{network['name']} sees {network['view']}; so do the pictures")
        if "check" in network:
            _print_check(network["check"])


def _print_check(check: dict[str, Any]) -> None:
    def row(method: str, found: dict[str, Any]) -> tuple[str, ...]:
        cells = [method, str(found["images"])]
        for game in ("deletion", "insertion"):
            areas = found[game]
            cells += [
                f"{areas[name]:.3f}" if name in areas else "-" for name in ("map", "random", "other_image")
            ]
            cells.append(f"{areas['gain']:+.3f} ± {areas['gain_error']:.3f}")
        return (*cells, "yes" if found["passed"] else "no")

    columns = ("method", "images", "deletion", "random", "other's", "gain", "insertion", "random", "other's")
    print_table(
        (*columns, "gain", "both above 2 s.e."),
        [row(method, found) for method, found in check.items()],
        title="area below the class's probability: deletion should be small, insertion large",
    )
