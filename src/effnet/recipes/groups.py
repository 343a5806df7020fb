"""The shipped recipes by what they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GROUPS = {
    "your own images, and a first try": r"demo|scratch|finetune.*|cifar10|ablation\.small|search",
    "from ImageNet weights to public data sets": r"transfer-.*",
    "ImageNet-1k from scratch: EfficientNetV2": r"v2-\w+\.(release|paper|torchvision|small-gpu)",
    "ImageNet-1k from scratch: EfficientNet V1": r"v1-\w+\.(release|randaugment)",
    "ImageNet-21k, and from there to ImageNet-1k": r".*\.21k.*",
    "other networks, by progressive learning": r".*\.table12",
}
_OTHERS = "others"


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names of recipes under headings, in the order of the headings, each in its given order.

    Args:
        names: Those that no heading is for come last.
    """
    groups: dict[str, list[str]] = {heading: [] for heading in (*_GROUPS, _OTHERS)}
    for name in names:
        heading = next((key for key, pattern in _GROUPS.items() if re.fullmatch(pattern, name)), _OTHERS)
        groups[heading].append(name)
    return {heading: found for heading, found in groups.items() if found}
