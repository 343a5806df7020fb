"""What can be done with a supernet, in its order: train, check, rank, write the best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from effnet.arch.io import load_spec
from effnet.errors import UserError
from effnet.files import write_json
from effnet.search.supernet.agreement import FEWEST, LEAST_TAU, Agreement
from effnet.search.supernet.checking import Check, Compared, check_by_study, check_ranking, study_results
from effnet.search.supernet.folder import SupernetFolder, read_json
from effnet.search.supernet.ranking import Ranked, in_order, measure, random_points, write_best
from effnet.search.supernet.training import SupernetTraining
from effnet.search.supernet.yardstick import Yardstick, yardstick_of
from effnet.training.display import Display, open_display

_TOLD_EVERY = 100


class SupernetWork:
    """A supernet in a folder, with what is needed to use it.

    Args:
        folder: Of `begin_supernet` or `open_supernet`.
        images: Of the minival, so many to compare networks by; 0: all.
    """

    def __init__(self, folder: SupernetFolder, *, images: int = 0) -> None:
        self.folder = folder
        self._images = images
        self._display: Display | None = None

    @contextmanager
    def display(self, *, quiet: bool) -> Iterator[None]:
        """Show on stderr what is going on, for the length of a ``with`` block."""
        with open_display(self.folder.experiment.schedule, quiet=quiet) as display:
            self._display = display
            try:
                yield
            finally:
                self._display = None

    @cached_property
    def training(self) -> SupernetTraining:
        """The supernet where its last checkpoint left it."""
        assert self._display is not None, "within display()"
        return SupernetTraining(
            self.folder.experiment,
            self.folder.settings.space,
            self.folder.envelope,
            between=self.folder.settings.between,
            distillation=self.folder.settings.distillation,
            run=self.folder.run,
            display=self._display,
        )

    @property
    def seconds(self) -> float:
        """That its training took."""
        return self.training.progress.seconds

    @cached_property
    def _yardstick(self) -> Yardstick:
        return yardstick_of(self.folder.experiment, most_images=self._images)

    def train(self) -> None:
        """Train to the end; see `SupernetTraining.train`."""
        if not self.training.is_finished:
            self.training.train(self._yardstick)

    def check(self, number: int, *, epochs: float | None = None) -> Check:
        """Train networks alone and compare the orders; they are drawn before the supernet has seen them.

        Args:
            number: How many.
            epochs: Of each; None: as long as the supernet.

        Raises:
            UserError: There are fewer than 5, or a run of one was begun with other settings.
        """
        config = self.folder.experiment.config
        points = random_points(self.folder.settings.space, number, seed=config.train.seed)
        ranked = measure(self.training, self._yardstick, points, self._tell_ranked)

        def tell(one: Compared) -> None:
            self._message(f"{one.name}: {one.alone:.2%} alone, {one.with_supernet:.2%} in the supernet")

        return check_ranking(self.folder, ranked, epochs=epochs or config.train.epochs, report=tell)

    def check_by_study(self, study: str) -> Check:
        """Compare the supernet's order with that of the completed trials of a study of its space.

        Args:
            study: Its folder or URL.

        Raises:
            UserError: There is no such study, or it has fewer than 5 completed trials of the space.
            UnreachableError: There is no reaching its database.
        """
        results = study_results(self.folder.settings.space, study)
        if len(results) < FEWEST:
            raise UserError(
                f"the study {study} has {len(results)} completed trials of the space "
                f"{self.folder.settings.space.name}; a ranking is checked with at least {FEWEST}"
            )
        ranked = measure(self.training, self._yardstick, list(results), self._tell_ranked)
        return check_by_study(self.folder, ranked, results, study)

    def rank(self, number: int, candidates: Sequence[Path] = ()) -> list[Ranked]:
        """Rank networks, and keep the ranking.

        Args:
            number: How many to draw.
            candidates: Files of specs to rank as well.

        Returns:
            The best first.

        Raises:
            UserError: A candidate is not of the space.
        """
        space, seed = self.folder.settings.space, self.folder.experiment.config.train.seed
        # Other ones than those of the check: a ranking is not the better for having seen it.
        points = random_points(space, number, seed=seed + 1)
        given = [space.point(load_spec(str(path))) for path in candidates]
        unique = list(dict.fromkeys([*given, *points]))
        ranked = in_order(measure(self.training, self._yardstick, unique, self._tell_ranked))
        write_json(self.folder.ranking_path, [one.to_dict() for one in ranked])
        return ranked

    def is_believed(self, least: float = LEAST_TAU) -> bool:
        """Whether the ranking has been checked and agrees well enough."""
        checked = self._checked()
        return checked is not None and checked.is_believable(least)

    def verdict(self, least: float = LEAST_TAU) -> str:
        """Return in words whether the ranking is to be believed."""
        checked = self._checked()
        if checked is None:
            return "the ranking is unchecked, and NOT to be believed before: check it with --check 20"
        return checked.verdict(least)

    def write_best(self, number: int, *, least_tau: float = LEAST_TAU, believes: bool = False) -> list[Path]:
        """Write the first networks of the last ranking as specs.

        Args:
            number: How many.
            least_tau: See `Agreement.is_believable`.
            believes: Whether to write them without it.

        Raises:
            UserError: Nothing has been ranked, or the ranking is not to be believed.
        """
        if not (believes or self.is_believed(least_tau)):
            raise UserError(f"{self.verdict(least_tau)}; --believe writes the networks nevertheless")
        path = self.folder.ranking_path
        rows = read_json(path) if path.is_file() else []
        space = self.folder.settings.space
        best = [
            Ranked(
                spec=self.training.adapted(space.spec(tuple(row["point"]))),
                point=tuple(row["point"]),
                accuracy=row["accuracy"],
                image_size=row["image_size"],
            )
            for row in rows[:number]
        ]
        return write_best(self.folder.best, best)

    def _checked(self) -> Agreement | None:
        path = self.folder.check_path
        return Agreement(**read_json(path)["supernet"]) if path.is_file() else None

    def _tell_ranked(self, done: int, last: Ranked) -> None:
        if done % _TOLD_EVERY == 0:
            self._message(f"{done} networks ranked, the last one {last.accuracy:.2%}")

    def _message(self, text: str) -> None:
        assert self._display is not None, "within display()"
        self._display.message(text)
