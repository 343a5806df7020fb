"""Complete runs by name, and the configuration as TOML.

A recipe is a TOML file with the sections of `effnet.config.Config`. Its first comment says what it is, how
to run it, what it costs and what came out. ``extends`` at its top names the recipe it changes: another
shipped one, or a path relative to the file.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w

from effnet.arch.io import from_dict, to_dict
from effnet.config import Config
from effnet.errors import UserError, did_you_mean

__all__ = [
    "config_from_toml",
    "config_to_toml",
    "load_recipe",
    "recipe_names",
    "recipe_summary",
    "recipe_text",
    "resolve_config",
    "with_values",
]

Sections = dict[str, Any]


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """Return a shipped recipe as it is written, with its comments.

    Raises:
        UserError: No recipe has that name; the message names the nearest one.
    """
    if name not in recipe_names():
        raise UserError(
            f"unknown recipe '{name}'{did_you_mean(name, recipe_names())} (or give the path of a .toml file)"
        )
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """Return the first line of a shipped recipe's comment: what it is."""
    return recipe_text(name).partition("\n")[0].removeprefix("# ")


def load_recipe(name_or_path: str) -> Config:
    """Read a recipe and everything that it extends.

    Args:
        name_or_path: A name of `recipe_names`, or a path that ends in ``.toml``.

    Raises:
        UserError: There is no such recipe, it is not valid TOML, it has an unknown key or a value out of
            range, or recipes extend each other in a circle.
    """
    return from_dict(Config, _read(name_or_path, ()), name_or_path)


def resolve_config(
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    values: Mapping[str, str | float] | None = None,
) -> Config:
    """Return a recipe with single values changed.

    Args:
        recipe: A name or path, see `load_recipe`; None is the defaults of `effnet.config`.
        overrides: ``section.key=value``. The value is TOML, such as ``10``, ``true`` or ``[128, 224]``;
            what is not TOML is text, such as ``v2-s``. Later ones win.
        values: ``section.key`` and its value as it is; overrides win over them.

    Raises:
        UserError: The recipe or an override is not valid.
    """
    config = load_recipe(recipe) if recipe else Config()
    sections = _with(_without_none(to_dict(config)), values or {})
    for override in overrides:
        sections = _merge(sections, _parse_override(override))
    return from_dict(Config, sections, "the overrides")


def with_values(config: Config, values: Mapping[str, object]) -> Config:
    """Return a configuration with single values changed.

    Args:
        config: Stays as it is.
        values: ``section.key`` and its value as it is.

    Raises:
        UserError: There is no such key, or the value is outside its range.
    """
    return from_dict(Config, _with(_without_none(to_dict(config)), values), "the changes")


def config_to_toml(config: Config) -> str:
    """Write a configuration with every value; what is None is left out."""
    text = tomli_w.dumps(_without_none(to_dict(config)))
    # Arrays come with one item a line. Text has no line breaks of its own: TOML escapes them.
    return text.replace("[\n    ", "[").replace(",\n    ", ", ").replace(",\n]", "]")


def config_from_toml(text: str, where: str) -> Config:
    """Read what `config_to_toml` wrote; keys left out take their defaults.

    Args:
        text: TOML with the sections of `Config`; it cannot extend a recipe.
        where: Where the text came from, for the message.

    Raises:
        UserError: The text is not TOML, or not a valid configuration.
    """
    return from_dict(Config, _parse(text, where), where)


def _read(name_or_path: str, readers: tuple[str, ...]) -> Sections:
    """Read one recipe merged onto what it extends; ``readers`` are the recipes that led here."""
    if name_or_path in readers:
        raise UserError(f"recipes extend each other in a circle: {' -> '.join((*readers, name_or_path))}")
    is_path = name_or_path.endswith(".toml")
    text = _file_text(Path(name_or_path)) if is_path else recipe_text(name_or_path)
    sections = _parse(text, name_or_path)
    base = sections.pop("extends", None)
    if base is None:
        return sections
    if not isinstance(base, str):
        raise UserError(f"{name_or_path}: extends must be the name or path of one recipe, got {base!r}")
    if base.endswith(".toml"):
        base = str((Path(name_or_path).parent / base).resolve())
    return _merge(_read(base, (*readers, name_or_path)), sections)


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the recipe {path}: {error}") from None


def _parse(text: str, where: str) -> Sections:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where} is not TOML: {error}") from None


def _parse_override(override: str) -> Sections:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise UserError(f"cannot understand '{override}'; write section.key=value, such as train.epochs=10")
    sections: Any = _parse_value(text.strip())
    for part in reversed(path):
        sections = {part: sections}
    return dict(sections)


def _parse_value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _with(sections: Sections, values: Mapping[str, object]) -> Sections:
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections = _merge(sections, {section: {name: value}})
    return sections


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Sections:
    """Return ``base`` with ``changes`` on top, section by section."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _without_none(sections: Sections) -> Sections:
    return {
        name: {key: value for key, value in section.items() if value is not None}
        for name, section in sections.items()
        if section is not None
    }
