"""A user's mistake ends a benchmark as it ends ``effnet``: with one sentence and code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effnet.errors import UserError


@contextmanager
def mistakes_told() -> Iterator[None]:
    """Print what a `UserError` says, without the places where it was raised, and end the program."""
    try:
        yield
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
