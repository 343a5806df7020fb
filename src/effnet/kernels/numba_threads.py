"""Threads that run Numba's programs.

A program is a function of a block's number and of its arguments. Blocks have a fixed size, write to places of
their own, and are put together in order, so that results do not depend on the number of threads, let alone on
their timing. The threads are those that torch has anyway.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import no_type_check

import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from effnet.native.jit import compiled

_GRAIN = 16384
"""Elements below which a second thread costs more than it saves."""


@intrinsic
@no_type_check
def _take(typing_context, counter):
    """Return the counter's value and raise it by one, which no other thread does at the same time."""

    def generate(context, builder, signature, arguments):
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", arguments[0], one, "monotonic")

    return types.int64(types.CPointer(types.int64)), generate


@intrinsic
@no_type_check
def _call(typing_context, address, block, arguments):
    def generate(context, builder, signature, values):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64), ir.IntType(64).as_pointer()])
        function = builder.inttoptr(values[0], kind.as_pointer())
        builder.call(function, [values[1], builder.inttoptr(values[2], ir.IntType(64).as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@no_type_check
def _work(team):
    """Run blocks until none is left; ``team`` is the next block, their number, the program, its arguments."""
    block = _take(team)
    while block < team[1]:
        _call(team[2], block, team[3])
        block = _take(team)


@cache
def _worker() -> tuple[Callable[[int], None], int]:
    address = compiled(_work, types.void(types.CPointer(types.int64)))
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address), address


@cache
def _torch_threads() -> Callable[[int, int, int, int], None] | None:
    """Return what starts torch's threads on a function: of GNU's OpenMP, or one that imitates it."""
    try:
        start = ctypes.CDLL(None).GOMP_parallel
    except (AttributeError, OSError, TypeError):  # Not so on macOS and on Windows.
        return None
    start.restype = None
    start.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    return start


@cache
def _own_threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="effnet-kernels")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_own_threads.cache_clear)


def run(address: int, blocks: int, arguments: tuple[int, ...], *, elements: int) -> None:
    """Run a program on blocks 0, 1, ..., by torch's number of threads, or by one where there is little to do.

    Args:
        address: Of the program.
        blocks: How many.
        arguments: Of the program.
        elements: Of the tensors, by which the number of threads is chosen.
    """
    values = (ctypes.c_int64 * len(arguments))(*arguments)
    team = (ctypes.c_int64 * 4)(0, blocks, address, ctypes.addressof(values))
    place, (worker, worker_address) = ctypes.addressof(team), _worker()
    threads = min(torch.get_num_threads(), blocks, elements // _GRAIN)
    if threads <= 1:
        worker(place)
        return
    start = _torch_threads()
    if start is not None:
        start(worker_address, place, threads, 0)
        return
    others = [_own_threads().submit(worker, place) for _ in range(threads - 1)]
    worker(place)
    for other in others:
        other.result()
