"""What ``effnet predict --out`` shows on stderr: unreadable images, and on a terminal how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from effnet.evaluation.answer_journal import Progress as Written
    from effnet.evaluation.streaming import AnsweredBatch

MOST_TOLD = 20
"""Unreadable images that are named; a folder of text files is not to flood the terminal."""


class _Rate(ProgressColumn):
    """Images a second of late."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


@contextmanager
def show_progress() -> Iterator[Callable[[AnsweredBatch | None, Written, int], None]]:
    """Yield what `effnet.api.predicting.predict_to_file` reports to, for the length of a ``with`` block."""
    console = Console(stderr=True)
    is_shown = console.is_terminal and not console.is_dumb_terminal
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(elapsed_when_finished=True))
    told = 0
    with Progress(*columns, console=console, disable=not is_shown, redirect_stdout=False) as bar:
        task = bar.add_task("predicting", total=None)

        def say(line: str) -> None:
            console.print(line, markup=False, highlight=False, soft_wrap=True)

        def report(answered: AnsweredBatch | None, written: Written, total: int) -> None:
            nonlocal told
            if answered is None:
                if written.images:
                    say(f"continued at image {written.images} of {total}")
                bar.reset(task, completed=written.images, total=total)
                return
            bar.update(task, completed=written.images)
            for name, error in zip(answered.names, answered.errors, strict=True):
                if error is None:
                    continue
                told += 1
                if told <= MOST_TOLD:
                    say(f"{name.encode('utf-8', 'backslashreplace').decode()}: {error}")
                elif told == MOST_TOLD + 1:
                    say("more images are unreadable; the file names them all")

        yield report
