"""An exported file, ready to answer like the network that it came from.

Dimension key: N images, C channels, S side, K classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from effnet.arch.preprocessing import Preprocessing
from effnet.arch.spec import Output
from effnet.errors import UserError
from effnet.export.calls import Calls
from effnet.export.card import Card
from effnet.export.forms import FORMS, form_of
from effnet.export.graph import to_raw

if TYPE_CHECKING:
    from effnet.export.forms import Run


class Engine:
    """Normalised pixels in, logits out, computed by the runtime of the file.

    Args:
        card: What the file says about itself.
        run: One call of its runtime.
        origin: The file, for messages.
    """

    def __init__(self, card: Card, run: Run, origin: str) -> None:
        self.card = card
        self.origin = origin
        self._run = run

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.card.class_names

    @property
    def preprocessing(self) -> Preprocessing:
        """How images must be prepared for `__call__`, also where the file would normalise them itself."""
        return self.card.preprocessing

    @property
    def output(self) -> Output:
        """How logits become probabilities."""
        return self.card.output

    def __call__(self, pixels: Float[Tensor, "N C S S"]) -> Float[Tensor, "N K"]:
        """Return the logits of any number of images; a file of fixed batches gets them in such batches.

        Raises:
            UserError: The file takes another size.
        """
        side = self.preprocessing.image_size
        if pixels.shape[2] != side and not self.card.any_size:
            raise UserError(
                f"{self.origin} takes images of {side} px, got {pixels.shape[2]}; export it with "
                f"--size {pixels.shape[2]} or --dynamic-size"
            )
        if not len(pixels):
            return torch.zeros(0, len(self.class_names))
        given = to_raw(pixels, self.preprocessing) if self.card.pixels == "uint8" else pixels
        return torch.from_numpy(self.answer(np.ascontiguousarray(given.cpu().numpy())))

    def answer(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits for what the file itself takes, see `Card.pixels`."""
        size = self.card.batch_size
        if not size or len(pixels) == size:
            return np.asarray(self._run(pixels))
        logits = []
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            missing = size - len(batch)
            full = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)]) if missing else batch
            logits.append(np.array(self._run(np.ascontiguousarray(full)))[: len(batch)])
        return np.concatenate(logits)


def is_exported(source: str | Path) -> bool:
    """Whether a source is a file that `load_engine` reads, by its ending."""
    path = Path(source)
    return path.exists() and form_of(path) is not None


def load_engine(source: str | Path, *, calls: Calls | None = None) -> Engine:
    """Open an exported file; nothing in it is ever executed but the operations of its runtime.

    Args:
        source: The file.
        calls: How it is going to be called; None: one after another, with as many threads as torch uses.

    Raises:
        UserError: There is no such file, it is none of ours, or its runtime is missing or cannot run here.
    """
    path = Path(source)
    form = form_of(path)
    if form is None:
        endings = ", ".join(form.suffix for form in FORMS.values())
        raise UserError(f"cannot tell the form of {path} by its ending; known: {endings}")
    if not path.exists():
        raise UserError(f"there is no file {path}")
    if form.open is None:
        raise UserError(f"{path} cannot be run by effnet; it is for {form.name} on Apple's systems")
    card, run = form.open(path, calls or Calls(threads=torch.get_num_threads()))
    return Engine(card, run, str(path))
