"""A sampler of Optuna that need not find out anew, from all trials, what it samples from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class KnownSpace(BaseSampler):
    """Another sampler, told the variables; finding them out takes most of an ask from some 100 trials on."""

    def __init__(self, sampler: BaseSampler, distributions: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        self._open = {name: values for name, values in distributions.items() if not values.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what there is to choose."""
        return self._open

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Let the sampler choose."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's interface
        """Let the sampler choose one variable."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
