"""A supernet on the disk: trained, interrupted, checked, ranked."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from effnet.arch import network_cost, spec_to_json
from effnet.arch.io import load_spec
from effnet.config import ModelConfig
from effnet.errors import UserError
from effnet.files import write_json
from effnet.nn import build_model
from effnet.search.ledger import Ledger
from effnet.search.measures import Measures
from effnet.search.records import Candidate
from effnet.search.supernet import checking, training
from effnet.search.supernet.agreement import Agreement
from effnet.search.supernet.folder import SupernetSettings, begin_supernet, open_supernet
from effnet.search.supernet.ranking import Ranked, in_order, random_points
from effnet.search.supernet.work import SupernetWork
from effnet.training import loop
from effnet.training.checkpoint import state_tensors
from effnet.training.guard import DivergedRunError
from effnet.training.journal import read_metrics
from effnet.training.loop import InterruptedRunError


@pytest.fixture(scope="module")
def settings(space) -> SupernetSettings:
    return SupernetSettings(space=space, between=1)


def begun(path: Path, config, settings) -> SupernetWork:
    return SupernetWork(begin_supernet(path, config, settings))


@pytest.fixture(scope="module")
def trained(config, settings, tmp_path_factory) -> Path:
    """Not to be written to."""
    path = tmp_path_factory.mktemp("supernet") / "whole"
    work = begun(path, config, settings)
    with work.display(quiet=True):
        work.train()
    return path


def tensors(work: SupernetWork) -> dict[str, torch.Tensor]:
    with work.display(quiet=True):
        state = work.training.state
    return state_tensors(state.model, state.ema, state.optimizer)


def test_a_trained_supernet_is_a_folder_with_checkpoints_and_a_journal(trained, settings):
    files = {str(file.relative_to(trained)) for file in trained.rglob("*") if file.is_file()}
    assert {"supernet.json", "largest.json", "training/config.toml", "training/metrics.jsonl"} <= files
    # 39 images without those of validation and minival, 8 a step, three epochs.
    assert "training/checkpoints/step-00000014.safetensors" in files
    evaluations = [r for r in read_metrics(trained / "training" / "metrics.jsonl") if "val_largest_top1" in r]
    assert [record["step"] for record in evaluations] == [7, 14]
    assert open_supernet(trained).settings == settings


def test_a_supernet_that_was_stopped_ends_like_one_that_was_not(
    trained, config, settings, tmp_path, monkeypatch
):
    path, real = tmp_path / "stopped", training.sandwich_step

    def step(state, batch, *rest, distillation):
        if batch.step == 4:
            signal.raise_signal(signal.SIGTERM)
        return real(state, batch, *rest, distillation=distillation)

    work = begun(path, config, settings)
    with monkeypatch.context() as patch, work.display(quiet=True):
        patch.setattr(training, "sandwich_step", step)
        with pytest.raises(InterruptedRunError) as caught:
            work.train()
    assert str(caught.value) == "stopped after step 5 of 14; the same command continues"
    again = begun(path, config, settings)
    with again.display(quiet=True):
        again.train()
    expected = tensors(SupernetWork(open_supernet(trained)))
    found = tensors(SupernetWork(open_supernet(path)))
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


def test_a_loss_that_is_not_finite_ends_the_training(config, settings, tmp_path, monkeypatch):
    real = training.sandwich_step

    def step(state, batch, *rest, distillation):
        if batch.step == 7:
            with torch.no_grad():
                state.model.classifier.bias.fill_(float("nan"))
        return real(state, batch, *rest, distillation=distillation)

    monkeypatch.setattr(training, "sandwich_step", step)
    work = begun(tmp_path / "nan", config, settings)
    with (
        work.display(quiet=True),
        pytest.raises(DivergedRunError, match="the loss is nan at step 7; a lower"),
    ):
        work.train()
    assert work.training.progress.step > 0


@pytest.fixture(scope="module")
def checked(trained) -> tuple[SupernetWork, checking.Check, Callable[[], int]]:
    """A check of five networks, and how many runs it made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "plot_schedule", lambda *_: None)
        patch.setattr(loop, "plot_learning_curve", lambda *_: None)
        work = SupernetWork(open_supernet(trained))
        with work.display(quiet=True):
            check = work.check(5, epochs=1.0)
    return work, check, lambda: len(list((trained / "alone").glob("*/config.toml")))


def test_a_check_trains_networks_alone_on_the_same_images(checked, trained):
    _, check, runs = checked
    assert runs() == 5
    assert len(check.networks) == 5
    assert check.alone == "1 epochs each"
    one = check.networks[0]
    alone = json.loads((trained / "alone" / f"{one.name}.json").read_text())
    assert alone["val_top1"] == one.alone
    splits = [
        json.loads((trained / folder / "split.json").read_text())
        for folder in ("training", f"alone/{one.name}")
    ]
    assert splits[0] == splits[1]
    assert json.loads((trained / "check.json").read_text())["supernet"]["tau"] == check.supernet.tau


def test_a_check_is_not_done_twice(checked, monkeypatch):
    work, check, _ = checked
    monkeypatch.setattr(checking, "start_or_resume_run", None)
    with work.display(quiet=True):
        again = work.check(5, epochs=1.0)
    assert again == check


