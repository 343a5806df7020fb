"""Reports: the order of candidates, the front, what the best share, and the files, read back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from effnet.arch import NetworkSpec, StageSpec, load_spec, spec_to_json
from effnet.search.bounds import count
from effnet.search.leaderboard import cells, columns, to_markdown, write_report
from effnet.search.measures import Measures
from effnet.search.objective import objective_from_text
from effnet.search.records import Rung, Trial
from effnet.search.report import build_report
from effnet.search.rules import SpaceRules, StageRule, apply_rules
from effnet.search.shared import most_common

STAGE = StageSpec(
    operation="mbconv", kernel_size=3, stride=2, expand_ratio=4, channels=16, repeats=1, se_ratio=0.25
)
BACKBONE = NetworkSpec(
    name="tiny",
    stages=(STAGE, replace(STAGE, stride=1, channels=24)),
    stem_channels=8,
    head_channels=32,
    image_size=32,
    train_size=32,
    num_classes=10,
)
RULE = StageRule(operation=("fused_mbconv", "conv"), kernel_size=(3, 5), more_repeats=(0, 1))
SPACE = apply_rules(SpaceRules(name="tiny", backbone="unused", rules=(RULE,), drop_last=True), BACKBONE)


def network(*stages):
    """Each stage as operation, kernel and repeats."""
    found = []
    for row, (operation, kernel, repeats) in zip(BACKBONE.stages, stages, strict=False):
        expand, squeeze = (1, 0.0) if operation == "conv" else (4, 0.25 if operation == "mbconv" else 0.0)
        found.append(
            replace(
                row,
                operation=operation,
                kernel_size=kernel,
                repeats=repeats,
                expand_ratio=expand,
                se_ratio=squeeze,
            )
        )
    return replace(BACKBONE, stages=tuple(found))


def trial(number, spec, accuracy=None, step_ms=10.0, *ending, **measured):
    state, reason = (*ending, "")[:2] if ending else ("done", "")
    point = SPACE.point(spec)
    return Trial(
        number=number,
        point=point,
        spec=spec_to_json(SPACE.spec(point)),
        state=state,
        tries=1,
        owner="worker",
        claim="claim",
        lease_until=None,
        measures=replace(count(spec, 32), accuracy=accuracy, step_ms=step_ms, **measured),
        reason=reason,
        rungs=(Rung(epochs=1.0, accuracy=0.2),),
        seconds=36.0,
        asked_at=0.0,
        started_at=0.0,
        ended_at=36.0,
    )


FUSED_FIRST = network(("fused_mbconv", 3, 1), ("mbconv", 5, 2))
FUSED_BOTH = network(("fused_mbconv", 3, 2), ("fused_mbconv", 3, 1))
LARGE = network(("mbconv", 5, 2), ("mbconv", 5, 2))
SHORT = network(("conv", 3, 1))
TRIALS = (
    trial(0, BACKBONE, 0.50, 10.0),
    trial(1, FUSED_FIRST, 0.60, 12.0),
    trial(2, FUSED_BOTH, 0.55, 9.0),
    trial(3, LARGE, 0.40, 40.0),
    trial(4, SHORT, None, 5.0, "stopped", "no. 4 of 4 after 1 epochs"),
    trial(5, network(("mbconv", 5, 1), ("mbconv", 3, 1)), None, 10.0, "failed", "out of memory"),
    trial(6, network(("mbconv", 3, 2), ("mbconv", 3, 1)), None, 10.0, "failed", "out of memory"),
    trial(7, network(("mbconv", 3, 1), ("mbconv", 3, 2)), None, None, "running"),
)


def report(text="v2:v=0", trials=TRIALS):
    return build_report(trials, SPACE, objective_from_text(text), study="study.db")


def numbers(entries):
    return [entry.trial.number for entry in entries]


def test_candidates_are_in_the_order_of_their_rewards():
    found = report()
    # A * S ** -0.07: 0.6 / 12 ** 0.07 = 0.504, 0.55 / 9 ** 0.07 = 0.472, 0.5 / 10 ** 0.07 = 0.426, 0.309.
    assert numbers(found.entries) == [1, 2, 0, 3]
    assert [entry.reward for entry in found.entries] == pytest.approx(
        [0.5042, 0.4716, 0.4256, 0.3090], abs=1e-4
    )
    assert [entry.rank for entry in found.entries] == [1, 2, 3, 4]
    assert found.winner is found.entries[0]


def test_equal_rewards_are_in_the_order_of_asking():
    twice = (trial(0, LARGE, 0.5, 10.0), trial(1, FUSED_BOTH, 0.5, 10.0))
    assert numbers(report(trials=twice).entries) == [0, 1]
    assert numbers(report(trials=twice[::-1]).entries) == [0, 1]


def test_another_objective_changes_the_order_alone():
    assert numbers(report("v2:w=-2,v=0").entries) == [2, 0, 1, 3]


def test_only_what_was_trained_to_the_end_is_ranked_and_all_is_counted():
    found = report()
    assert found.states == {"done": 4, "stopped": 1, "failed": 2, "running": 1}
    assert found.reasons == [("failed", "out of memory", 2), ("stopped", "no. 4 of 4 after 1 epochs", 1)]
    data = found.to_dict()
    assert [row["number"] for row in data["leaderboard"]] == [1, 2, 0, 3]
    assert sorted(row["number"] for row in data["not_complete"]) == [4, 5, 6, 7]


def test_reasons_that_differ_in_numbers_alone_are_one():
    network_of = [network(("mbconv", 3, 1), ("mbconv", 5, repeats)) for repeats in (1, 2)]
    trials = [
        trial(number, network_of[number], None, 10.0, "stopped", f"with {accuracy} it was 3rd of {number}")
        for number, accuracy in enumerate(("35.5%", "34.81%"))
    ]
    assert report(trials=tuple(trials)).reasons == [("stopped", "with 35.5% it was 3rd of 0", 2)]


def test_a_candidate_without_a_measure_that_the_objective_needs_is_not_ranked():
    assert report("latency").entries == ()
    assert numbers(report("latency", (*TRIALS[1:], trial(8, BACKBONE, 0.5, latency_ms=3.0))).entries) == [8]


def test_the_backbone_is_known_among_all():
    assert report().backbone.trial.number == 0
    assert report(trials=TRIALS[1:]).backbone is None


def test_on_a_front_nothing_is_better_in_all():
    found = report("pareto:accuracy,step_ms")
    assert numbers(found.front) == [1, 2]
    assert numbers(found.entries) == [1, 2, 0, 3]
    assert all(entry.reward is None for entry in found.entries)
    assert numbers(found.best) == [1, 2]


def test_the_winner_of_a_front_is_nearest_to_the_best_of_every_goal():
    trials = (trial(0, BACKBONE, 0.60, 40.0), trial(1, LARGE, 0.58, 12.0), trial(2, FUSED_BOTH, 0.30, 10.0))
    assert report("pareto:accuracy,step_ms", trials).winner.trial.number == 1


def test_the_volume_beyond_the_backbone_is_that_of_logarithms():
    trials = (trial(0, BACKBONE, 0.50, 10.0), trial(1, LARGE, 0.55, 8.0))
    found = report("pareto:accuracy,step_ms", trials)
    assert found.volume_beyond_backbone == pytest.approx(0.0953102 * 0.2231436, rel=1e-5)
    assert report("pareto:accuracy,step_ms", trials[1:]).volume_beyond_backbone is None
    assert report().volume_beyond_backbone is None


def test_shares_are_counted_by_hand():
    shares = {(share.stage, share.field, share.value): share for share in report().shared}
    # The best three of four are 1, 2 and 0; tried are those four and the stopped one.
    fused = shares[1, "operation", "fused_mbconv"]
    assert (fused.best, fused.tried, fused.in_winner) == (pytest.approx(2 / 3), pytest.approx(2 / 5), True)
    kernel = shares[2, "kernel_size", 5]
    assert (kernel.best, kernel.tried, kernel.in_winner) == (pytest.approx(1 / 3), pytest.approx(2 / 5), True)
    dropped = shares[2, "repeats", 0]
    assert (dropped.best, dropped.tried, dropped.in_winner) == (0.0, pytest.approx(1 / 5), False)


def test_what_most_of_the_best_have_is_one_value_a_place():
    common = {(share.stage, share.field): share.value for share in most_common(report().shared)}
    assert common[1, "operation"] == "fused_mbconv"
    assert common[2, "operation"] == "mbconv"
    assert common[2, "kernel_size"] == 3
    assert set(common) == {
        (stage, field) for stage in (1, 2) for field in ("operation", "kernel_size", "repeats")
    }


def test_all_files_are_written_and_can_be_read_back(tmp_path):
    found = report()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "best.json").write_text("of an earlier report")
    written = write_report(found, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "best.json", "leaderboard.json", "leaderboard.md", "pareto.png", "shared.png",
    ]  # fmt: skip
    assert load_spec(str(written["best"])) == found.winner.spec
    data = json.loads(written["json"].read_text())
    assert data == json.loads(json.dumps(found.to_dict()))
    assert data["winner"] == 1
    for name in ("pareto", "shared"):
        with Image.open(written[name]) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 300


@pytest.mark.parametrize("text", ["absolute:target=10", "pareto:step_ms,params"])
def test_every_objective_has_pictures(tmp_path, text):
    assert {"pareto", "shared", "best"} <= set(write_report(report(text), tmp_path))


def test_where_accuracy_alone_counts_the_front_is_of_the_parameters_as_well(tmp_path):
    found = report("accuracy")
    smaller = [entry for entry in found.entries if entry.measures.params < found.winner.measures.params]
    assert numbers(found.entries) == [1, 2, 0, 3]
    assert [entry.on_front for entry in found.entries] == [
        all(entry.measures.params < other.measures.params for other in found.entries[:index])
        for index, entry in enumerate(found.entries)
    ]
    assert smaller
    assert "better in one of top-1, parameters and worse in none" in to_markdown(found)
    assert "pareto" in write_report(found, tmp_path)


def test_a_study_without_a_trained_candidate_has_leaderboards_that_say_so(tmp_path):
    written = write_report(report(trials=TRIALS[4:]), tmp_path)
    assert set(written) == {"leaderboard", "json"}
    text = written["leaderboard"].read_text()
    assert "No candidate has been trained to the end yet." in text
    assert "- 2 failed, such as: out of memory" in text
    assert write_report(report(trials=()), tmp_path)["json"].is_file()


def test_a_space_of_one_network_has_no_picture_of_shares(tmp_path):
    space = apply_rules(SpaceRules(name="one", backbone="unused"), BACKBONE)
    found = build_report(TRIALS[:1], space, objective_from_text("v2"), study="study.db")
    assert set(write_report(found, tmp_path)) == {"leaderboard", "json", "best", "pareto"}


def test_the_table_has_the_first_and_the_backbone_wherever_it_stands():
    found = report()
    assert columns(found)[:7] == ("rank", "trial", "network", "reward", "top-1", "step, ms", "parameters")
    rows = cells(found, 1)
    assert [row[1] for row in rows] == ["1", "0"]
    assert rows[0][3:6] == ("0.5042", "60.00%", "12")
    assert (rows[0][-1], rows[1][-1]) == ("best, front", "front, backbone")


def test_the_markdown_says_what_was_searched_and_what_came_of_it():
    text = to_markdown(report())
    assert "Study `study.db`, objective `v2:v=0.0`; 156 networks in the space." in text
    assert "8 candidates: 4 complete, 1 stopped early, 2 failed, 1 running; 0.08 hours of trials." in text
    assert "| 1 | fused_mbconv: 67% (40%) |" in text
    assert "effnet train DATA --model best.json" in text
    assert "backbone itself was not trained" not in text
    assert "backbone itself was not trained" in to_markdown(report(trials=TRIALS[1:]))


def test_measures_of_all_are_printed_even_where_the_objective_needs_them_not():
    assert "multiply-adds" in columns(report())
    assert "memory, MiB" not in columns(report())
    with_memory = tuple(
        replace(each, measures=replace(each.measures or Measures(), memory_mb=100.0)) for each in TRIALS
    )
    assert "memory, MiB" in columns(report(trials=with_memory))
