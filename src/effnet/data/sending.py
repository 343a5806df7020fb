"""Send an object to other processes of ours at once: what it holds lies in memory that all of them see.

Arrays, of NumPy and of Arrow, are not copied by who receives them. Pickles go from one process of ours to
another, and are never read from a file.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Callable
from io import BytesIO
from types import FunctionType
from typing import Any, NamedTuple

MOST_BYTES = 4 << 30
"""Of what is sent, for there is a copy of it. Only images that are held in memory have more."""

_ALIGNMENT = 64
"""Of arrays, in bytes."""


class UnsendableError(Exception):
    """Another process cannot have an object; the message says why."""


class Packed(NamedTuple):
    """An object as it is sent, in parts."""

    parts: list[memoryview]
    """The pickle, then each array; these are still those of the object itself."""

    @property
    def places(self) -> list[range]:
        """Where the parts lie behind each other."""
        places: list[range] = []
        start = 0
        for part in self.parts:
            places.append(range(start, start + part.nbytes))
            start += -(-part.nbytes // _ALIGNMENT) * _ALIGNMENT
        return places


class Shared(NamedTuple):
    """An object in shared memory."""

    descriptor: int
    """Of the memory; whoever made it closes it, and inherits it to the processes that shall have it."""
    places: list[range]
    """Of its parts."""


def pack(value: object) -> Packed:
    """Make an object ready to be sent; arrays are not copied.

    Raises:
        UnsendableError: It holds what another process cannot have, or too much.
    """
    buffers: list[pickle.PickleBuffer] = []
    file = BytesIO()
    try:
        _Pickler(file, buffers.append).dump(value)
        packed = Packed([file.getbuffer(), *(buffer.raw() for buffer in buffers)])
    except UnsendableError:
        raise
    except Exception as error:  # Objects may raise anything when they are asked for what they hold.
        raise UnsendableError(str(error)) from error
    if packed.places[-1].stop > MOST_BYTES:
        raise UnsendableError(f"they hold {packed.places[-1].stop / 1e9:.1f} GB")
    return packed


def share(packed: Packed) -> Shared:
    """Copy an object into memory that processes can be given; Linux only."""
    places = packed.places
    descriptor = shared_memory(places[-1].stop)
    with mmap.mmap(descriptor, places[-1].stop) as memory:
        for place, part in zip(places, packed.parts, strict=True):
            memory[place.start : place.stop] = part
    return Shared(descriptor, places)


def receive(shared: Shared) -> Any:  # noqa: ANN401 - whatever was sent
    """Return what another process has shared; its arrays cannot be written to."""
    memory = memoryview(mmap.mmap(shared.descriptor, 0, access=mmap.ACCESS_READ))
    pickled, *buffers = (memory[place.start : place.stop] for place in shared.places)
    return pickle.loads(pickled, buffers=buffers)


def shared_memory(size: int) -> int:
    """Return a descriptor of memory without a name, which is gone with the last process that has it."""
    descriptor = os.memfd_create("effnet")
    os.ftruncate(descriptor, size)
    return descriptor


class _Pickler(pickle.Pickler):
    def __init__(self, file: BytesIO, keep: Callable[[pickle.PickleBuffer], Any]) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)

    def reducer_override(self, value: object) -> Any:  # noqa: ANN401 - as the standard library has it
        """Refuse what only the user's own program has, which no other process may run again."""
        if isinstance(value, type | FunctionType) and value.__module__ == "__main__":
            raise UnsendableError(f"{value.__qualname__} belongs to the program itself, not to a module")
        return NotImplemented
