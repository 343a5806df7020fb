"""V2's table 3 on one's own device: what it does to the training step to fuse early stages, or all.

At two numbers of images, because part of a step is the update of the weights, which does not grow with the
images: the more images, the less it matters that fused stages have many more weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from effnet.arch.accounting import network_cost
from effnet.arch.family import fuse_stages
from effnet.arch.spec import NetworkSpec
from effnet.search.step_time import StepTime, measure_step
from effnet.search.turns import Budget
from effnet.training.experiment import Experiment

LAST_FUSED = (3, 5, 7)
"""Of the paper's table: stages 1-3, 1-5 and 1-7."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedStep:
    """One row: a network and its training step beside that of the network without fused stages."""

    name: str
    params: int
    macs: int
    """Of a forward pass at the measured size."""
    steps: tuple[StepTime, ...]
    """One for each number of images."""

    @property
    def growth(self) -> float:
        """Time of each further image, relative to the plain network's: of the two largest numbers."""
        few, many = self.steps[-2], self.steps[-1]
        own = many.ratio * many.reference_ms - few.ratio * few.reference_ms
        return own / (many.reference_ms - few.reference_ms)


def measure_fused(
    experiment: Experiment,
    plain: NetworkSpec,
    images: Sequence[int],
    budget: Budget,
    report: Callable[[FusedStep], None],
) -> list[FusedStep]:
    """Measure a network with stages 1-3, 1-5 and 1-7 fused beside itself without.

    Args:
        experiment: The run that they would have.
        plain: A network of seven stages, such as V1's.
        images: In a step; two or more numbers, ascending.
        budget: For each pair of networks and number of images.
        report: Told each row.

    Raises:
        UserError: The network has fewer stages.
    """
    rows = []
    for spec in [fuse_stages(plain, first=1, last=last) for last in LAST_FUSED]:
        steps = [measure_step(experiment, spec, plain, budget, images=count) for count in images]
        cost = network_cost(spec, steps[0].image_size)
        rows.append(FusedStep(name=spec.name, params=cost.params, macs=cost.macs, steps=tuple(steps)))
        report(rows[-1])
    return rows


def fastest_first(plain: NetworkSpec, rows: Sequence[FusedStep], number: int) -> list[str]:
    """Return the names of all four networks in the order of their steps.

    Args:
        plain: The network without fused stages.
        rows: Of `measure_fused`.
        number: Index of the number of images.
    """
    ratios = {plain.name: 1.0} | {row.name: row.steps[number].ratio for row in rows}
    return sorted(ratios, key=ratios.__getitem__)
