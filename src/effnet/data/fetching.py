"""Whole files from somewhere else, over connections that break; anything that fsspec knows: HTTP, S3, ..."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from effnet.data.store import StoreFile
from effnet.errors import UnreachableError, UserError
from effnet.files import whole_file

DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)
"""Seconds between attempts, at most; after three minutes in all it is over."""
OPENING_DELAYS = DELAYS[:3]
"""Of the first request, whose address may be wrong."""
PIECE_BYTES = 16 << 20
"""That are asked for at a time, and again when the connection is lost."""
WHOLE_ATTEMPTS = 3
"""At a file whose checksum is wrong."""

_CONNECT_SECONDS, _SILENCE_SECONDS = 30, 60
_EXTRA_SCHEMES = {"http", "https", "s3", "s3a"}
_PASSING_STATUS = {408, 425, 429}


T = TypeVar("T")


class RemoteFolder:
    """The files at an address; threads may share it. When one cannot be had, all is given up.

    Args:
        address: ``https://host/store``, ``s3://bucket/store`` or another one that fsspec knows, or a path.
        delays: Seconds between attempts, at most.

    Raises:
        UserError: It is no such address, or a package is missing.
    """

    def __init__(self, address: str, *, delays: Sequence[float] = DELAYS) -> None:
        self.address, self._delays = address.rstrip("/"), delays
        self._files, self._root = _file_system(self.address)
        self._failure: UnreachableError | None = None
        self._has_failed = threading.Event()

    def read(self, name: str) -> bytes:
        """Return a small file, the first one that is read of the folder.

        Raises:
            UserError: There is none, or it cannot be reached.
        """
        delays = self._delays[: len(OPENING_DELAYS)]
        try:
            return self.attempt(partial(self._files.cat_file, f"{self._root}/{name}"), name, delays)
        except UnreachableError as error:
            raise UserError(
                f"{error}; give the address of a folder that `effnet data prepare` wrote"
            ) from None

    def fetch(self, file: StoreFile, path: Path) -> None:
        """Write a file under a path, once it is there as a whole and with the right checksum.

        Raises:
            UnreachableError: It cannot be had, or another one could not.
            OSError: It cannot be written.
        """
        with whole_file(path) as temporary:
            for _ in range(WHOLE_ATTEMPTS):
                if self._download(file, temporary) == file.sha256:
                    return
            raise self.give_up(f"{file.file} is not the file of which store.json has the checksum")

    def attempt(self, get: Callable[[], T], name: str, delays: Sequence[float] | None = None) -> T:
        """Return what a function gets from here, which is called again while that may help.

        Args:
            get: May raise anything.
            name: What it gets, for the message.
            delays: Seconds between attempts, at most; None: those of the folder.

        Raises:
            UnreachableError: It cannot be had, or something else could not.
        """
        started = time.monotonic()
        for attempt, delay in enumerate((*(self._delays if delays is None else delays), None), start=1):
            if self._failure is not None:
                raise self._failure
            try:
                return get()
            except Exception as error:  # Each library has dozens of its own.
                if delay is None or _is_lasting(error):
                    spent = (
                        f" ({attempt} attempts in {time.monotonic() - started:.0f} s)" if attempt > 1 else ""
                    )
                    raise self.give_up(f"{name}: {_reason(error)}{spent}") from error
            # Many machines that lost the same server must not come back at the same moment.
            self._has_failed.wait(delay * random.uniform(0.5, 1.0))
        raise AssertionError("the last attempt returns or raises")

    def open(self, name: str) -> AbstractContextManager[Any]:
        """Open a file to read parts of it; reading may raise anything."""
        opened: AbstractContextManager[Any] = self._files.open(
            f"{self._root}/{name}", "rb", cache_type="none"
        )
        return opened

    def give_up(self, reason: str) -> UnreachableError:
        """Return the error that everybody gets from now on."""
        self._failure = self._failure or UnreachableError(f"'{self.address}' cannot be read: {reason}")
        self._has_failed.set()
        return self._failure

    def _download(self, file: StoreFile, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("wb") as output:
            output.truncate(
                file.bytes
            )  # Whoever makes room for another file sees how large this one will be.
            while (start := output.tell()) < file.bytes:
                piece = self.attempt(partial(self._piece, file, start), file.file, self._delays)
                digest.update(piece)
                output.write(piece)
        return digest.hexdigest()

    def _piece(self, file: StoreFile, start: int) -> bytes:
        end = min(start + PIECE_BYTES, file.bytes)
        piece: bytes = self._files.cat_file(f"{self._root}/{file.file}", start=start, end=end)
        if len(piece) == file.bytes:  # Servers that know no ranges send everything.
            return piece[start:]
        if len(piece) != end - start:
            raise EOFError(f"{len(piece)} bytes came instead of {end - start}")
        return piece


def _file_system(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # noqa: PLC0415 - for stores that are somewhere else only

    scheme = address.partition("://")[0]
    try:
        files, root = url_to_fs(address, **_http_options() if scheme in ("http", "https") else {})
    except ImportError as error:
        missing = "pip install 'effnet[remote]'" if scheme in _EXTRA_SCHEMES else str(error)
        raise UserError(f"to read {scheme}:// addresses a package is missing: {missing}") from None
    except ValueError as error:
        raise UserError(
            f"'{address}' cannot be read: {error}; addresses begin with https://, s3://, gs:// or another "
            "name that fsspec knows"
        ) from None
    return files, root.rstrip("/")


def _http_options() -> dict[str, Any]:
    from aiohttp import ClientTimeout  # noqa: PLC0415 - of the extra `remote`

    # By default a large file may take no longer than five minutes, and proxies are not used.
    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _is_lasting(error: Exception) -> bool:
    """Whether another attempt would give the same."""
    if isinstance(error, FileNotFoundError | PermissionError):
        return True
    status = getattr(error, "status", None)
    return isinstance(status, int) and 400 <= status < 500 and status not in _PASSING_STATUS


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there"
    return str(error) or type(error).__name__
