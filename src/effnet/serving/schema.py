"""What the service answers, as its OpenAPI document says it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from effnet.arch.preprocessing import CropMode


class ClassScore(BaseModel):
    """A class and its probability."""

    name: str
    probability: float


class Result(BaseModel):
    """The answer for one image: classes, or the error."""

    name: str
    classes: list[ClassScore] | None = None
    """Most probable first."""
    cam: str | None = None
    """Only if it was asked for: the image as the network sees it under a heat map, as a data URI of a PNG."""
    error: str | None = None


class Answer(BaseModel):
    """The answer to a request, one result for each image, in order."""

    model: str
    results: list[Result]


class Failure(BaseModel):
    """Why there is no answer."""

    error: str


class ModelInfo(BaseModel):
    """A network that can be asked."""

    name: str
    network: str
    image_size: int
    """Side of the square that it sees, in pixels."""
    crop_mode: CropMode
    """``center``: that square lies in the middle of an image; ``squash``: it is the whole image."""
    crop_fraction: float
    """Side of the square in the middle divided by the short side of the image."""
    classes: list[str]
    parameters: int | None
    cam: bool
    """Whether it can draw heat maps."""


class Models(BaseModel):
    """All networks that can be asked; the first is asked where none is named."""

    models: list[ModelInfo]


class Limits(BaseModel):
    """What is accepted."""

    max_bytes: int
    max_pixels: int
    max_images: int
    needs_token: bool


class Health(BaseModel):
    """Whether the service is well."""

    status: str


REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "top": {"type": "integer", "minimum": 1, "default": 5},
                        "cam": {"type": "boolean", "default": False},
                        "model": {"type": "string"},
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {
                        "images": {
                            "type": "array",
                            "items": {"type": "string", "description": "Base64, or a data URI of base64."},
                        },
                        "top": {"type": "integer", "minimum": 1, "default": 5},
                        "cam": {"type": "boolean", "default": False},
                        "model": {"type": "string"},
                    },
                }
            },
        },
    }
}
"""The bodies that ``/v1/predict`` reads; it reads them itself, to stop at its limits."""

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": text}
    for status, text in {
        400: "The body cannot be read.",
        401: "The token is missing or wrong.",
        408: "The request did not arrive in time.",
        413: "The body is too large, or has too many images.",
        415: "The body is of another kind.",
        422: "None of the images can be read, or an option has no such value.",
        429: "Too much is waiting; Retry-After says when to come again.",
        503: "No answer in time.",
    }.items()
}