def test_completed_trials_of_a_study_check_as_well(checked, space, tmp_path):
    work, before, _ = checked
    points = random_points(space, 6, seed=3)
    candidates = [Candidate(point=point, spec=spec_to_json(space.spec(point))) for point in points]
    other = replace(space.spec(points[0]), stem_channels=16)
    candidates.append(Candidate(point=(9,), spec=spec_to_json(other)))
    with Ledger.open(f"sqlite:///{tmp_path}/study.db", {}, {}) as ledger:
        ledger.queue(candidates)
        for number in range(7):
            trial = ledger.ask(lambda _history: candidates[0], "somebody")
            # The last but one failed, and the last one is of no network of the space.
            state = "failed" if number == 5 else "done"
            ledger.finish(trial, state, Measures(accuracy=0.1 * (number + 1)))
    with work.display(quiet=True):
        check = work.check_by_study(str(tmp_path))
    assert [one.alone for one in check.networks] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert [one.name for one in check.networks] == [space.spec(point).name for point in points[:5]]
    assert check.alone == f"trials of {tmp_path}"
    write_json(work.folder.check_path, before.to_dict())


def test_a_study_with_few_trials_checks_nothing(checked, tmp_path):
    work, _, _ = checked
    Ledger.open(f"sqlite:///{tmp_path}/study.db", {}, {}).close()
    with pytest.raises(UserError) as caught:
        work.check_by_study(str(tmp_path))
    assert str(caught.value) == (
        f"the study {tmp_path} has 0 completed trials of the space tiny; a ranking is checked with at least 5"
    )


def test_networks_trained_for_another_time_are_not_mixed_in(checked):
    work, _, _ = checked
    with (
        work.display(quiet=True),
        pytest.raises(UserError, match=r"train\.epochs is 1\.0 there and 2\.0 here"),
    ):
        work.check(5, epochs=2.0)


def test_a_ranking_is_by_accuracy_with_statistics_of_its_own(checked, trained, space, tmp_path):
    work, _, _ = checked
    given, chosen = tmp_path / "given.json", space.canonical((0,) * len(space.variables))
    given.write_text(spec_to_json(replace(space.spec(chosen), num_classes=1000)))
    with work.display(quiet=True):
        ranked = work.rank(6, [given])
        assert len(ranked) in {6, 7}
        assert [one.accuracy for one in ranked] == sorted((one.accuracy for one in ranked), reverse=True)
        best = ranked[0]
        state, yardstick = work.training.state, work._yardstick
        with state.ema.swapped_into(state.model):
            assert yardstick.accuracy(yardstick.calibrated(state.model, best.spec)) == best.accuracy
    assert chosen in [one.point for one in ranked]
    rows = json.loads((trained / "ranking.json").read_text())
    assert [row["name"] for row in rows] == [one.spec.name for one in ranked]
    assert rows[0]["macs"] == network_cost(best.spec, 16).macs
    assert rows[0]["params"] == sum(p.numel() for p in build_model(best.spec).parameters())


def test_the_best_are_specs_to_train(checked, trained, monkeypatch):
    work, _, _ = checked
    with work.display(quiet=True):
        work.rank(6)
        paths = work.write_best(2, believes=True)
    assert [path.parent for path in paths] == [trained / "best"] * 2
    rows = json.loads((trained / "ranking.json").read_text())
    assert [load_spec(str(path)).name for path in paths] == [row["name"] for row in rows[:2]]


def test_what_is_not_to_be_believed_is_not_written(checked):
    work, _, _ = checked
    check_path = work.folder.check_path
    before = check_path.read_text()
    agreement = Agreement(networks=20, tau=0.2, low=-0.1, high=0.5)
    check_path.write_text(json.dumps({"supernet": agreement.to_dict()}))
    with work.display(quiet=True), pytest.raises(UserError) as caught:
        work.write_best(2)
    assert str(caught.value) == (f"{agreement.verdict()}; --believe writes the networks nevertheless")
    check_path.unlink()
    assert work.verdict() == (
        "the ranking is unchecked, and NOT to be believed before: check it with --check 20"
    )
    check_path.write_text(before)


def test_of_equal_networks_the_smaller_one_is_first(space):
    points = random_points(space, 8, seed=0)
    assert len(set(points)) == 8
    ranked = in_order(
        Ranked(spec=space.spec(point), point=point, accuracy=0.5, image_size=16) for point in points
    )
    macs = [one.to_dict()["macs"] for one in ranked]
    assert macs == sorted(macs)
    assert random_points(space, 8, seed=0) == points
    assert random_points(space, 8, seed=1) != points


def test_another_space_or_recipe_is_refused(trained, config, settings):
    with pytest.raises(UserError) as caught:
        begin_supernet(trained, config, replace(settings, between=2))
    assert str(caught.value) == (
        f"the supernet in {trained} was begun with another between, see {trained}/supernet.json; give what "
        "it was begun with, or another folder with --out"
    )
    longer = replace(config, train=replace(config.train, epochs=9.0))
    with pytest.raises(UserError, match=r"train\.epochs is 3\.0 there and 9\.0 here"):
        begin_supernet(trained, longer, settings)


def test_a_folder_without_a_supernet_says_how_to_begin_one(tmp_path):
    with pytest.raises(UserError) as caught:
        open_supernet(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} holds no supernet; begin one with: effnet supernet DATA --space SPACE --out {tmp_path}"
    )


def test_weights_to_start_from_are_refused(config, settings, tmp_path, monkeypatch):
    config = replace(config, train=replace(config.train, head_epochs=1.0), model=ModelConfig())
    work = begun(tmp_path / "head", config, settings)
    with work.display(quiet=True), pytest.raises(UserError) as caught:
        work.train()
    assert str(caught.value) == (
        "a supernet is trained from nothing and as a whole, so that train.head_epochs cannot be set"
    )


def test_without_images_held_out_nothing_can_be_compared(config, settings, tmp_path):
    data = replace(config.data, minival_fraction=0.0)
    with pytest.raises(UserError) as caught:
        begin_supernet(tmp_path / "none", replace(config, data=data), settings)
    assert str(caught.value) == (
        "networks are compared on images held out of those to train on; set data.minival_fraction, such as "
        "to 0.1, or take the recipe search"
    )
