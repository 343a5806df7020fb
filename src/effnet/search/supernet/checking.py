"""Networks of the space trained on their own, against which the supernet's ranking is checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from effnet.api import run_config, start_or_resume_run
from effnet.arch.io import spec_from_json, spec_to_json
from effnet.arch.spec import NetworkSpec
from effnet.errors import UserError
from effnet.files import whole_file, write_json
from effnet.search.ledger import Ledger
from effnet.search.points import Point
from effnet.search.space import SearchSpace
from effnet.search.supernet.agreement import Agreement, agreement
from effnet.search.supernet.folder import SupernetFolder, read_json
from effnet.search.supernet.ranking import Ranked
from effnet.training.journal import open_run
from effnet.training.same_run import check_same_config


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A network in the supernet and on its own."""

    name: str
    with_supernet: float
    """Top-1 on the minival, as a fraction."""
    alone: float
    """Likewise, of the network trained on its own, on the same images."""
    params: int
    macs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """How well the supernet ranks, beside what size alone says."""

    networks: tuple[Compared, ...]
    alone: str
    """How each was trained on its own."""
    supernet: Agreement
    params: Agreement
    """Of the order by parameters."""
    macs: Agreement
    """Of the order by multiply-adds."""

    def to_dict(self) -> dict[str, Any]:
        """Return the check as it is kept."""
        return asdict(self)


def train_alone(folder: SupernetFolder, spec: NetworkSpec, *, epochs: float) -> float:
    """Train a network from scratch on the supernet's images by its recipe, or continue that.

    Args:
        folder: Of the supernet.
        spec: With the data's classes.
        epochs: Instead of the supernet's.

    Returns:
        Its last accuracy on the minival, as a fraction.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; the state is saved.
        UserError: It was begun with other settings.
    """
    path = folder.alone / spec.name
    result, spec_path = path.with_suffix(".json"), path / "network.json"
    path.mkdir(parents=True, exist_ok=True)
    with whole_file(spec_path) as temporary:
        temporary.write_text(spec_to_json(spec), encoding="utf-8")
    config = folder.experiment.config
    config = replace(
        config,
        model=replace(config.model, network=str(spec_path)),
        train=replace(config.train, epochs=epochs),
        # Only the last accuracy counts, and each evaluation of the minival takes time.
        evaluate=replace(config.evaluate, every_epochs=max(epochs, config.evaluate.every_epochs)),
    )
    if result.is_file():
        check_same_config(config, run_config(open_run(path)), path)
        return float(read_json(result)["val_top1"])
    done = start_or_resume_run(config, path, quiet=True)
    write_json(result, done.to_dict())
    return done.val_top1


def check_ranking(
    folder: SupernetFolder,
    ranked: Sequence[Ranked],
    *,
    epochs: float,
    report: Callable[[Compared], None],
) -> Check:
    """Train networks alone and compare the orders; those that were trained already are not trained again.

    Args:
        folder: Of the supernet; the check is written to it.
        ranked: Some networks with their accuracies in the supernet, drawn without looking at these.
        epochs: That each is trained alone.
        report: Told of each network that is trained.

    Raises:
        UserError: There are fewer than 5.
    """
    compared = []
    for one in ranked:
        compared.append(_compared(one, train_alone(folder, one.spec, epochs=epochs)))
        report(compared[-1])
    return _kept(folder, compared, f"{epochs:g} epochs each")


def study_results(domain: SearchSpace, study: str) -> dict[Point, float]:
    """Return what the completed trials of a study of the same space came to.

    Args:
        domain: The space; trials of networks outside it are left out.
        study: Its folder or URL, as of ``effnet search --study``.

    Returns:
        Accuracies as fractions by their points, in the order of the trials.

    Raises:
        UserError: There is no such study.
        UnreachableError: There is no reaching its database.
    """
    url = study if "://" in study else f"sqlite:///{Path(study) / 'study.db'}"
    results: dict[Point, float] = {}
    with Ledger.existing(url) as ledger:
        for trial in ledger.trials():
            accuracy = trial.measures.accuracy if trial.measures else None
            if trial.state == "done" and accuracy is not None:
                with suppress(UserError):
                    results[domain.point(spec_from_json(trial.spec, f"trial {trial.number}"))] = accuracy
    return results


def check_by_study(
    folder: SupernetFolder, ranked: Sequence[Ranked], results: Mapping[Point, float], study: str
) -> Check:
    """Compare the supernet's order with that of a study, whose trials were trained by its own recipe.

    Args:
        folder: Of the supernet; the check is written to it.
        ranked: The networks of ``results`` with their accuracies in the supernet.
        results: Of `study_results`.
        study: What to call it.

    Raises:
        UserError: There are fewer than 5.
    """
    compared = [_compared(one, results[one.point]) for one in ranked]
    return _kept(folder, compared, f"trials of {study}")


def _compared(one: Ranked, alone: float) -> Compared:
    return Compared(
        name=one.spec.name,
        with_supernet=one.accuracy,
        alone=alone,
        params=one.cost.params,
        macs=one.cost.macs,
    )


def _kept(folder: SupernetFolder, compared: Sequence[Compared], trained: str) -> Check:
    alone = [one.alone for one in compared]
    check = Check(
        networks=tuple(compared),
        alone=trained,
        supernet=agreement([one.with_supernet for one in compared], alone),
        params=agreement([one.params for one in compared], alone),
        macs=agreement([one.macs for one in compared], alone),
    )
    write_json(folder.check_path, check.to_dict())
    return check
