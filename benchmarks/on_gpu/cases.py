"""What is timed on a GPU, in the order of its importance, and who takes part; plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

from side_by_side.case import Case

from effnet.training.compiling import is_compiler_mode

OPTIMIZER = "rmsprop_tf"
"""Of all training steps, as released."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How one library does the work."""

    name: str
    library: str
    includes: str
    kernels: str = "plain"
    """Of effnet's training steps."""
    compile: str = "off"
    """``train.compile``; compiling is done before anything is timed, for all ways at once."""
    is_graph: bool = False
    """Recorded as a CUDA graph and replayed."""
    recomputing: Literal[False, True, "selective"] = False
    """``model.gradient_checkpointing``, for less memory."""
    needs: tuple[str, ...] = ()
    """Modules without which it cannot run."""

    @property
    def needs_gpu(self) -> bool:
        """Whether a processor has nothing of the kind."""
        return self.is_graph or self.compile in {"graphs", "reduce-overhead"}

    @property
    def is_compiled(self) -> bool:
        """By ``torch.compile``."""
        return is_compiler_mode(self.compile)


STEP = (
    "a uint8 batch on the device normalised, forward and backward pass under autocast, channels last, "
    "dropout and drop-path 0.2, label smoothing, RMSprop as TensorFlow's, moving average; "
)
ANSWER = "a normalised batch on the device, network and batch in the precision and channels last; "
TRAIN = (
    Way(name="effnet", library="effnet", includes=STEP + "PyTorch's own kernels"),
    Way(name="timm", library="timm", includes=STEP + "multi-tensor RMSpropTF, ModelEmaV3", needs=("timm",)),
    Way(
        name="effnet triton",
        library="effnet",
        includes=STEP + "train.kernels=triton",
        kernels="triton",
        needs=("triton",),
    ),
    Way(
        name="effnet graphs",
        library="effnet",
        includes=STEP + "train.kernels=triton, train.compile=graphs",
        kernels="triton",
        compile="graphs",
        needs=("triton",),
    ),
    Way(
        name="timm compiled",
        library="timm",
        includes=STEP + "as `timm`, the network by torch.compile, static shapes",
        compile="default",
        needs=("timm", "triton"),
    ),
    Way(
        name="effnet compiled",
        library="effnet",
        includes=STEP + "train.compile=default",
        compile="default",
        needs=("triton",),
    ),
    Way(
        name="effnet graphs plain",
        library="effnet",
        includes=STEP + "train.compile=graphs",
        compile="graphs",
    ),
    Way(
        name="effnet compiled triton",
        library="effnet",
        includes=STEP + "train.kernels=triton, train.compile=default",
        kernels="triton",
        compile="default",
        needs=("triton",),
    ),
    Way(
        name="effnet triton-norm",
        library="effnet",
        includes=STEP + "train.kernels=triton-norm",
        kernels="triton-norm",
        needs=("triton",),
    ),
    Way(
        name="effnet recomputing",
        library="effnet",
        includes=STEP + "train.kernels=triton-norm, model.gradient_checkpointing=true",
        kernels="triton-norm",
        recomputing=True,
        needs=("triton",),
    ),
    Way(
        name="effnet recomputing some",
        library="effnet",
        includes=STEP + "train.kernels=triton-norm, model.gradient_checkpointing=selective",
        kernels="triton-norm",
        recomputing="selective",
        needs=("triton",),
    ),
    Way(
        name="effnet compiled graphs",
        library="effnet",
        includes=STEP + "train.kernels=triton, train.compile=reduce-overhead",
        kernels="triton",
        compile="reduce-overhead",
        needs=("triton",),
    ),
)
"""In the order in which they are dropped from the end, where time is short."""
INFER = (
    Way(name="effnet", library="effnet", includes=ANSWER + "batch norm folded"),
    Way(name="timm", library="timm", includes=ANSWER + "in evaluation mode", needs=("timm",)),
    Way(
        name="effnet graph",
        library="effnet",
        includes=ANSWER + "batch norm folded, one CUDA graph",
        is_graph=True,
    ),
    Way(
        name="effnet compiled",
        library="effnet",
        includes=ANSWER + "batch norm folded, torch.compile with CUDA graphs (reduce-overhead)",
        compile="reduce-overhead",
        needs=("triton",),
    ),
    Way(
        name="timm compiled",
        library="timm",
        includes=ANSWER + "in evaluation mode, torch.compile with CUDA graphs (reduce-overhead)",
        compile="reduce-overhead",
        needs=("timm", "triton"),
    ),
)
ESSENTIAL = {"train": 6, "infer": 5}
"""Ways that take part in every case; the others only in the first of their kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A case with its place in the plan."""

    case: Case
    weight: float
    """Its share of the time, relative to the others'."""
    is_full: bool = False
    """Whether all ways take part."""
    published: dict[str, Any] = field(default_factory=dict)
    """What others have published, for the table."""


