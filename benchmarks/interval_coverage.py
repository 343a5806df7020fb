"""How often bootstrap intervals hold the true score, on simulated images.

    python benchmarks/interval_coverage.py --trials 2000

Prints one line for each kind of score: the share of intervals that hold it, its standard error, and the share
that was stated.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from effnet.evaluation.answers import Answers
from effnet.evaluation.comparison import compare
from effnet.evaluation.interval import interval

CLASSES = 5


def simulated(images: int, rng: np.random.Generator, *, sharpness: float) -> Answers:
    """Return answers to images of five classes, of which the first is as frequent as the others together."""
    labels = rng.choice(CLASSES, size=images, p=[0.5, 0.2, 0.1, 0.1, 0.1])
    logits = rng.normal(size=(images, CLASSES)) + sharpness * np.eye(CLASSES)[labels]
    return answers(logits, labels)


def answers(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """Return answers that no network gave."""
    return Answers(
        class_names=tuple("abcde"),
        names=tuple(map(str, range(len(labels)))),
        indices=np.arange(len(labels)),
        labels=labels,
        logits=logits.astype(np.float32),
        output="softmax",
    )


def pair(images: int, rng: np.random.Generator) -> tuple[Answers, Answers]:
    """Return what two networks say to the same images, the first one being better and both alike."""
    labels = rng.integers(CLASSES, size=images)
    common = rng.normal(size=(images, CLASSES))
    first, second = (
        answers(
            0.8 * common + 0.6 * rng.normal(size=common.shape) + sharpness * np.eye(CLASSES)[labels], labels
        )
        for sharpness in (2.2, 2.0)
    )
    return first, second


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)

    def report(
        name: str, images: int, truth: float, draw: Callable[[], tuple[float, float]], stated: float
    ) -> None:
        held = np.mean([low <= truth <= high for low, high in (draw() for _ in range(options.trials))])
        error = math.sqrt(held * (1 - held) / options.trials)
        shares = f"{held:6.1%} +- {error:.1%}, stated {stated:.0%}"
        print(f"{name:15} {images:5} images, true {truth:7.4f}: {shares}", flush=True)

    many = simulated(1_000_000, rng, sharpness=2.5)
    first, second = pair(1_000_000, rng)
    better = compare(first, second, resamples=2)
    for images in (100, 300, 1000):
        for metric in ("top1", "loss", "macro_f1", "macro_recall"):
            truth = interval(many, metric, resamples=2).value
            for stated in (0.8, 0.95):

                def draw(
                    metric: str = metric, images: int = images, stated: float = stated
                ) -> tuple[float, float]:
                    sample = simulated(images, rng, sharpness=2.5)
                    found = interval(sample, metric, confidence=stated, resamples=options.resamples)
                    return found.low, found.high

                report(metric, images, truth, draw, stated)
        for name in ("difference", "loss_difference"):

            def draw_pair(name: str = name, images: int = images) -> tuple[float, float]:
                found = getattr(compare(*pair(images, rng), resamples=options.resamples), name)
                return found.low, found.high

            report(name, images, getattr(better, name).value, draw_pair, 0.95)


if __name__ == "__main__":
    main()
