"""Programs that Numba compiles for the processor, with pointers into memory that others own.

What a program works on are 64-bit integers: addresses, sizes, and the bits of floating-point numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import struct
import time
from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import no_type_check

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_LOGGER = logging.getLogger(__name__)
_SLOW_SECONDS = 2.0
_FAST_MATH = frozenset({"contract", "nsz"})
"""A product and a sum become one operation, and zeros have no sign; no other freedom, for numbers are rounded
by adding a large one."""
_LINE = 64
"""Bytes of a line of the cache; what is added up across two of them is slow."""


@intrinsic
@no_type_check
def at(typing_context, address, real):
    """Return the pointer to numbers of type ``real`` at an address."""
    pointer = types.CPointer(real.instance_type)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64, real), generate


@intrinsic(prefer_literal=True)
@no_type_check
def scratch(typing_context, count, real):
    """Return a pointer to a constant number of numbers on the stack."""
    pointer, length = types.CPointer(real.instance_type), count.literal_value

    def generate(context, builder, signature, arguments):
        kind = context.get_value_type(real.instance_type)
        with builder.goto_entry_block():
            place = builder.alloca(kind, size=ir.Constant(ir.IntType(64), length))
        place.align = _LINE
        return place

    return pointer(count, real), generate


@intrinsic
@no_type_check
def behind(typing_context, pointer, count):
    """Return the pointer to what lies that many numbers behind."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


@intrinsic
@no_type_check
def _prefetch(typing_context, pointer):
    def generate(context, builder, signature, arguments):
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        place = builder.bitcast(arguments[0], byte)
        builder.call(function, [place, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(pointer), generate


@njit(inline="always")
@no_type_check
def fetch(pointer, count):
    """Begin to read numbers that are needed soon; beyond a tensor's end this does nothing.

    Where much is computed with each number, the processor by itself does not read far enough ahead.
    """
    for place in range(0, count, 16):
        _prefetch(behind(pointer, place))


@intrinsic
@no_type_check
def number(typing_context, bits):
    """Return the floating-point number that `number_bits` made an integer."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


@lru_cache(maxsize=64)
def number_bits(value: float) -> int:
    """Return the bits of a floating-point number, as an argument of a program."""
    bits: int = struct.unpack("=q", struct.pack("=d", value))[0]
    return bits


@cache
def _sources(folder: Path) -> str:
    """Return a digest of the programs of a folder and of this one.

    Numba only notices changes of the file that a program itself is in.
    """
    digest = hashlib.sha256()
    for place in sorted({folder, Path(__file__).parent}):
        for path in sorted(place.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def compiled(function: Callable[..., None] | Callable[..., int], signature: object) -> int:
    """Return the address of a compiled function; what was compiled is kept on disk where that is possible."""
    folder = Path(function.__code__.co_filename).parent
    function.__qualname__ = f"{function.__qualname__}_{_sources(folder)}"
    compile_with = partial(cfunc, signature, fastmath=set(_FAST_MATH), error_model="numpy")
    started = time.monotonic()
    try:
        compiled = compile_with(cache=True)(function)
    except Exception:  # It cannot be kept, or what was kept cannot be read; other mistakes come again.
        compiled = compile_with()(function)
    _Compilation.seconds += time.monotonic() - started
    if _Compilation.seconds > _SLOW_SECONDS and not _Compilation.is_told:
        _Compilation.is_told = True
        _LOGGER.info("compiling kernels for this processor, which takes some seconds once")
    address: int = compiled.address
    return address


class _Compilation:
    seconds = 0.0
    is_told = False


def program(function: Callable[..., None]) -> int:
    """Compile a function of a block's number and a pointer to its arguments.

    Returns:
        Its address, for `run`.
    """
    return compiled(function, types.void(types.int64, types.CPointer(types.int64)))


def function(code: Callable[..., int]) -> Callable[..., int]:
    """Compile a function of a pointer to 64-bit integers that returns one.

    Returns:
        What calls it with the integers, and does not hold the interpreter's lock meanwhile.
    """
    address = compiled(code, types.int64(types.CPointer(types.int64)))
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)

    def called(*arguments: int) -> int:
        values = (ctypes.c_int64 * len(arguments))(*arguments)
        result: int = call(ctypes.addressof(values))
        return result

    return called
