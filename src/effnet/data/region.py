"""Decode a part of a JPEG file alone, by nvImageCodec where it is installed (extra ``region``).

The pixels are those that libjpeg-turbo gives for the whole file, bit for bit, at less cost: what lies beside
and below the part is left out. So is the damage there, which is why only files are decoded in part that were
found whole before.
Dimension key: H height, W width.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

LEAST_SAVED_PIXELS = 40_000
"""Fewer are not worth the tens of microseconds that it takes to ask for a part."""

LEAST_SAVED_SHARE = 0.5
"""Of the picture; what lies above a part has to be decoded all the same, and not by the fastest way."""

_Decode: TypeAlias = Callable[[bytes, slice, slice], UInt8[np.ndarray, "H W 3"] | None]

_of_thread = threading.local()


def saves_enough(height: int, width: int, rows: slice, columns: slice) -> bool:
    """Whether to decode a part of a picture rather than all of it; False without nvImageCodec."""
    saved = height * width - (rows.stop - rows.start) * (columns.stop - columns.start)
    return saved >= max(LEAST_SAVED_PIXELS, LEAST_SAVED_SHARE * height * width) and is_installed()


@lru_cache(maxsize=1)
def is_installed() -> bool:
    """Whether nvImageCodec is at hand."""
    return find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None


def decode_region(encoded: bytes, rows: slice, columns: slice) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode some rows and columns of a JPEG file, as stored; None where nvImageCodec cannot.

    Args:
        encoded: A file that was decoded before without an error.
        rows: Inside the picture, not empty.
        columns: Likewise.
    """
    if not hasattr(_of_thread, "decode"):
        _of_thread.decode = _new_decoder()
    decode: _Decode = _of_thread.decode
    return decode(encoded, rows, columns)


def _new_decoder() -> _Decode:
    """Make a decoder that computes in the thread that calls it, on the processor."""
    from nvidia import nvimgcodec  # noqa: PLC0415 - optional, and 67 MB

    decoder = nvimgcodec.Decoder(
        device_id=nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY,
        max_num_cpu_threads=1,
        backends=[nvimgcodec.Backend(nvimgcodec.CPU_ONLY)],
        options=":fancy_upsampling=1",  # As libjpeg-turbo does by default.
    )
    parameters = nvimgcodec.DecodeParams(apply_exif_orientation=False, allow_any_depth=False)

    def decode(encoded: bytes, rows: slice, columns: slice) -> UInt8[np.ndarray, "H W 3"] | None:
        region = nvimgcodec.Region(rows.start, columns.start, rows.stop, columns.stop)
        part = nvimgcodec.CodeStream(encoded).get_sub_code_stream(region=region)
        image = decoder.decode(part, params=parameters)
        return None if image is None else np.asarray(image)

    return decode
