"""What an exported file says about itself, so that nothing else is needed to use it."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from effnet.arch.io import from_dict, to_dict
from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import SPEC_CONFIG, Count, OptionalCount, Output
from effnet.errors import UserError

CARD_KEY = "effnet"
"""Under which every form keeps the card."""

Pixels = Literal["normalised", "uint8"]
Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True, kw_only=True, slots=True, config=SPEC_CONFIG)
class Card:
    """The network in an exported file, what it takes, and what it answers.

    Raises:
        pydantic.ValidationError: A value is outside its range.
    """

    network: str
    """Its name, for people."""
    parameters: Count
    """Of the network before it was exported."""
    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    """In the order of the logits."""
    preprocessing: Preprocessing
    """How images must be prepared; its size is the one that the file takes."""
    output: Output
    """How logits become probabilities."""
    pixels: Pixels
    """``normalised``: float32 N C S S, prepared as ``preprocessing`` says; ``uint8``: N S S C in [0, 255],
    RGB, resized and cropped alone, since mean and deviation are inside."""
    batch_size: OptionalCount
    """Images that the file takes at once; 0: any number."""
    any_size: bool
    """Whether it takes squares of other sides than ``preprocessing.image_size``."""
    form: str
    precision: Precision
    origin: str
    """Where the weights came from, for people."""
    packages: dict[str, str]
    """Versions of what wrote the file."""


def card_to_json(card: Card) -> str:
    """Return a card as one line of JSON."""
    return json.dumps(to_dict(card), sort_keys=True)


def card_from_json(text: str | None, where: str) -> Card:
    """Read what `card_to_json` wrote.

    Args:
        text: None: the file has no card.
        where: The file, for the message.

    Raises:
        UserError: There is no card, or it is not whole.
    """
    if not text:
        raise UserError(f"{where} does not say what it takes and answers; give a file of effnet export")
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is damaged: {error}") from None
    return from_dict(Card, data, where)
