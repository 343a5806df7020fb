"""What to try next: each strategy is a function of what was tried and of random numbers."""

from effnet.search.strategies.registry import DEFAULT_STRATEGY, FRONT_STRATEGIES, STRATEGIES, strategy_named

__all__ = ["DEFAULT_STRATEGY", "FRONT_STRATEGIES", "STRATEGIES", "strategy_named"]
