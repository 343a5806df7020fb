"""The one exception that means "the user can mend this", and the help it gives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: the message says what was given, what is allowed, what to do.

    The command line prints the message alone and exits with code 2.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the option nearest to ``word``, or a list of all options.

    Args:
        word: What was given.
        options: What is allowed, in the order to list them.

    Returns:
        A clause to append to an error message; empty when there are no options.
    """
    names = list(options)
    nearest = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return f"; allowed: {', '.join(names)}" if names else ""
