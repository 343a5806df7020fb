"""A network that is served: bytes to its view of an image, views to classes, heat maps.

Dimension key: N images, S side of the view, C channels, K classes.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float32, UInt8

from effnet.data.decode import image_size
from effnet.data.loader import prepare_images
from effnet.data.pillow import BadImageError
from effnet.data.transforms import eval_image
from effnet.errors import UserError
from effnet.evaluation.metrics import probabilities_of
from effnet.evaluation.predictor import Predictor
from effnet.explanation import heat_maps, overlay
from effnet.export import Engine
from effnet.nn import Network
from effnet.nn.folding import fold_norms

# Pillow's decoders take up to 24 bytes a pixel (measured with RGBA in WebP), so large images come one by one.
_LARGE_PIXELS = 10_000_000
_LARGE_IMAGES = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One image as the network sees it."""

    pixels: UInt8[np.ndarray, "S S 3"]
    wants_cam: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What the network says of one view."""

    probabilities: Float32[np.ndarray, " K"]
    heat: Float32[np.ndarray, "S S"] | None = None
    """Where it sees the most probable class, in [0, 1]; only if it was asked for."""


class ServedModel:
    """A network under a name. `decode` may run in many threads at a time, `compute` in one.

    Args:
        name: By which clients ask for it.
        predictor: The network with its class names and preprocessing.
        max_pixels: Of an image, by its header.
    """

    def __init__(self, name: str, predictor: Predictor, *, max_pixels: int) -> None:
        self.name = name
        self.class_names = predictor.class_names
        self.preprocessing = predictor.preprocessing
        self.network = "exported"
        """What kind of network it is."""
        self.parameters: int | None = None
        """How many numbers it has learnt; None: an exported network does not say."""
        self.cam_error: str | None = "an exported network has no layers to look into"
        """Why there are no heat maps."""
        self._model = predictor.model
        self._explained: Network | None = None
        self._device = predictor.device
        self._output = predictor.output
        self._max_pixels = max_pixels
        if isinstance(predictor.model, Network):
            self.network = predictor.model.spec.name
            self.parameters = sum(weight.numel() for weight in predictor.model.parameters())
            self.cam_error = None
            self._explained = fold_norms(predictor.model)
            self._model = predictor.engine or self._explained
        elif isinstance(predictor.model, Engine):
            self.network, self.parameters = predictor.model.card.network, predictor.model.card.parameters

    def decode(self, encoded: bytes, wants_cam: bool = False) -> View:
        """Decode a file, after a look at the size in its header.

        Raises:
            BadImageError: It is no image, damaged, or too large.
        """
        height, width = image_size(encoded)
        if height * width > self._max_pixels:
            raise BadImageError(f"{width} x {height} pixels; at most {self._max_pixels} are accepted")
        with _LARGE_IMAGES if height * width > _LARGE_PIXELS else nullcontext():
            return View(eval_image(encoded, self.preprocessing), wants_cam)

    @torch.inference_mode()
    def compute(self, views: Sequence[View]) -> list[Scores]:
        """Answer a batch of views, in order."""
        images = torch.from_numpy(np.stack([view.pixels for view in views]))
        pixels = prepare_images(images, self.preprocessing, self._device)
        logits = self._model(pixels).float()
        probabilities = probabilities_of(logits, self._output)
        heats: dict[int, Float32[np.ndarray, "S S"]] = {}
        asked = [row for row, view in enumerate(views) if view.wants_cam]
        if asked and self._explained is not None:
            maps = heat_maps(self._explained, pixels[asked], logits[asked].argmax(1), "cam")
            heats = dict(zip(asked, maps.float().cpu().numpy(), strict=True))
        rows = probabilities.cpu().numpy()
        return [Scores(row, heats.get(index)) for index, row in enumerate(rows)]

    def draw_cam(self, view: View, scores: Scores) -> str:
        """Return the view under its heat map, as a PNG in a data URI."""
        assert scores.heat is not None
        picture = overlay(view.pixels, scores.heat)
        _, png = cv2.imencode(".png", picture[..., ::-1])
        return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode("ascii")

    def warm_up(self, max_batch: int) -> None:
        """Compute batches of nothing, so that no client waits for what is done once; settle `cam_error`."""
        size = self.preprocessing.image_size
        blank = np.zeros((size, size, 3), np.uint8)
        for count in {1, min(2, max_batch), max_batch}:  # Some engines compile for one image, a few and many.
            self.compute([View(blank)] * count)
        if self.cam_error is None:
            try:
                self.compute([View(blank, wants_cam=True)])
            except UserError as error:
                self.cam_error = str(error)
