"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|WEIGHTS", help="A run directory, a file of weights or of effnet export, or a hub name."
    ),
]
ModelOption = Annotated[
    str | None, typer.Option(help="The network, for a file of weights that does not say.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
ClassNamesOption = Annotated[
    str | None,
    typer.Option(help="A file with the names of the classes, one a line, for weights that bring none."),
]
EngineOption = Annotated[
    str,
    typer.Option(
        help="What computes on a processor: auto (the fastest, by measurement, see docs/export.md), eager "
        "(PyTorch), onnx or openvino."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
