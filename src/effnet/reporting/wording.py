"""Numbers as people read them."""

from __future__ import annotations

_STEPS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
DASH = "\N{EN DASH}"
"""Where there is no number."""


def duration(seconds: float) -> str:
    """Return a duration for people, such as ``3.2 s``, ``4 min 10 s`` or ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def percent(share: float | None, decimals: int = 1) -> str:
    """Return a fraction as ``93.3 %``."""
    return DASH if share is None else f"{100 * share:.{decimals}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many digits, as ``0.535``; whole ones stay whole."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def counted(value: float | None) -> str:
    """Return a large number in a few letters, as ``5.87 M``."""
    if value is None:
        return DASH
    for step, letter in _STEPS:
        if value >= step:
            return f"{value / step:.3g} {letter}"
    return f"{value:.3g}"


def percents(low: float, high: float, decimals: int = 1) -> str:
    """Return between what fractions something lies, as ``90.3 to 96.0 %``."""
    return f"{100 * low:.{decimals}f} to {100 * high:.{decimals}f} %"


def probability(value: float) -> str:
    """Return a p-value, as ``0.034`` or ``< 0.001``."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
