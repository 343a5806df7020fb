"""What part of the device's time each kind of kernel takes, by `torch.profiler`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_KINDS = (
    ("depthwise convolution, ours", r"^depthwise_\w+_program"),
    ("batch norm and what follows, ours", r"\w+_program"),
    ("depthwise convolution", r"depthwise|conv2d_c1_k1|dgrad2d_c1|wgrad2d_c1|_grouped_direct|conv_depth"),
    ("compiled, with reduction", r"^triton_(red|per|mix)"),
    ("compiled, elementwise", r"^triton_(poi|tem)"),
    ("compiled, other", r"^triton_|cpp_fused"),
    ("batch norm", r"batch_?norm|bn_fw|bn_bw|bnfw|bnbw"),
    (
        "convolution and matrix product",
        r"gemm|gemv|conv|cudnn|xmma|cutlass|nvjet|addmm|mkldnn|winograd|sm\d\d_",
    ),
    ("optimizer and average", r"multi_tensor|foreach|lerp"),
    ("activation", r"silu|sigmoid|swish"),
    ("copies and layout", r"memcpy|memset|copy|nchwToNhwc|nhwcToNchw|transpose|pad|fill|zero|cat|contiguous"),
    ("reduction", r"reduce|sum|mean|softmax"),
    ("elementwise", r"elementwise|aten::(add|mul|div|sub|sqrt|where|rand|lt|rsub)"),
)
"""By the first pattern that is found in a kernel's name, or on a processor an operator's."""
_LONGEST = 25
_STEPS = 3


def kind_of(kernel: str) -> str:
    """Return the kind of a kernel by its name."""
    return next((kind for kind, pattern in _KINDS if re.search(pattern, kernel, re.IGNORECASE)), "other")


def shares_of(kernels: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the share of each kind, the largest first.

    Args:
        kernels: Names, and seconds or anything proportional.
    """
    sums: Counter[str] = Counter()
    for name, seconds in kernels:
        sums[kind_of(name)] += seconds  # type: ignore[assignment]
    total = sum(sums.values())
    return {kind: seconds / total for kind, seconds in sums.most_common()} if total else {}


def measure_shares(work: Callable[[], object], device: torch.device) -> dict[str, Any]:
    """Run some steps under the profiler; on a processor operators stand for kernels.

    Args:
        work: One step.
        device: On which it runs.
    """
    is_cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as found:
        for _ in range(_STEPS):
            work()
        if is_cuda:
            torch.cuda.synchronize(device)
    wanted = DeviceType.CUDA if is_cuda else DeviceType.CPU
    times = [
        (event.key, (event.self_device_time_total if is_cuda else event.self_cpu_time_total) / 1e6 / _STEPS)
        for event in found.key_averages()
        if event.device_type == wanted
    ]
    times = sorted((pair for pair in times if pair[1] > 0), key=lambda pair: -pair[1])
    return {
        "kernel_seconds": sum(seconds for _, seconds in times),
        "shares": shares_of(times),
        "longest": [
            {"name": name[:120], "kind": kind_of(name), "seconds": seconds}
            for name, seconds in times[:_LONGEST]
        ],
    }
