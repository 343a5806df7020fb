"""``python -m effnet``."""

from __future__ import annotations

import subprocess
import sys

import effnet


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "effnet", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"effnet {effnet.__version__}\n"
