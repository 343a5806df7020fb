"""The one exception that means "the user can mend this", the help it gives, and the loss of a connection."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, get_args, get_type_hints

from pydantic import ValidationError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MUST_BE = {
    "bool_type": "true or false",
    "dataclass_type": "a section of keys and values",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "string_too_short": "text of {min_length} or more characters",
    "string_type": "text",
    "too_long": "a list of {max_length} or fewer values",
    "too_short": "a list of {min_length} or more values",
    "tuple_type": "a list",
}
"""What pydantic's kinds of errors ask for, in the words of `explain`."""


class UserError(ValueError):
    """A mistake in what the user gave: the message says what was given, what is allowed, what to do.

    The command line prints the message alone and exits with code 2.
    """


class UnreachableError(Exception):
    """Data on another machine cannot be had any more: no mistake of the user, and no image's fault.

    The command line prints the message alone and exits with code 1; a run can be continued.
    """


class LostProcessError(Exception):
    """Another process of a run is gone, and this one cannot go on without it."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the option nearest to ``word``, or a list of all options.

    Args:
        word: What was given.
        options: What is allowed, in the order to list them.

    Returns:
        A clause to append to an error message; empty when there are no options.
    """
    names = list(options)
    if nearest := _nearest(word, names):
        return f"; did you mean '{nearest}'?"
    return f"; allowed: {', '.join(names)}" if names else ""


def explain(error: ValidationError, kind: type, where: str) -> str:
    """Turn pydantic's report into one sentence in the words of who wrote the data.

    Args:
        error: Of validating JSON or Python data as ``kind``.
        kind: The dataclass that the data should have become; the source of the names to suggest.
        where: Where the data came from, such as a path.

    Returns:
        The first problem, and how many more there are.
    """
    # A misspelt key is also a missing one; the first is what to mend.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] == "missing")
    more = len(problems) - 1
    rest = f" (and {more} more {'problem' if more == 1 else 'problems'})" if more else ""
    return _sentence(problems[0], kind, where) + rest


def _sentence(problem: ErrorDetails, kind: type, where: str) -> str:
    location, context, path = problem["loc"], problem.get("ctx", {}), _dotted(problem["loc"])
    subject = f"{where}: {path}" if path else where
    got = _shown(problem["input"])
    match problem["type"]:
        case "unexpected_keyword_argument":
            return f"unknown key '{path}' in {where}{_similar_key(location, kind)}"
        case "missing":
            return f"{subject} is missing"
        case "value_error":
            return f"{where}: {f'in {path}, ' if path else ''}{context['error']}"
        case "literal_error":
            names = re.findall(r"'([^']*)'|(True|False)", context["expected"])
            allowed = [name or value.lower() for name, value in names]
            nearest = _nearest(str(problem["input"]), allowed)
            hint = f"; did you mean '{nearest}'?" if nearest else ""
            return f"{subject} must be one of {', '.join(allowed)}, got {got}{hint}"
        case name if name in _MUST_BE:
            return f"{subject} must be {_MUST_BE[name].format(**context)}, got {got}"
        case _:
            return f"{subject}: {problem['msg']}"


def _nearest(word: str, options: Iterable[str], cutoff: float = 0.5) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(options), n=1, cutoff=cutoff)), None)


def _dotted(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _similar_key(location: tuple[int | str, ...], kind: type) -> str:
    """Suggest the same name in another section, else one like it: in its own section, then in all."""
    section = kind
    for part in location[:-1]:
        if isinstance(part, str):
            section = _dataclass_in(get_type_hints(section)[part]) or section
    key, own = str(location[-1]), [field.name for field in fields(section)]
    everywhere = {path[-1]: path for path in reversed(list(_leaves(kind)))}
    suggestion: tuple[int | str, ...] | None = everywhere.get(key)
    if not suggestion and (nearest := _nearest(key, own)):
        suggestion = (*location[:-1], nearest)
    elif not suggestion and (nearest := _nearest(key, everywhere, cutoff=0.7)):
        suggestion = everywhere[nearest]
    return f"; did you mean '{_dotted(suggestion)}'?" if suggestion else did_you_mean(key, own)


def _leaves(kind: type, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind)):
        if is_dataclass(hints[name]):
            yield from _leaves(hints[name], (*above, name))
        else:
            yield (*above, name)


def _dataclass_in(hint: object) -> type | None:
    """Return the dataclass that a type is, or is a collection of."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next((found for inner in get_args(hint) if (found := _dataclass_in(inner))), None)
