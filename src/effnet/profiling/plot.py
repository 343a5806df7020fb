"""The picture of a profile: every layer under the device's roofs, and each kind's time beside the least."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effnet.files import whole_file
from effnet.profiling.profile import Profile

_GRID, _TEXT, _LEAST = "#dfe3e8", "#333b44", "#333b44"
_COLOURS = ("#1f5fa8", "#b4552d", "#3b8f5a", "#7a4fa3", "#c2185b", "#8a7a1f", "#0f8b8d", "#6b7683")
_MARKERS = {"forward": "o", "input gradient": "s", "weight gradient": "^", "backward": "D", "update": "P"}
_LEAST_INTENSITY = 0.1
"""Squeeze-excite of large images moves everything for hardly any arithmetic; it is in the list of times."""
_SHOWN = 24
"""Passes in the list of times, the longest."""


def plot_profile(profile: Profile, path: Path) -> None:
    """Draw a profile as a PNG or SVG, by the name of the file.

    Args:
        profile: What to draw.
        path: Replaced as a whole.

    Raises:
        OSError: The file cannot be written.
    """
    kind = path.suffix.removeprefix(".")
    with mpl.rc_context({"svg.hashsalt": "effnet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(13, 5.6), layout="constrained")
        roofs, times = figure.subplots(1, 2, width_ratios=(1.15, 1))
        _draw_roofs(roofs, profile)
        _draw_times(times, profile)
        mode = "training step" if profile.is_training else "forward pass"
        figure.suptitle(
            f"{profile.network}, {profile.image_size} px, {profile.batch} images, {mode}, "
            f"{str(profile.setting.precision).removeprefix('torch.')}, {profile.setting.device}",
            fontsize=10,
            color=_TEXT,
        )
        with whole_file(path) as temporary:
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(temporary, dpi=110, format=kind, metadata=metadata)


def _draw_roofs(axes: Axes, profile: Profile) -> None:
    """Arithmetic against intensity, of what computes; the larger a mark, the longer it takes in all."""
    colours, total = _colours(profile), profile.seconds
    intensities = []
    for item in profile.measured:
        for done in item.passes:
            if not done.work.macs:
                continue
            intensity = 2 * done.work.macs / done.work.bytes
            if intensity < _LEAST_INTENSITY:
                continue
            intensities.append(intensity)
            axes.scatter(
                intensity,
                2 * done.work.macs / done.median / 1e9,
                s=8 + 1200 * item.count * done.median / total,
                color=colours[item.kind],
                marker=_MARKERS[done.name],
                alpha=0.65,
                linewidths=0,
            )
    peaks = profile.peaks
    low, high = min(intensities) / 2, max(intensities) * 2
    ridge = peaks.flops_per_second / peaks.bytes_per_second
    corners = [low, *([ridge] if low < ridge < high else []), high]
    roof = [min(x * peaks.bytes_per_second, peaks.flops_per_second) / 1e9 for x in corners]
    axes.plot(corners, roof, color=_LEAST, linewidth=1.3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label(axes, "layers under the measured roofs", "operations a byte that must move", "GFLOP/s")
    kinds = [row.kind for row in profile.kinds if row.macs]
    for kind in kinds:
        axes.scatter([], [], color=colours[kind], label=kind, s=18)
    for name in dict.fromkeys(
        done.name for item in profile.measured for done in item.passes if done.work.macs
    ):
        axes.scatter([], [], color=_TEXT, marker=_MARKERS[name], label=name, s=18)
    axes.legend(fontsize=7, frameon=False, labelcolor=_TEXT, loc="lower right", ncols=2)


def _draw_times(axes: Axes, profile: Profile) -> None:
    """Milliseconds of each pass of each kind, and what the roofs allow of them."""
    colours = _colours(profile)
    rows = [(row.kind, done) for row in profile.kinds for done in row.passes]
    rows = sorted(rows, key=lambda pair: -pair[1].seconds)[:_SHOWN][::-1]
    names = [f"{kind}, {done.name}" for kind, done in rows]
    axes.barh(names, [done.seconds * 1e3 for _, done in rows], color=[colours[kind] for kind, _ in rows])
    axes.barh(
        names,
        [done.least_seconds * 1e3 for _, done in rows],
        color=_LEAST,
        height=0.28,
        label="what the roofs allow",
    )
    _label(axes, "milliseconds, all layers of a kind together", "ms", "")
    axes.legend(fontsize=7, frameon=False, labelcolor=_TEXT, loc="lower right")


def _colours(profile: Profile) -> dict[str, str]:
    """Kinds that compute have colours of their own; there are as many as are likely in one network."""
    computing = [row.kind for row in profile.kinds if row.macs]
    found = {kind: _COLOURS[number % len(_COLOURS)] for number, kind in enumerate(computing)}
    return {row.kind: found.get(row.kind, "#a9b2bc") for row in profile.kinds}


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=9, color=_TEXT)
    axes.set_xlabel(x, fontsize=8, color=_TEXT)
    axes.set_ylabel(y, fontsize=8, color=_TEXT)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=_TEXT)
