"""What of a data set is used, where it has more splits and columns than one can train on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from effnet.arch.class_names import read_class_names
from effnet.config import DataConfig
from effnet.errors import UserError, did_you_mean

VAL_NAMES = ("val", "validation", "valid", "test")
"""What the second split may be called; the first one that exists counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The user's choice; what is empty is chosen by names and types. See `effnet.config.DataConfig`."""

    train_split: str = ""
    val_split: str = ""
    image_column: str = ""
    label_column: str = ""
    class_names: str = ""
    streaming: bool = False

    @classmethod
    def of(cls, config: DataConfig) -> Selection:
        """Return the part of a configuration that chooses."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    @property
    def has_splits(self) -> bool:
        """Whether splits are chosen by name."""
        return bool(self.train_split or self.val_split)

    def splits(self, source: str, found: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the splits to train on, and of those to validate on, which may be none.

        Args:
            source: What the user gave, for the message.
            found: Names of the splits that there are.

        Raises:
            UserError: One that is named is not there, or is to be used for both.
        """
        train = _names(self.train_split) or ("train",)
        val = _names(self.val_split) or next(
            ((name,) for name in VAL_NAMES if name in found and name not in train), ()
        )
        for names, purpose in ((train, "train"), (val, "validate")):
            for name in names:
                if name not in found:
                    raise UserError(
                        f"'{source}' has no split '{name}' to {purpose} on; it has: "
                        f"{', '.join(found) or 'none'}{_hint(name, found)}"
                    )
        if both := sorted({*train} & {*val}):
            raise UserError(
                f"data.train_split and data.val_split both have '{both[0]}'; give it to one of them"
            )
        return train, val

    def names_of_classes(self) -> tuple[str, ...]:
        """Return the names of the classes 0, 1, ... in the file that the user names; none without one.

        Raises:
            UserError: It cannot be read, is empty, or has a name twice.
        """
        return read_class_names(self.class_names, "data.class_names") if self.class_names else ()

    def refuse(self, source: str, *keys: str) -> None:
        """Refuse what cannot be chosen of a data set.

        Raises:
            UserError: One of the keys is set.
        """
        for key in keys:
            if getattr(self, key):
                nothing = "false" if key == "streaming" else "''"
                raise UserError(
                    f"data.{key} is '{getattr(self, key)}', but '{source}' has nothing that it could choose; "
                    f"leave it out, as by --set data.{key}={nothing}"
                )


ALL = Selection()
"""Chosen by names and types alone."""

SPLITS, COLUMNS = ("train_split", "val_split"), ("image_column", "label_column")
"""Keys that `Selection.refuse` takes together."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split("+"))) if text else ()


def _hint(name: str, found: Collection[str]) -> str:
    hint = did_you_mean(name, found)
    return hint if "did you mean" in hint else ""