def _train(network: str, size: int, batch: int, weight: float, **more: Any) -> Planned:
    case = Case(kind="train", network=network, size=size, batch=batch, optimizer="rmsprop_tf")
    return Planned(case=case, weight=weight, **more)


def _infer(network: str, size: int, batch: int, weight: float, **published: float) -> Planned:
    case = Case(kind="infer", network=network, size=size, batch=batch)
    found = {name.replace("_", " "): value for name, value in published.items()}
    return Planned(case=case, weight=weight, published=found)


PLAN = (
    _train(
        "v2-s", 300, 128, 6.0, is_full=True, published={"A100, TF 2.6 XLA, AMP, images/s (NVIDIA)": 950.0}
    ),
    _train("v2-s", 128, 512, 2.0),
    _train("v2-m", 384, 64, 3.0),
    _train("v1-b4", 380, 64, 3.0),
    _train("v2-s", 214, 256, 2.0),
    _infer("v2-s", 384, 1, 1.0, ms_A100_TensorRT_fp16=1.8, ms_V100_TensorRT_fp16=2.6),
    _infer("v2-s", 384, 16, 1.0, ms_A100_TensorRT_fp16=6.4, ms_V100_TensorRT_fp16=12.8, ms_V100_paper=24.0),
    _infer("v2-s", 384, 128, 1.0, images_a_second_V100_paper=901.0),
    _infer("v2-m", 480, 1, 1.0, ms_A100_TensorRT_fp16=3.1, ms_V100_TensorRT_fp16=4.7),
    _infer("v2-m", 480, 16, 1.0, ms_A100_TensorRT_fp16=16.2, ms_V100_TensorRT_fp16=31.8, ms_V100_paper=57.0),
    _infer("v2-m", 480, 128, 1.0),
    _infer("v2-l", 480, 1, 1.0, ms_A100_TensorRT_fp16=4.9, ms_V100_TensorRT_fp16=7.3),
    _infer("v2-l", 480, 16, 1.0, ms_A100_TensorRT_fp16=27.7, ms_V100_TensorRT_fp16=56.3, ms_V100_paper=98.0),
    _infer("v2-l", 480, 128, 1.0),
)
"""Published: 2104.00298 tables 7, 10 and 11 (V100, fp16, batch 16 in ms, batch 128 in images/s), the README
of google/automl (TensorRT 8.0, ms a batch), and NVIDIA's DeepLearningExamples (training)."""
QUICK = (
    _train("v2-b0", 32, 4, 1.0, is_full=True),
    _train("v1-b0", 32, 4, 1.0),
    _infer("v2-b0", 32, 1, 1.0),
    _infer("v2-b0", 32, 4, 1.0),
)


class Taking(NamedTuple):
    """Who takes part, ours first, and why the others do not."""

    ways: tuple[Way, ...]
    left_out: dict[str, str]


def ways_of(planned: Planned, *, device: str, compiles: bool, chosen: Iterable[str] = ()) -> Taking:
    """Return who takes part in a case.

    Args:
        planned: The case.
        device: ``cuda`` or ``cpu``.
        compiles: Whether those that are compiled take part.
        chosen: Names; empty: all. The first of ours always takes part: the others have its weights.
    """
    all_ways = {"train": TRAIN, "infer": INFER}[planned.case.kind]
    names, kept, left_out = set(chosen), [], {}
    for number, way in enumerate(all_ways):
        if names and way.name not in names and number:
            continue
        reason = _obstacle(way, device=device, compiles=compiles)
        if not reason and not planned.is_full and number >= ESSENTIAL[planned.case.kind]:
            reason = "in the first training case only"
        if reason:
            left_out[way.name] = reason
        else:
            kept.append(way)
    return Taking(tuple(kept), left_out)


def _obstacle(way: Way, *, device: str, compiles: bool) -> str:
    if device == "cpu" and way.needs_gpu:
        return "there are no CUDA graphs on a processor"
    if way.is_compiled and not compiles:
        return "nothing is compiled, on a processor or with --no-compile"
    missing = [module for module in way.needs if find_spec(module) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""
