"""torchvision beside a build of torch that its compiled part was not made for: timm imports it."""

from __future__ import annotations

import importlib
import sys

import torch

# Operators of torchvision's compiled part, which its Python part names while it is imported.
_TORCHVISION_OPERATORS = (
    "nms",
    "qnms",
    "roi_align",
    "_roi_align_backward",
    "ps_roi_align",
    "_ps_roi_align_backward",
    "roi_pool",
    "_roi_pool_backward",
    "ps_roi_pool",
    "_ps_roi_pool_backward",
    "qroi_align",
    "deform_conv2d",
    "_deform_conv2d_backward",
)
_declared: list[torch.library.Library] = []  # A declaration lasts as long as its library.


def declare_torchvision_operators() -> None:
    """Let torchvision be imported beside a build of torch that its compiled part was not made for.

    torchvision's wheel needs CUDA libraries; without them its operators do not exist, and naming them
    fails. None of them has a part in classification.
    """
    if _declared or "torchvision" in sys.modules:
        return
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in _TORCHVISION_OPERATORS:
            library.define(f"{operator}(Tensor placeholder) -> Tensor")  # type: ignore[no-untyped-call]
        _declared.append(library)
