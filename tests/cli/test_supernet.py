"""``effnet supernet``."""

from __future__ import annotations

import json

import pytest

from effnet.training import loop

SPACE = """
name = "tiny"
backbone = "{network}"
[[rules]]
operation = ["mbconv", "fused_mbconv"]
kernel_size = [3, 5]
repeats = [1, 2]
"""


@pytest.fixture(scope="module")
def space(workspace) -> str:
    path = workspace / "space.toml"
    path.write_text(SPACE.format(network=workspace / "tiny.json"))
    return str(path)


@pytest.fixture
def no_plots(monkeypatch) -> None:
    """They take longer than the training."""
    monkeypatch.setattr(loop, "plot_schedule", lambda *_: None)
    monkeypatch.setattr(loop, "plot_learning_curve", lambda *_: None)


@pytest.mark.usefixtures("no_plots")
def test_a_supernet_is_trained_checked_and_ranks(effnet, photos, recipe, space, tmp_path):
    out = tmp_path / "supernet"
    begin = (
        "supernet",
        photos,
        "--space",
        space,
        "--recipe",
        recipe,
        "--out",
        out,
        "--quiet",
    )
    answer = effnet(
        *begin,
        "--set",
        "train.epochs=1",
        "--set",
        "data.workers=1",
        "--set",
        "data.minival_fraction=0.3",
        "--rank",
        "8",
    )
    assert answer.code == 0
    assert "the supernet is trained" in answer.out
    assert "the ranking is unchecked, and NOT to be believed before: check it with --check 20" in answer.out
    assert (out / "ranking.json").is_file()

    answer = effnet("supernet", "--out", out, "--check", "5", "--check-epochs", "1", "--quiet")
    assert answer.code == 0
    assert "for comparison, by multiply-adds: tau" in answer.out
    assert "Kendall tau" in answer.out

    options = ("--best", "2", "--believe", "--quiet", "--json")
    answer = effnet("supernet", "--out", out, "--rank", "4", *options)
    said = json.loads(answer.out)
    assert len(said["ranking"]) == 4
    assert said["believed"] in {True, False}
    assert len(said["best"]) == 2
    assert effnet("models", said["best"][0]).code == 0


def test_what_cannot_be_is_refused_in_one_sentence(mistake, photos, tmp_path):
    assert mistake("supernet", photos, "--out", tmp_path / "new") == (
        "effnet: name the space with --space: one of small, v1, v2, or a file\n"
    )
    assert "effnet: --space and --set begin a supernet on DATA" in mistake(
        "supernet", "--space", "small", "--out", tmp_path / "new"
    )
    assert "holds no supernet; begin one with" in mistake("supernet", "--out", tmp_path / "new")
