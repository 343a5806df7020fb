"""How a run was started, and the commands that do the same again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effnet.arch.io import from_dict, to_dict
from effnet.config import Config
from effnet.errors import UserError
from effnet.recipes import config_to_toml, load_recipe, recipe_names
from effnet.reporting.facts import RunFacts
from effnet.training.same_run import flat_values, is_open

_BY_ARGUMENT = ("data.source", "model.network", "model.weights")
"""What the commands say without ``--set``."""
_PLAIN = re.compile(r"[A-Za-z_/~][A-Za-z0-9_./+:@-]*")
_TOML_WORDS = {"true", "false", "inf", "nan"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A value that is not the recipe's."""

    key: str
    recipe: str
    """What the recipe has, as people write it."""
    run: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """How to run it again."""

    started: str | None
    """The command line as it was, with the program's name alone; None where it is not known."""
    recipe: str
    is_recorded: bool
    """Whether the command line names the recipe; else it is the shipped one that differs least."""
    changes: tuple[Change, ...]
    """All but where the images are."""
    exact: str
    """From the run's own folder: every value as it was."""
    portable: str
    """Without the run's folder; what a recipe leaves open is chosen anew."""
    toml: str
    """The complete configuration."""


def repetition(facts: RunFacts) -> Repetition:
    """Find out which recipe a run came from, what is different from it, and how to run it again.

    Args:
        facts: Of the run.
    """
    arguments = [str(part) for part in facts.environment.get("command", ())]
    is_train = arguments[1:2] == ["train"]
    recipe = _named_recipe(arguments[2:], facts.config) if is_train else None
    base = _load(recipe) if recipe else None
    is_recorded = base is not None
    if recipe is None or base is None:
        recipe, base = _nearest(facts.config)
    named = {option.partition("=")[0] for option in _values_of("--set", arguments)}
    changes = tuple(_changes(base, facts.config, named))
    path = shlex.quote(str(facts.path))
    return Repetition(
        started=_shown_command(arguments) if is_train else None,
        recipe=recipe,
        is_recorded=is_recorded,
        changes=changes,
        exact=f"effnet train --recipe {shlex.quote(str(facts.path / 'config.toml'))} --out {path}-again",
        portable=_portable(recipe, base, facts, named),
        toml=config_to_toml(facts.config),
    )


def as_override(key: str, value: object) -> str:
    """Return ``key=value`` so that ``--set`` reads the same value.

    Args:
        key: ``section.name``.
        value: What JSON can hold, but None.
    """
    return f"{key}={shown(value)}"


def shown(value: object) -> str:
    """Return a value as people write it after ``--set``; None is a dash."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _TOML_WORDS:
        return value
    return json.dumps(_short(value), separators=(",", ":"), ensure_ascii=False)


def _short(value: object) -> object:
    """Return a number without decimals that say nothing; TOML's whole numbers are taken for any."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _named_recipe(arguments: Sequence[str], config: Config) -> str:
    """Return the recipe of a command line, by the rule of `effnet.api.configure`."""
    if given := _values_of("--recipe", arguments):
        return given[-1]
    if config.data.source == "digits":
        return "demo"
    return "finetune" if _values_of("--weights", arguments) else "scratch"


def _values_of(option: str, arguments: Sequence[str]) -> list[str]:
    """Return the values of an option, given as two arguments or as one with an equals sign."""
    found = []
    for number, argument in enumerate(arguments):
        if argument == option and number + 1 < len(arguments):
            found.append(arguments[number + 1])
        elif argument.startswith(f"{option}="):
            found.append(argument.partition("=")[2])
    return found


def _load(recipe: str) -> Config | None:
    try:
        return load_recipe(recipe)
    except UserError:  # A file that is gone or was changed since.
        return None


def _nearest(config: Config) -> tuple[str, Config]:
    """Return the shipped recipe with the fewest differences."""
    recipes = _shipped()
    name = min(recipes, key=lambda name: len(list(_changes(recipes[name], config, set()))))
    return name, recipes[name]


@cache
def _shipped() -> dict[str, Config]:
    return {name: load_recipe(name) for name in recipe_names()}


def _changes(base: Config, config: Config, named: set[str]) -> list[Change]:
    before = dict(flat_values(base))
    return [
        Change(key=key, recipe=shown(before.get(key)), run=shown(value))
        for key, value in flat_values(config)
        if key != "data.source" and _differs(key, before.get(key), value, named)
    ]


def _differs(key: str, before: object, value: object, named: set[str]) -> bool:
    """Whether a run has another value than its recipe; what is left open counts where it was named."""
    return value not in (None, before) and (not is_open(key, before) or key in named)


def _portable(recipe: str, base: Config, facts: RunFacts, named: set[str]) -> str:
    config = facts.config
    words = ["effnet", "train", config.data.source, "--recipe", recipe]
    values = to_dict(base)
    if config.model.network != base.model.network:
        words += ["--model", config.model.network]
        values["model"] |= {"network": config.model.network, "width": 1.0, "depth": 1.0}
    if config.model.weights and config.model.weights != base.model.weights:
        words += ["--weights", config.model.weights]
    changed = from_dict(Config, values, recipe)
    before: Mapping[str, Any] = dict(flat_values(changed))
    for key, value in flat_values(config):
        if key not in _BY_ARGUMENT and _differs(key, before.get(key), value, named):
            words += ["--set", as_override(key, value)]
    if base.model.weights and not config.model.weights:
        words += ["--set", 'model.weights=""']
    return shlex.join([*words, "--out", f"{facts.path.name or 'run'}-again"])


def _shown_command(arguments: Sequence[str]) -> str:
    program = "effnet" if Path(arguments[0]).name in {"effnet", "__main__.py"} else Path(arguments[0]).name
    return shlex.join([program, *arguments[1:]])
