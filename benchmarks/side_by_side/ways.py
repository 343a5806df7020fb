"""Who takes part in which case, under which name and by which conventions; plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from effnet.training.experiment import supports_bf16
from side_by_side.case import Case

Library = Literal["effnet", "timm", "torchvision", "keras"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How one library does the work."""

    name: str
    """Begins with the library's name, as its users write it."""
    library: Library
    """Also says whose names, padding and constants of batch norm the network has."""
    includes: str
    """What tells its step or call from the others'."""
    precision: Literal["fp32", "bf16"] = "fp32"
    is_compiled: bool = False
    """By ``torch.compile``, which takes minutes; only on demand."""
    needs: tuple[str, ...] = ()
    """Modules without which it cannot run."""
    updates_alike: bool = True
    """Whether its RMSprop is TensorFlow's; if not, only the loss before the first update can agree."""


# What all training steps have in common is in the head of `cpu_speed.py`.
TRAIN = (
    Way(
        name="effnet",
        library="effnet",
        includes="optimizer and moving average; as `effnet train` does it by default, in single precision",
    ),
    Way(
        name="effnet bf16",
        library="effnet",
        precision="bf16",
        includes="optimizer and moving average; the same under autocast (train.precision=bf16)",
    ),
    Way(
        name="timm",
        library="timm",
        needs=("timm",),
        includes="optimizer and ModelEmaV3, as its train.py builds them by default",
    ),
    Way(
        name="timm best",
        library="timm",
        needs=("timm",),
        includes="channels last, RMSpropTF with foreach or AdamW fused, ModelEmaV3 (which is multi-tensor)",
    ),
    Way(
        name="timm best bf16",
        library="timm",
        precision="bf16",
        needs=("timm",),
        includes="as `timm best`, under autocast (--amp --amp-dtype bfloat16)",
    ),
    Way(
        name="torchvision",
        library="torchvision",
        needs=("torchvision",),
        updates_alike=False,
        includes="optimizer with the settings of its reference, whose moving average has a turn only every "
        "32nd step and so is in next to none of these",
    ),
    Way(
        name="torchvision best",
        library="torchvision",
        needs=("torchvision",),
        updates_alike=False,
        includes="as `torchvision`, channels last, RMSprop with foreach or AdamW fused",
    ),
    Way(
        name="Keras",
        library="keras",
        needs=("keras", "tensorflow"),
        updates_alike=False,
        includes="optimizer and its moving average of the weights (use_ema), by train_on_batch on "
        "TensorFlow, compiled to a graph as by default",
    ),
    Way(
        name="effnet compiled",
        library="effnet",
        is_compiled=True,
        includes="optimizer and moving average; train.compile=default",
    ),
    Way(
        name="timm compiled",
        library="timm",
        is_compiled=True,
        needs=("timm",),
        includes="as `timm best`, by --torchcompile",
    ),
)
INFER = (
    Way(
        name="effnet",
        library="effnet",
        includes="the engine that `effnet serve` chooses by default, after measuring",
    ),
    Way(name="effnet eager", library="effnet", includes="the folded network in PyTorch"),
    Way(
        name="effnet bf16",
        library="effnet",
        precision="bf16",
        includes="the folded network under autocast",
    ),
    Way(name="timm", library="timm", needs=("timm",), includes="the network in evaluation mode"),
    Way(name="timm channels last", library="timm", needs=("timm",), includes="as `timm`, in that layout"),
    Way(
        name="timm bf16",
        library="timm",
        precision="bf16",
        needs=("timm",),
        includes="as `timm channels last`, under autocast",
    ),
    Way(
        name="timm, ONNX Runtime",
        library="timm",
        needs=("timm", "onnxruntime", "onnx"),
        includes="timm's own export of a fixed shape, default options",
    ),
    Way(
        name="timm, OpenVINO",
        library="timm",
        needs=("timm", "openvino", "onnx"),
        includes="timm's own export of a fixed shape, hint LATENCY, single precision",
    ),
    Way(
        name="torchvision",
        library="torchvision",
        needs=("torchvision",),
        includes="the network in evaluation mode, channels last",
    ),
    Way(
        name="Keras",
        library="keras",
        needs=("keras", "tensorflow"),
        includes="predict_on_batch on TensorFlow, compiled to a graph as by default",
    ),
    Way(
        name="timm compiled",
        library="timm",
        is_compiled=True,
        needs=("timm",),
        includes="as `timm channels last`, by torch.compile",
    ),
)
WITHOUT = {
    "torchvision": ("v2-b0", "v2-b1", "v2-b2", "v2-b3", "v2-xl"),
    "keras": ("v2-xl",),
}
"""Networks that a library does not have."""


class Ways(NamedTuple):
    """Those that take part, ours first, and why the others do not."""

    taking_part: tuple[Way, ...]
    left_out: dict[str, str]


def ways_of(case: Case, *, compiled: bool, chosen: Iterable[str] = ()) -> Ways:
    """Return who takes part in a case.

    Args:
        case: What is timed.
        compiled: Whether those count that `torch.compile` is used for.
        chosen: Names; empty: all. The first of ours always takes part, because it gives the others their
            weights.
    """
    ways = {"train": TRAIN, "infer": INFER}[case.kind]
    names = set(chosen)
    wanted = [way for way in ways if not names or way.name in names or way is ways[0]]
    left_out = {}
    for way in wanted:
        reason = _obstacle(way, case, compiled=compiled)
        if reason:
            left_out[way.name] = reason
    return Ways(tuple(way for way in wanted if way.name not in left_out), left_out)


def _obstacle(way: Way, case: Case, *, compiled: bool) -> str:
    if way.is_compiled and not compiled:
        return "compiling takes minutes a network; --compile has it"
    if case.network in WITHOUT.get(way.library, ()):
        return f"{way.library} has no {case.network}"
    if way.precision == "bf16" and not supports_bf16(torch.device("cpu")):
        return "this processor has no arithmetic of its own in bf16"
    missing = [module for module in way.needs if find_spec(module) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""
