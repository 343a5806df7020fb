import json
from dataclasses import replace

import pytest

from effnet.arch import network_cost
from effnet.errors import UserError
from effnet.reporting.facts import Evaluation, NetworkFacts, SplitFacts, read_runs
from effnet.reporting.missing import Missing
from effnet.training.journal import read_metrics
from effnet.weights import load_weights
from effnet.weights.storage import read_metadata


def test_a_finished_run_says_what_it_is(finished):
    (facts,) = read_runs([finished])
    weights = load_weights(str(finished / "checkpoints" / "best.safetensors"))
    assert isinstance(facts.network, NetworkFacts)
    assert isinstance(facts.split, SplitFacts)
    assert facts.network.params == sum(
        value.numel() for name, value in weights.state.items() if _trained(name)
    )
    assert facts.network.image_size == 16
    assert facts.network.macs == network_cost(weights.spec, 16).macs
    assert facts.split.class_names == weights.class_names
    assert (facts.split.train_images, facts.split.val_images) == (18, 6)
    assert facts.is_finished
    assert facts.status == f"finished after {facts.step} steps"
    assert facts.name == "finished"


def _trained(name):
    return not name.endswith(("running_mean", "running_var", "num_batches_tracked", "rate"))


def test_the_best_evaluation_is_the_one_whose_weights_are_kept(finished):
    (facts,) = read_runs([finished])
    kept = read_metadata(finished / "checkpoints" / "best.safetensors")["provenance"]
    assert facts.best is not None
    assert kept == f"effnet, step {facts.best.step} of {facts.step}"
    found = [
        record["val_top1"] for record in read_metrics(finished / "metrics.jsonl") if "val_top1" in record
    ]
    assert [evaluation.top1 for evaluation in facts.evaluations] == found
    assert facts.best.top1 == max(found)


def test_of_equal_evaluations_the_later_ones_weights_are_kept(finished):
    (facts,) = read_runs([finished])
    times = [
        Evaluation(step=step, epoch=1.0, top1=top1, loss=1.0) for step, top1 in ((1, 0.5), (2, 0.5), (3, 0.4))
    ]
    assert replace(facts, evaluations=tuple(times)).best == times[1]


def test_an_unfinished_run_says_how_far_it_is(unfinished):
    (facts,) = read_runs([unfinished])
    assert not facts.is_finished
    assert facts.best is None
    assert not facts.has_weights
    assert (
        facts.status == f"not finished: {facts.step} of {facts.schedule.total_steps} steps are in its journal"
    )


def test_a_run_whose_network_is_gone_is_known_by_its_weights(finished, copy, unfinished):
    for run in (copy(finished), unfinished):
        text = (run / "config.toml").read_text()
        (run / "config.toml").write_text(text.replace("tiny.json", "gone.json"))
    known, unknown = read_runs([unfinished.parent / "copy", unfinished])
    assert known.network.name == "tiny"
    assert "gone.json" in unknown.network.reason


def test_what_is_damaged_or_absent_is_missing_and_no_error(finished, copy):
    run = copy(finished)
    (run / "split.json").write_text("{")
    (run / "environment.json").unlink()
    (facts,) = read_runs([run])
    assert facts.split == Missing(
        f"{run / 'split.json'} is damaged, so how many images there were is not known"
    )
    assert facts.schedule == Missing(facts.split.reason)
    assert facts.environment == {}
    assert facts.stages == ()
    assert facts.images_per_second is None
    (run / "split.json").unlink()
    assert "is not there" in read_runs([run])[0].split.reason


def test_runs_of_the_same_name_are_called_by_their_path(finished, copy, tmp_path):
    (tmp_path / "other").mkdir()
    paths = [copy(finished, "run"), copy(finished, "other/run"), copy(finished, "third")]
    assert [facts.name for facts in read_runs(paths)] == [str(paths[0]), str(paths[1]), "third"]


def test_a_run_given_twice_is_refused(finished):
    with pytest.raises(UserError, match="finished is given twice; give each run once"):
        read_runs([finished, finished.parent / "." / "finished"])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        read_runs([tmp_path])


def test_a_run_that_stopped_early_is_finished(finished, copy):
    run = copy(finished)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    last = max(number for number, line in enumerate(lines[:-1]) if "val_top1" in json.loads(line))
    kept = [*lines[:last], json.dumps(json.loads(lines[last]) | {"stopped_early": True})]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    (facts,) = read_runs([run])
    assert facts.is_finished
    assert facts.status == f"stopped early after {facts.step} steps, as it no longer improved"
