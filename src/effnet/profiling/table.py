"""A profile for people: one line for each pass of each kind of layer."""

from __future__ import annotations

from effnet.profiling.profile import Profile
from effnet.profiling.rows import KindSum, PassSum
from effnet.profiling.step import Whole

COLUMNS = (
    "kind",
    "layers",
    "parameters",
    "multiply-adds",
    "outputs",
    "kept",
    "pass",
    "least bytes",
    "ms",
    "share",
    "GFLOP/s",
    "GB/s",
    "bound by",
    "reached",
    "ms to gain",
)


def table_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Return the lines below `COLUMNS`, what takes longest first; shares are of the sum."""
    total = profile.seconds
    return [
        (("",) * 6 if number else _of_kind(row)) + _of_pass(done, total)
        for row in profile.kinds
        for number, done in enumerate(row.passes)
    ]


def summary(profile: Profile) -> str:
    """Return the sum beside the whole, and the roofs, in lines."""
    what = "training step" if profile.is_training else "forward pass"
    least = sum(done.least_seconds for row in profile.kinds for done in row.passes)
    lines = [
        f"sum of the layers {profile.seconds * 1e3:.1f} ms; what the roofs allow {least * 1e3:.1f} ms",
        *(
            f"whole {what}, kernels {name}: {_whole(whole, profile.batch)}"
            for name, whole in profile.wholes.items()
        ),
        f"roofs, measured: copying {profile.peaks.bytes_per_second / 1e9:,.1f} GB/s, matrix product "
        f"{profile.peaks.flops_per_second / 1e9:,.0f} GFLOP/s",
    ]
    return "\n".join(lines)


def _whole(whole: Whole, batch: int) -> str:
    low, high = min(whole.seconds), max(whole.seconds)
    peak = f", peak memory {_size(whole.peak_bytes)}" if whole.peak_bytes else ""
    return (
        f"{whole.median * 1e3:.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f}, n = {len(whole.seconds)}), "
        f"{batch / whole.median:.0f} images/s{peak}"
    )


def _of_kind(row: KindSum) -> tuple[str, ...]:
    return (
        row.kind,
        str(row.count),
        _short(row.params),
        _short(row.macs),
        _size(row.activation_bytes),
        _size(row.kept_bytes),
    )


def _of_pass(done: PassSum, total: float) -> tuple[str, ...]:
    return (
        done.name,
        _size(done.bytes),
        f"{done.seconds * 1e3:.1f}",
        f"{done.seconds / total:.1%}",
        f"{done.flops_per_second / 1e9:,.1f}" if done.macs else "",
        f"{done.bytes_per_second / 1e9:,.1f}",
        done.bound,
        f"{done.reached:.0%}",
        f"{max(done.seconds - done.least_seconds, 0) * 1e3:.1f}",
    )


def _short(count: int) -> str:
    """Return a number for people: 7.8M."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{name}"
    return str(count) if count else ""


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count else ""
