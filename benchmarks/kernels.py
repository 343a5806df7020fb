"""Our kernels beside PyTorch's layers on a GPU: what each reaches of the bandwidth that copying reaches.

    python benchmarks/kernels.py --network v2-s --image-size 300 --batch-size 128 --out kernels.json
    python benchmarks/kernels.py --tiny    # checks this script on a processor; its times mean nothing

Every distinct call that a training step of the network makes of `effnet.kernels` is measured, forward and
backward, in turns with the layers it stands for, in bf16 with channels last. Bytes are those that our passes
cannot do without: each activation that a pass reads or writes, once. Then whole training steps without
optimizer, with `train.kernels` plain, triton-norm and triton: images/s and peak memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from effnet.arch import load_spec, scale
from effnet.arch.spec import NetworkSpec
from effnet.files import whole_file
from effnet.kernels import (
    Kernels,
    batch_norm_act,
    batch_norm_act_squeeze_excite,
    depthwise_conv2d,
    dispatch,
)
from effnet.nn import EfficientNet

EPSILON = 1e-3
SQUEEZED = 32
SETTINGS: tuple[Kernels, ...] = ("plain", "triton-norm", "triton")
_SLEEP_CYCLES = 40_000_000
"""For which the GPU waits, so that launches are queued before the first one runs."""


@dataclass(frozen=True)
class Call:
    """One call of a kernel by a network."""

    kind: str
    shape: tuple[int, ...]
    kernel_size: int = 0
    stride: int = 0
    padding: tuple[int, ...] = ()
    is_silu: bool = True
    has_residual: bool = False


class Recorder(TorchDispatchMode):
    """Counts the calls of our operators."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        name = func.name()
        if name == "effnet::norm_act":
            x, _, _, _, identity, is_silu, _ = args
            call = Call("norm", tuple(x.shape), is_silu=is_silu, has_residual=identity is not None)
            self.calls[call] += 1
        elif name == "effnet::norm_act_gate":
            self.calls[Call("norm-gate", tuple(args[0].shape))] += 1
        elif name == "effnet::depthwise_conv":
            x, weight, stride, padding = args
            call = Call("depthwise", tuple(x.shape), weight.shape[-1], stride, tuple(padding))
            self.calls[call] += 1
        return func(*args, **(kwargs or {}))


def calls_of(spec: NetworkSpec, batch_size: int, image_size: int) -> Counter[Call]:
    """Return what a training step of a network calls."""
    with torch.device("meta"):
        model = EfficientNet(spec, kernels="triton").to(memory_format=torch.channels_last)
        images = torch.empty(batch_size, 3, image_size, image_size)
        with Recorder() as recorder:
            model(images.contiguous(memory_format=torch.channels_last))
    return recorder.calls


def operation(call: Call, *, ours: bool) -> Callable[..., Tensor]:
    """Return a call of our kernel, or the layers that it stands for, of the tensors of `operands`."""
    kinds = {
        "norm": (our_norm, torch_norm),
        "norm-gate": (our_gate, torch_gate),
        "depthwise": (our_depthwise, torch_depthwise),
    }
    return partial(kinds[call.kind][0 if ours else 1], call)


