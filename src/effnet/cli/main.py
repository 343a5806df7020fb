"""The ``effnet`` command and its exit codes: 0 done, 1 failed, 2 the user's mistake, 130 interrupted."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

import effnet
from effnet.cli import (
    ablate,
    bench,
    bench_family,
    bench_layers,
    bench_steps,
    data,
    evaluate,
    explain,
    export,
    inspect,
    look,
    predict,
    report,
    scale,
    search,
    serve,
    supernet,
    training,
    tune,
)
from effnet.errors import UserError

DONE, FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

# Typer has a copy of click of its own or uses the installed one, by version; this is the right one's.
_USAGE_ERROR: Any = typer.BadParameter.__base__

app = typer.Typer(
    name="effnet",
    help="EfficientNet V1 and V2: choose, plan, train, evaluate and use a network.",
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> bool:
    if is_asked:
        typer.echo(f"effnet {effnet.__version__}")
        raise typer.Exit
    return is_asked


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(inspect.models)
app.command()(scale.scale)
app.command()(inspect.recipes)
app.command()(training.plan)
app.command()(tune.tune)
app.command()(training.train)
app.command()(ablate.ablate)
app.command()(search.search)
app.command()(supernet.supernet)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(explain.explain)
app.command()(report.report)
app.command()(report.compare)
app.command()(export.export)
app.command()(serve.serve)
data.app.command()(look.check)
data.app.command()(look.show)
app.add_typer(data.app, name="data")
bench.app.command("step-time")(bench_steps.step_time)
bench.app.command()(bench_steps.fused)
bench.app.command()(bench_family.family)
bench.app.command()(bench_layers.layers)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line and exit with its code; mistakes end in one sentence, without a traceback."""
    # Threads that spin at barriers starve those that decode images; see docs/log.md. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="effnet", standalone_mode=False) or DONE
        message = "interrupted" if code == INTERRUPTED else ""
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except _USAGE_ERROR as error:
        asked = error.ctx.command_path if error.ctx else "effnet"
        code, message = USER_ERROR, f"{error.format_message().rstrip('.')}; see {asked} --help"
    except UserError as error:
        code, message = USER_ERROR, str(error)
    except training.EXPECTED_FAILURES as error:
        code, message = (INTERRUPTED if training.is_interruption(error) else FAILED), str(error)
    except (KeyboardInterrupt, typer.Abort):
        code, message = INTERRUPTED, "interrupted"
    if message:
        # Of several processes, started by torchrun, the first one needs no number.
        rank = int(os.environ.get("RANK", "0"))
        typer.echo(f"effnet{f' (process {rank})' if rank else ''}: {message}", err=True)
    return int(code)
