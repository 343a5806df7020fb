"""Packages that only one form needs: imported when it is asked for, and missed in words that help."""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from effnet.errors import UserError


def needed(package: str, *, form: str, extra: str) -> Any:  # noqa: ANN401 - a module that may be absent
    """Import a package of a form.

    Args:
        package: Its name, or that of a module in it.
        form: Which needs it, for the message.
        extra: Of effnet, that brings it.

    Raises:
        UserError: It is not installed.
    """
    _hush()
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        name = package.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise UserError(f"{form} needs the package {name}: pip install 'effnet[{extra}]'") from None


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hush() -> None:
    """Without this package, OpenVINO and NNCF do not tell Google Analytics of each import and conversion."""
    absent: Any = None
    sys.modules.setdefault("openvino_telemetry", absent)
