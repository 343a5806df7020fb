"""Programs for the processor, compiled by Numba where that is installed; nothing here needs PyTorch."""

import importlib.util
from functools import cache


@cache
def has_numba() -> bool:
    """Whether Numba is installed; it comes with the extra ``cpu``."""
    return importlib.util.find_spec("numba") is not None
