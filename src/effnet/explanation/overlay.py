"""Heat laid over the image that the network saw.

Dimension key: H height, W width.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_FAINTEST, _STRONGEST = 0.2, 0.65
"""Share of the colour where the heat is 0 and where it is 1."""


def overlay(image: UInt8[np.ndarray, "H W 3"], heat: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image coloured by heat: blue where there is none, over green and yellow to red where it is 1.

    Where there is little heat the image shines through, so that what was *not* looked at can be recognised.

    Args:
        image: RGB.
        heat: In [0, 1], of the image's size.
    """
    levels = np.clip(np.rint(heat * 255), 0, 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[..., ::-1]
    share = (_FAINTEST + (_STRONGEST - _FAINTEST) * np.clip(heat, 0, 1))[..., None]
    return np.rint(image * (1 - share) + colours * share).astype(np.uint8)
