"""The machine while something is timed: instructions, clocks, what limits them, and who else computes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from effnet.training.journal import cpu_model

FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "sve",
    "bf16",
)
"""Those that decide how fast a network is."""
_CPUINFO = Path("/proc/cpuinfo")
_CLOCKS = Path("/sys/devices/system/cpu")
_LIMITS = ("scaling_governor", "scaling_driver", "cpuinfo_max_freq", "energy_performance_preference")
_SWITCHES = ("intel_pstate/no_turbo", "cpufreq/boost", "smt/active")
_WATTS = Path("/sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw")


def processor() -> dict[str, Any]:
    """Return what the processor is, and whatever can be read of its clocks and power limits."""
    text = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""
    fields = dict(reversed([_field(line) for line in text.splitlines() if ":" in line]))
    words = set((fields.get("flags") or fields.get("Features") or "").split())
    said = {name: _read(_CLOCKS / "cpu0" / "cpufreq" / name) for name in _LIMITS}
    said |= {name: _read(_CLOCKS / name) for name in _SWITCHES} | {"power limit, microwatts": _read(_WATTS)}
    known = {name: value for name, value in said.items() if value is not None}
    return {
        "model": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cache": fields.get("cache size"),
        "microcode": fields.get("microcode"),
        "is_virtual": "hypervisor" in words,
        "flags": [flag for flag in FLAGS if flag in words],
        "clocks_and_power": known,
        # What is behind a hypervisor is its secret; a note is better than an empty place.
        "note": "" if "scaling_governor" in known else "its governor cannot be read",
    }


def state() -> dict[str, Any]:
    """Return the load and, where they can be read, the clocks at this moment."""
    text = _CPUINFO.read_text(encoding="utf-8") if _CPUINFO.exists() else ""
    clocks = [float(_field(line)[1]) for line in text.splitlines() if line.startswith("cpu MHz")]
    temperatures = [_read(file) for file in sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))]
    return {
        "load": os.getloadavg()[0],
        "mhz": clocks,
        "celsius": [int(value) / 1000 for value in temperatures if value],
    }


def free_bytes() -> float:
    """Return the memory that processes can still have; without end where nothing says so."""
    text = _read(Path("/proc/meminfo")) or ""
    found = dict(_field(line) for line in text.splitlines()).get("MemAvailable")
    return int(found.split()[0]) * 1024 if found else math.inf


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
