"""The figures of `gpu_speed.py` for people."""

from __future__ import annotations

import statistics
from typing import Any

REFERENCE = "timm compiled"


def table(report: dict[str, Any]) -> str:
    """Return all cases as text, and what was left out."""
    roofs = report["roofs"]
    lines = [
        f"{roofs.get('name', report['device'])}, {report['precision']}: copying "
        f"{roofs['bytes_per_second'] / 1e12:.2f} TB/s, matrix product "
        f"{roofs['flops_per_second'] / 1e12:,.1f} TFLOP/s"
    ]
    for found in report["cases"].values():
        lines += ["", *_case(found)]
    lines += [f"left out: {key}: {why}" for key, why in report["left_out"].items()]
    return "\n".join(lines)


def _case(found: dict[str, Any]) -> list[str]:
    roof = found["roofline"]
    lines = [
        f"{found['key']}: bandwidth allows {roof['images_per_second_by_bandwidth']:,.0f} images/s, "
        f"arithmetic {roof['images_per_second_by_arithmetic']:,.0f}"
    ]
    for name, seconds in found["seconds"].items():
        lines.append(_way(found, name, seconds))
    lines += [f"  published: {what}: {value:g}" for what, value in found["published"].items()]
    lines += [f"  not {name}: {why}" for name, why in found["left_out"].items()]
    return lines


def _way(found: dict[str, Any], name: str, seconds: list[float]) -> str:
    rates = [found["batch"] / value for value in seconds]
    base = found["seconds"].get(REFERENCE) or next(iter(found["seconds"].values()))
    ratios = [other / own for own, other in zip(seconds, base, strict=False)]
    peak = found["peak_bytes"][name]
    memory = f", {peak / 1e9:.2f} GB" if peak else ""
    shares = found["shares"].get(name, {}).get("shares", {})
    told = ", ".join(f"{kind} {share:.0%}" for kind, share in list(shares.items())[:5])
    return (
        f"  {name:24} {statistics.median(rates):9,.1f} images/s ({min(rates):,.1f} to {max(rates):,.1f}, "
        f"n = {len(rates)}), {statistics.median(seconds) * 1e3:.2f} ms, {statistics.median(ratios):.2f} x "
        f"{REFERENCE if REFERENCE in found['seconds'] else 'effnet'}{memory}, "
        f"{found['roofline']['share_of_bandwidth'][name]:.0%} of the bandwidth roof; {told}"
    )
