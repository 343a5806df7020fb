"""What is in the folder of a run, for those who use it."""

from __future__ import annotations

from pathlib import Path

from effnet.config import Config
from effnet.data.images import DataSplit, LabelledImages
from effnet.data.sources import open_configured
from effnet.errors import UserError
from effnet.recipes import config_from_toml
from effnet.training.journal import Run, open_run
from effnet.training.split import check_split
from effnet.weights import is_timm_folder


def run_config(run: Run) -> Config:
    """Return the resolved configuration of a run.

    Raises:
        UserError: Its file is damaged.
    """
    try:
        text = run.config_path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{run.config_path} is damaged: {error}") from None
    return config_from_toml(text, str(run.config_path))


def weights_of(source: str | Path) -> str:
    """Return the file with the best weights of a run; what is no run stays as it is."""
    path = Path(source)
    if not path.is_dir() or is_timm_folder(path):
        return str(source)
    run = open_run(path)
    if not run.best_weights.is_file():
        raise UserError(
            f"{path} has not been evaluated yet, so it has no weights to use; "
            f"continue it with: effnet train --resume {path}"
        )
    return str(run.best_weights)


def run_data(path: Path) -> DataSplit:
    """Return the images of a run.

    Raises:
        UserError: It is no run, or its data is not what it was.
    """
    run = open_run(path)
    split = open_configured(run_config(run).data)
    check_split(run.split_path, split)
    return split


def run_validation(path: Path) -> LabelledImages:
    """Return the images that a run held out.

    Raises:
        UserError: It is no run, or its data is not what it was.
    """
    if not path.is_dir():
        raise UserError(f"{path} is no run, so it has no validation images of its own; give DATA")
    return run_data(path).val
