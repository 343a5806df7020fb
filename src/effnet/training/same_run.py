"""Whether a configuration that is given again is that of a run which exists already."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from effnet.arch.io import to_dict
from effnet.config import Config
from effnet.errors import UserError
from effnet.training.experiment import resolve_alone

_LEFT_OPEN_BY_0 = ("data.workers", "train.micro_batch_size", "train.threads")
_EXAMPLES = 5


def check_same_config(given: Config, started: Config, run: Path) -> None:
    """Make sure that a run is continued as it was started.

    What is left open, by None or ``auto``, was chosen when the run was started and stays as it was chosen.

    Args:
        given: As the user gives it now.
        started: The complete configuration of the run.
        run: Its folder, for the message.

    Raises:
        UserError: A value is another one.
    """
    values, resolved, before = (
        dict(flat_values(config)) for config in (given, resolve_alone(given), started)
    )
    different = [
        f"{key} is {_shown(before.get(key))} there and {_shown(value)} here"
        for key, value in values.items()
        if not is_open(key, value) and before.get(key) not in (value, resolved.get(key))
    ]
    if different:
        more = f" and {len(different) - _EXAMPLES} more" if len(different) > _EXAMPLES else ""
        raise UserError(
            f"the run in {run} was started otherwise: {', '.join(different[:_EXAMPLES])}{more}; give the "
            "same values to continue it, or another folder with --out"
        )


def is_open(key: str, value: object) -> bool:
    """Whether a value leaves it to the start of the run to choose one."""
    return value is None or value == "auto" or (value == 0 and key in _LEFT_OPEN_BY_0)


def flat_values(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield each ``section.key`` of a configuration and its value, as what JSON can hold."""
    for section, values in to_dict(config).items():
        for name, value in (values or {}).items():
            yield f"{section}.{name}", value


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)
