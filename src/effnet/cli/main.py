"""The ``effnet`` command and its exit codes: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import effnet
from effnet.cli import inspect, training, using
from effnet.errors import UserError

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="effnet",
    help="EfficientNet V1 and V2: choose, plan, train, evaluate and use a network.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"effnet {effnet.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(inspect.models)
app.command()(inspect.recipes)
app.command()(training.plan)
app.command()(training.train)
app.command()(using.evaluate)
app.command()(using.predict)
app.command()(using.export)


def main() -> None:
    """Run the command line and exit with its code; mistakes end in one sentence, without a traceback."""
    sys.exit(_run())


def _run() -> int:
    try:
        app()
    except UserError as error:
        return _fail(str(error), USER_ERROR)
    except training.EXPECTED_FAILURES as error:
        return _fail(str(error), INTERRUPTED if training.is_interruption(error) else FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except SystemExit as exit_request:
        return exit_request.code if isinstance(exit_request.code, int) else FAILED
    return DONE


def _fail(message: str, code: int) -> int:
    typer.echo(f"effnet: {message}", err=True)
    return code
