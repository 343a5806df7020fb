import json
import re

import pytest


def _run(effnet, photos, *options):
    return effnet("bench", "input", photos, "--size", "8", "--rounds", "1", "--quiet", *options)


def test_the_table_compares_with_timm(effnet, photos):
    answer = _run(effnet, photos, "--prepare", "--randaugment")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith("9 photos of ")
    titles = [line for line in lines if "images/s/core" in line]
    assert [title.split("  ")[0] for title in titles] == [
        f"{task}, 8 px" for task in ("crop", "crop and RandAugment", "RandAugment alone")
    ]
    assert "of 65 MB/s" in titles[0]
    assert "of 65 MB/s" not in titles[2]
    (baseline, *_), (stored, *_) = (
        [line.split() for line in lines if line.startswith(name)]
        for name in ("timm: Pillow, bicubic", "effnet: 10 epochs from the store")
    )
    assert baseline[7] == "1.00"
    assert float(stored[6]) > 0


def test_json_has_all_figures_and_where_they_are_from(effnet, photos, tmp_path):
    answer = _run(effnet, photos, "--json", "--out", tmp_path / "figures.json")
    values = json.loads(answer.out)
    assert values["environment"]["command"][1:3] == ["bench", "input"]
    assert values["environment"]["cpu_model"]
    assert (values["images"], values["rounds"]) == (9, 1)
    row = values["rows"][0]
    assert (row["method"], row["image_size"], row["ratio"]) == ("timm: Pillow, bicubic", 8, 1.0)
    assert {missing["method"] for missing in values["missing"]} >= {"effnet: 10 epochs from the store"}
    assert json.loads((tmp_path / "figures.json").read_text()) == values


def test_what_is_measured_is_announced(effnet, photos):
    answer = effnet("bench", "input", photos, "--size", "8,8,9", "--rounds", "1", "--images", "2")
    assert answer.err.splitlines() == ["measuring: crop, 8 px", "measuring: crop, 9 px"]


@pytest.mark.parametrize("size", ["", "big", "0", "128,,192", "4096", "1.5"])
def test_sizes_are_numbers_of_pixels(mistake, photos, size):
    message = mistake("bench", "input", photos, "--size", size)
    assert f"--size is '{size}'; give image sizes from 1 to 2048 pixels, as 128,192,300" in message


def test_mistakes_are_named(mistake, photos, tmp_path):
    assert "'nowhere' does not exist" in mistake("bench", "input", "nowhere", "--quiet")
    assert "give one of them" in mistake("bench", "input", photos, "--store", photos, "--prepare")
    assert "no prepared store" in mistake("bench", "input", photos, "--store", photos)
    out = tmp_path / "no" / "figures.json"
    assert f"--out '{out}'" in mistake("bench", "input", photos, "--out", out)


def test_a_family_is_drawn_and_told(effnet, finished, tmp_path, mistake):
    out = tmp_path / "family"
    answer = effnet("bench", "family", finished, "--rounds", "1", "--device", "cpu", "--out", out, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^finished +tiny +photos: 3 classes, .* from scratch ", answer.out, re.MULTILINE)
    assert answer.out.endswith(f"pictures and numbers: {out}/family.png, .svg, .json, .md\n")
    assert {path.name for path in out.iterdir()} == {
        f"family.{kind}" for kind in ("png", "svg", "json", "md")
    }
    assert [run["name"] for run in json.loads((out / "family.json").read_text())["runs"]] == ["finished"]
    assert "no published accuracy" in mistake("bench", "family", "--measure", "v9", "--out", out)
    (tmp_path / "file").touch()
    assert "is a file; give a folder" in mistake("bench", "family", "--out", tmp_path / "file")
