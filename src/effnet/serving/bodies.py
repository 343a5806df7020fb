"""From the body of a request to images and options: in memory, within limits, and nothing is ever fetched.

What a client sends is bytes of images or refused; no name, path, address or object in it is opened.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from effnet.config.serve import ServeConfig
from effnet.errors import did_you_mean
from effnet.serving.admission import Admission
from effnet.serving.refusals import RefusalError

_OPTIONS = ("top", "cam", "model")
_SWITCHES = {
    "true": True,
    "1": True,
    "on": True,
    "yes": True,
    "false": False,
    "0": False,
    "off": False,
    "no": False,
}
_LONGEST_NAME = 200
_LONGEST_FIELD = 1000


@dataclass(frozen=True, slots=True)
class Upload:
    """One image of a request."""

    name: str
    """As the client calls it; only ever repeated to the client."""
    encoded: bytes = b""
    error: str | None = None
    """Why there are no bytes."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a client wants to know."""

    uploads: tuple[Upload, ...]
    top: int = 5
    """How many classes to name."""
    cam: bool = False
    """Whether to draw what the network looks at."""
    model: str | None = None
    """Name of the network; None: the first."""


class BodyReader:
    """Reads the bodies of requests.

    Args:
        config: Limits of bytes, images and time.
        admission: Where bytes in memory are counted.
        executor: Whose threads parse what takes long.
    """

    def __init__(self, config: ServeConfig, admission: Admission, executor: Executor) -> None:
        self._config = config
        self._admission = admission
        self._executor = executor

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Question]:
        """Read a request; its bytes count as long as the ``with`` block lasts.

        Yields:
            What the client wants to know.

        Raises:
            RefusalError: 400, 408, 413, 415, 422 or 429.
        """
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._config.max_bytes:
            raise self._too_large(f"{int(length):,} bytes")
        held = 0

        async def chunks() -> AsyncGenerator[bytes, None]:
            nonlocal held
            async with aclosing(request.stream()) as stream:
                async for chunk in stream:
                    if held + len(chunk) > self._config.max_bytes:
                        raise self._too_large(f"more than {self._config.max_bytes:,} bytes")
                    self._admission.hold(len(chunk))
                    held += len(chunk)
                    yield chunk

        try:
            yield await self._read(request, chunks())
        finally:
            self._admission.release(held)

    async def _read(self, request: Request, chunks: AsyncGenerator[bytes, None]) -> Question:
        parse = self._parser(request)
        try:
            async with asyncio.timeout(self._config.read_timeout_s), aclosing(chunks) as body:
                question = await parse(request, body)
        except TimeoutError:
            raise RefusalError(
                408, f"the request did not arrive within {self._config.read_timeout_s:g} seconds"
            ) from None
        except ClientDisconnect:
            raise RefusalError(400, "the request broke off") from None
        if not question.uploads:
            raise RefusalError(422, "there is no image in the request; send one or more as 'images'")
        return question

    def _parser(self, request: Request) -> Callable[[Request, AsyncGenerator[bytes, None]], Any]:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusalError(415, "the body is compressed; send it as it is, images are compressed already")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            return self._multipart
        if kind == "application/json":
            return self._json
        raise RefusalError(
            415, "the body must be multipart/form-data with files 'images', or application/json"
        )

    async def _multipart(self, request: Request, body: AsyncGenerator[bytes, None]) -> Question:
        most = self._config.max_images
        parser = MultiPartParser(
            request.headers, body, max_files=most + 1, max_fields=len(_OPTIONS), max_part_size=_LONGEST_FIELD
        )
        parser.spool_max_size = self._config.max_bytes + 1  # Nothing is written to the disk.
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise self._too_many(f"more than {most}") from None
            raise RefusalError(400, f"not a multipart body that can be read: {error.message}") from None
        try:
            uploads, fields = await self._parts(form)
        finally:
            await form.close()
        self._check_count(len(uploads))
        options = {**request.query_params, **fields}
        return _question(uploads, {name: _value(name, text) for name, text in options.items()})

    async def _parts(self, form: FormData) -> tuple[list[Upload], dict[str, str]]:
        """Return files and fields of a form."""
        uploads: list[Upload] = []
        fields: dict[str, str] = {}
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                if field != "images":
                    raise RefusalError(422, f"files must be named 'images', not '{field[:_LONGEST_NAME]}'")
                name = (value.filename or "")[:_LONGEST_NAME] or f"image {len(uploads) + 1}"
                uploads.append(Upload(name, await value.read()))
            elif field == "images":
                raise RefusalError(422, "'images' must be files, with a file name each; text names no image")
            else:
                fields[field] = value
        return uploads, fields

    async def _json(self, request: Request, body: AsyncGenerator[bytes, None]) -> Question:
        text = b"".join([chunk async for chunk in body])
        # Parsing megabytes would hold up everyone else.
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, self._parse_json, text, dict(request.query_params)
        )

    def _parse_json(self, text: bytes, query: Mapping[str, str]) -> Question:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            raise RefusalError(400, "the body is not valid JSON") from None
        if not isinstance(document, dict):
            raise RefusalError(422, "the JSON must be an object with a list 'images'")
        images = document.pop("images", None)
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise RefusalError(422, "'images' must be a list of images in base64, or of data URIs")
        self._check_count(len(images))
        uploads = [_decoded(f"image {number}", image) for number, image in enumerate(images, start=1)]
        return _question(uploads, {name: _value(name, value) for name, value in query.items()} | document)

    def _check_count(self, count: int) -> None:
        if count > self._config.max_images:
            raise self._too_many(str(count))

    def _too_many(self, count: str) -> RefusalError:
        return RefusalError(
            413,
            f"{count} images in one request; at most {self._config.max_images} are accepted",
        )

    def _too_large(self, size: str) -> RefusalError:
        return RefusalError(
            413,
            f"a body of {size}; at most {self._config.max_bytes:,} are accepted, send fewer images",
        )


def _decoded(name: str, text: str) -> Upload:
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            return Upload(name, error="a data URI must be of base64")
    try:
        return Upload(name, base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return Upload(name, error="not base64; names and addresses of images are not opened")


def _value(name: str, text: str) -> object:
    """Turn the text of a form or query into what JSON would have; `_question` refuses the rest."""
    if name == "cam":
        return _SWITCHES.get(text.lower(), text)
    return int(text) if name == "top" and text.isascii() and text.isdigit() and len(text) < 10 else text


def _question(uploads: list[Upload], options: Mapping[str, Any]) -> Question:
    if unknown := next((name for name in options if name not in _OPTIONS), None):
        unknown = unknown[:_LONGEST_NAME]
        raise RefusalError(422, f"unknown field '{unknown}'{did_you_mean(unknown, ('images', *_OPTIONS))}")
    top, cam, model = options.get("top", 5), options.get("cam", False), options.get("model") or None
    if type(top) is not int or top < 1:
        raise RefusalError(422, "'top' must be a whole number from 1 on: how many classes to name")
    if type(cam) is not bool:
        raise RefusalError(422, "'cam' must be true or false")
    if model is not None and not isinstance(model, str):
        raise RefusalError(422, "'model' must be the name of a network; GET /v1/models lists them")
    return Question(tuple(uploads), top, cam, model)
