"""The command that answers over HTTP."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from effnet.cli.options import ClassNamesOption, DeviceOption, EngineOption, ModelOption
from effnet.config.serve import MEGABYTE, ServeConfig
from effnet.errors import UserError, explain

_TOKEN_VARIABLE = "EFFNET_TOKEN"
_DEFAULT = ServeConfig()


def serve(
    sources: Annotated[
        list[str], typer.Argument(metavar="RUN|WEIGHTS...", help="Runs, files of weights, or hub names.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0: all of this machine.")
    ] = _DEFAULT.host,
    port: Annotated[int, typer.Option(help="0: any that is free.")] = _DEFAULT.port,
    max_batch: Annotated[int, typer.Option(help="Most images in one forward pass.")] = _DEFAULT.max_batch,
    max_wait_ms: Annotated[
        float, typer.Option(help="How long a batch that is not full waits for more images.")
    ] = _DEFAULT.max_wait_ms,
    threads: Annotated[
        int, typer.Option(help="Of a forward pass; 0: one for each processor.")
    ] = _DEFAULT.threads,
    decode_threads: Annotated[
        int, typer.Option(help="That decode images; 0: one for each processor.")
    ] = _DEFAULT.decode_threads,
    max_megabytes: Annotated[int, typer.Option(help="Of the body of a request.")] = _DEFAULT.max_bytes
    // MEGABYTE,
    max_megapixels: Annotated[int, typer.Option(help="Of an image.")] = _DEFAULT.max_pixels // 10**6,
    max_images: Annotated[int, typer.Option(help="Of a request.")] = _DEFAULT.max_images,
    max_queue: Annotated[
        int, typer.Option(help="Most images that wait for an answer; more are told to come again.")
    ] = _DEFAULT.max_queue,
    timeout: Annotated[
        float, typer.Option(help="Seconds for a request to arrive, and again to be answered.")
    ] = _DEFAULT.answer_timeout_s,
    drain: Annotated[
        float, typer.Option(help="Seconds after SIGTERM to answer what has been accepted.")
    ] = _DEFAULT.drain_s,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help=f"A file with the token that clients must send; else {_TOKEN_VARIABLE} may hold it."
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A site whose pages may use the service; can be repeated.")
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Print a line of JSON a request.")] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    class_names: ClassNamesOption = None,
) -> None:
    """Answer over HTTP, with a page for people, until SIGTERM or Ctrl-C."""
    try:
        config = ServeConfig(
            host=host,
            port=port,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            threads=threads,
            decode_threads=decode_threads,
            max_bytes=max_megabytes * MEGABYTE,
            max_held_bytes=max(_DEFAULT.max_held_bytes, max_megabytes * MEGABYTE),
            max_pixels=max_megapixels * 10**6,
            max_images=max_images,
            max_queue=max_queue,
            read_timeout_s=timeout,
            answer_timeout_s=timeout,
            drain_s=drain,
            allow_origins=tuple(allow_origin or ()),
            access_log=access_log,
        )
    except ValidationError as error:
        raise UserError(explain(error, ServeConfig, "the options")) from None
    token = _token(token_file)
    try:
        from effnet.serving.server import names_of
        from effnet.serving.server import serve as run
    except ModuleNotFoundError as error:
        raise UserError(
            f"serving needs the package {error.name}; install it with: pip install 'effnet[serve]'"
        ) from None
    import torch

    from effnet.api import load, use_engine

    if threads:
        torch.set_num_threads(threads)  # The runtimes of exported files take as many.
    predictors = [load(source, model=model, device=device, class_names=class_names) for source in sources]
    names = names_of(sources)
    for name, predictor in zip(names, predictors, strict=True):
        use_engine(predictor, engine, threads=threads, tell=partial(_say, name))
    all_answered = run(
        list(zip(names, predictors, strict=True)),
        config,
        token=token,
        say=lambda line: typer.echo(line, err=True),
        log=typer.echo if access_log else None,
    )
    raise typer.Exit(0 if all_answered else 1)


def _say(name: str, line: str) -> None:
    typer.echo(f"{name}: {line}", err=True)


def _token(path: Path | None) -> str | None:
    """Read the token from a file or the environment: the command line is seen by all of the machine."""
    if path is None:
        return os.environ.get(_TOKEN_VARIABLE) or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the token in {path}: {error}") from None
    if not token:
        raise UserError(f"{path} is empty; write the token that clients must send into it")
    return token