def our_norm(  # noqa: PLR0917 - as `operands` has them
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    identity: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """Batch norm, activation and residual sum as one operation."""
    return batch_norm_act(
        x, weight, bias, epsilon=EPSILON, is_silu=call.is_silu, keep=keep, identity=identity
    )[0]


def torch_norm(  # noqa: PLR0917 - as `operands` has them
    call: Call,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    identity: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """The same, layer by layer."""
    value = normalized(x, weight, bias)
    value = functional.silu(value) if call.is_silu else value
    if identity is None or keep is None:
        return value
    return torch.addcmul(identity, value, keep.to(x.dtype)[:, None, None, None])


def our_gate(call: Call, x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor) -> Tensor:
    """Batch norm, activation and squeeze-excite as one operation."""
    one, two, three, four = layers
    return batch_norm_act_squeeze_excite(
        x,
        weight,
        bias,
        reduce_weight=one,
        reduce_bias=two,
        expand_weight=three,
        expand_bias=four,
        epsilon=EPSILON,
    )[0]


def torch_gate(call: Call, x: Tensor, weight: Tensor, bias: Tensor, *layers: Tensor) -> Tensor:
    """The same, layer by layer."""
    value = functional.silu(normalized(x, weight, bias))
    one, two, three, four = (layer.to(x.dtype) for layer in layers)
    squeezed = value.mean((2, 3), keepdim=True)
    reduced = functional.silu(functional.conv2d(squeezed, one[:, :, None, None], two))
    return value * functional.conv2d(reduced, three[:, :, None, None], four).sigmoid()


def our_depthwise(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution by our kernel."""
    top, bottom, left, right = call.padding
    return depthwise_conv2d(x, weight, stride=call.stride, padding=(top, bottom, left, right))


def torch_depthwise(call: Call, x: Tensor, weight: Tensor) -> Tensor:
    """The same by PyTorch: on a GPU by cuDNN."""
    top, bottom, left, right = call.padding
    padding = (top, left)
    if top != bottom or left != right:
        x, padding = functional.pad(x, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(x, weight.to(x.dtype), stride=call.stride, padding=padding, groups=x.shape[1])


def normalized(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the output of PyTorch's batch norm."""
    return functional.batch_norm(x, None, None, weight, bias, training=True, eps=EPSILON)


def operands(call: Call, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Return random tensors that a call takes; those that learn require gradients."""
    torch.manual_seed(0)
    images, channels = call.shape[:2]

    def activation() -> Tensor:
        return torch.randn(call.shape, device=device).to(dtype).contiguous(memory_format=torch.channels_last)

    def parameter(*shape: int) -> Tensor:
        return torch.randn(shape, device=device) / shape[-1] ** 0.5

    tensors = [activation()]
    if call.kind == "depthwise":
        tensors.append(parameter(channels, 1, call.kernel_size, call.kernel_size))
    else:
        tensors += [parameter(channels), parameter(channels)]
    if call.kind == "norm-gate":
        tensors += [parameter(SQUEEZED, channels), parameter(SQUEEZED)]
        tensors += [parameter(channels, SQUEEZED), parameter(channels)]
    if call.has_residual:
        tensors.append(activation())
    for tensor in tensors:
        tensor.requires_grad_()
    if call.has_residual:
        tensors.append((torch.rand(images, device=device) < 0.8) / 0.8)
    return tensors


def least_bytes(call: Call, x: Tensor, out: Tensor) -> tuple[int, int]:
    """Return what our passes read and write of activations, forward and backward."""
    if call.kind == "depthwise":
        # Backward: gradient in, gradient out; gradient and input in.
        return x.nbytes + out.nbytes, 2 * (x.nbytes + out.nbytes)
    if call.kind == "norm-gate":
        # Statistics, mean over the pixels, result; sums of each image, gradient of the input.
        return 4 * x.nbytes, 5 * x.nbytes
    # Statistics, result; gradients of the parameters, the input.
    return (4 if call.has_residual else 3) * x.nbytes, 5 * x.nbytes


def seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return how long a call takes on its device, without the time to launch it on a GPU."""
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_SLEEP_CYCLES)
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def measure(
    call: Call, device: torch.device, dtype: torch.dtype, *, rounds: int, repeats: int
) -> dict[str, Any]:
    """Return seconds and bandwidth of a call, ours and PyTorch's, and how far their results are apart."""
    tensors = operands(call, device, dtype)
    learning = [tensor for tensor in tensors if tensor.requires_grad]
    runs: dict[str, tuple[Callable[[], Tensor], Callable[[], object]]] = {}
    results = {}
    for name in ("ours", "torch"):
        function = operation(call, ours=name == "ours")
        out = function(*tensors)
        torch.manual_seed(1)
        upstream = torch.randn_like(out)

        def backward(out: Tensor = out, upstream: Tensor = upstream) -> object:
            return torch.autograd.grad(out, learning, upstream, retain_graph=True)

        def forward(function: Callable[..., Tensor] = function) -> Tensor:
            with torch.no_grad():
                return function(*tensors)

        results[name] = (out.detach(), backward()[0])
        runs[name] = (forward, backward)
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in runs}
    for _ in range(rounds):
        for name, passes in runs.items():
            for kept, run in zip(times[name], passes, strict=True):
                kept.append(seconds(run, device, repeats))
    moved = least_bytes(call, tensors[0], results["ours"][0])
    report: dict[str, Any] = {"call": call.__dict__, "errors": {}}
    for index, pass_name in enumerate(("forward", "backward")):
        one, other = (results[name][index].double() for name in ("ours", "torch"))
        report["errors"][pass_name] = ((one - other).norm() / other.norm()).item()
        ours, torchs = (statistics.median(times[name][index]) for name in ("ours", "torch"))
        report[pass_name] = {
            "ours_seconds": ours,
            "ours_range": [min(times["ours"][index]), max(times["ours"][index])],
            "torch_seconds": torchs,
            "torch_range": [min(times["torch"][index]), max(times["torch"][index])],
            "torch_over_ours": torchs / ours,
            "bytes": moved[index],
            "ours_bytes_per_second": moved[index] / ours,
        }
    return report


def copy_bandwidth(device: torch.device, elements: int, *, rounds: int) -> float:
    """Return bytes per second, read and written, of copying a large tensor."""
    source = torch.zeros(elements, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device, 5) for _ in range(rounds)]
    return 2 * source.nbytes / statistics.median(times)


def measure_steps(
    spec: NetworkSpec, images: Tensor, *, rounds: int, compile_mode: str | None
) -> dict[str, Any]:
    """Return forward and backward passes of the whole network with each setting, in turns."""
    device, batch_size = images.device, len(images)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    runs, report = {}, {}
    for kernels in SETTINGS:
        before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        torch.manual_seed(0)
        model = EfficientNet(spec, kernels=kernels).to(device).to(memory_format=torch.channels_last)

        if compile_mode:
            model.compile(mode=compile_mode, dynamic=False, fullgraph=True)

        def step(model: EfficientNet = model) -> None:
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                logits = model(images)
            functional.cross_entropy(logits.float(), labels).backward()

        step()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        step()
        peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
        runs[kernels], report[kernels] = step, {"peak_bytes": peak}
    times = {kernels: [] for kernels in SETTINGS}
    for _ in range(rounds):
        for kernels, step in runs.items():
            times[kernels].append(seconds(step, device, 3))
    for kernels, measured in times.items():
        middle = statistics.median(measured)
        report[kernels] |= {
            "seconds": middle,
            "range": [min(measured), max(measured)],
            "images_per_second": batch_size / middle,
        }
    return report


def state_of(device: torch.device) -> dict[str, Any]:
    """Return what was measured on."""
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "torch": torch.__version__,
        "triton": dispatch.has_triton(),
        "is_interpreted": dispatch.is_interpreted(),
    }
    if dispatch.has_triton():
        import triton  # noqa: PLC0415 - optional

        about["triton"] = triton.__version__
    if device.type == "cuda" and (tool := shutil.which("nvidia-smi")):
        fields = "clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,driver_version"
        query = [tool, f"--query-gpu={fields}", "--format=csv,noheader"]
        about[fields] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return about


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="v2-s")
    parser.add_argument("--image-size", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each; the median counts")
    parser.add_argument("--repeats", type=int, default=10, help="calls in a turn")
    parser.add_argument("--compile", help="mode of torch.compile for the whole steps; minutes")
    parser.add_argument("--out", type=Path, help="a file for the results, as JSON")
    parser.add_argument("--tiny", action="store_true", help="check this script, on a processor if need be")
    options = parser.parse_args(arguments)
    if not (options.tiny or torch.cuda.is_available()):
        parser.error("there is no CUDA device; --tiny checks this script without one")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spec, dtype = load_spec(options.network), torch.bfloat16
    if options.tiny:
        spec = replace(scale(spec, width=0.1, depth=0.2), num_classes=10)
        options.batch_size, options.image_size, options.rounds, options.repeats = 2, 32, 1, 1
        dtype = torch.float32
    counts = calls_of(spec, options.batch_size, options.image_size)
    report: dict[str, Any] = {
        "about": state_of(device),
        "network": spec.name,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "dtype": str(dtype),
        "copy_bytes_per_second": copy_bandwidth(
            device, 1000 if options.tiny else 2**28, rounds=options.rounds
        ),
        "calls": [],
    }
    for call, count in counts.items():
        measured = measure(call, device, dtype, rounds=options.rounds, repeats=options.repeats)
        report["calls"].append({"count": count} | measured)
        for name in ("forward", "backward"):
            found = measured[name]
            found["share_of_copy"] = found["ours_bytes_per_second"] / report["copy_bytes_per_second"]
            print(
                f"{count:3d} x {call.kind:9} {name:8} {call.shape!s:22} k{call.kernel_size} s{call.stride}  "
                f"{found['ours_seconds'] * 1e6:9.1f} us, torch {found['torch_seconds'] * 1e6:9.1f} us, "
                f"{found['share_of_copy']:5.0%} of copying, error {measured['errors'][name]:.1e}",
                file=sys.stderr,
                flush=True,
            )
    images = torch.randn(options.batch_size, 3, options.image_size, options.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    report["compile"] = options.compile
    report["steps"] = measure_steps(spec, images, rounds=options.rounds, compile_mode=options.compile)
    report["about_after"] = state_of(device)
    text = json.dumps(report, indent=1)
    if options.out:
        with whole_file(options.out) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    print(text)
    return report


if __name__ == "__main__":
    main()
