"""Whether a ranking is to be believed: its order against that of networks trained on their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from scipy.stats import kendalltau

from effnet.errors import UserError

LEAST_TAU = 0.5
"""Below, three of four pairs or fewer are in the right order."""
FEWEST = 5
_RESAMPLINGS = 2000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Kendall's tau-b of two lists, with its 95 % interval by the bootstrap over networks."""

    networks: int
    tau: float
    """From -1, the reverse order, to 1, the same; 0 where a list is constant."""
    low: float
    high: float

    def is_believable(self, least: float = LEAST_TAU) -> bool:
        """Whether tau is at least ``least``, and its interval leaves out that there is no agreement."""
        return self.tau >= least and self.low > 0

    def verdict(self, least: float = LEAST_TAU) -> str:
        """Return in words what follows."""
        found = (
            f"Kendall tau {self.tau:.2f} (95 % interval {self.low:.2f} to {self.high:.2f}, {self.networks} "
            "networks)"
        )
        if self.is_believable(least):
            return f"{found}: the ranking can be used"
        reason = f"tau is below {least:g}" if self.tau < least else "the interval reaches down to 0"
        return (
            f"{found}: the ranking is NOT to be believed, {reason}; train the supernet longer, or search "
            "without one"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers under their names."""
        return asdict(self)


def agreement(predicted: Sequence[float], true: Sequence[float], *, seed: int = 0) -> Agreement:
    """Compare two lists of the same networks.

    Args:
        predicted: What ranks them, more is better.
        true: What they come to on their own.
        seed: Of the bootstrap.

    Raises:
        UserError: There are fewer than 5 networks.
    """
    if len(predicted) < FEWEST:
        raise UserError(f"a ranking is checked with at least {FEWEST} networks, got {len(predicted)}")
    pairs = np.stack([np.asarray(predicted, np.float64), np.asarray(true, np.float64)])
    networks = pairs.shape[1]
    drawn = np.random.default_rng(seed).multinomial(networks, [1 / networks] * networks, _RESAMPLINGS)
    low, high = np.percentile(resampled_tau(pairs, drawn), _INTERVAL)
    statistic = float(kendalltau(pairs[0], pairs[1]).statistic)
    tau = 0.0 if math.isnan(statistic) else statistic
    return Agreement(networks=networks, tau=tau, low=float(low), high=float(high))


def resampled_tau(
    pairs: Float64[np.ndarray, "2 N"], times: Int[np.ndarray, "R N"]
) -> Float64[np.ndarray, " R"]:
    """Return tau-b of lists in which each network occurs several times or never; 0 where one is constant.

    Args:
        pairs: Two values of each network.
        times: How often each network occurs, in each of R lists.
    """
    first, second = np.sign(pairs[:, :, None] - pairs[:, None, :])

    def over_pairs(signs: Float64[np.ndarray, "N N"]) -> Float64[np.ndarray, " R"]:
        return ((times @ signs) * times).sum(1)

    untied = np.sqrt(over_pairs(np.abs(first)) * over_pairs(np.abs(second)))
    return np.divide(over_pairs(first * second), untied, out=np.zeros(len(times)), where=untied > 0)
