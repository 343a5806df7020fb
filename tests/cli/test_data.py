import json
import re
from pathlib import Path

import pytest

from effnet.data import encoding_choice
from effnet.data.sources import open_data


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def store(effnet, photos, tmp_path):
    """The photos with copies of 12 and 20 px."""
    answer = effnet(
        "data", "prepare", photos, "--out", tmp_path / "store", "--short-sides", "20,12", "--quiet"
    )
    assert answer.code == 0
    return tmp_path / "store"


# Preparing


def test_a_store_is_prepared_and_can_be_opened(effnet, photos, tmp_path):
    answer = effnet("data", "prepare", photos, "--out", tmp_path / "store", "--short-sides", "12,20")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].split() == ["short", "side", "size", "an", "image"]
    assert [line.split()[:2] for line in lines[1:3]] == [["12", "px"], ["20", "px"]]
    assert re.fullmatch(rf"18 images take 0 MB as pixels in {tmp_path}/store", lines[4])
    assert re.fullmatch(
        r"18 images were read in [\d.]+ s, \d+ a second; all were predicted to take 0 MB and [\d.]+ s",
        lines[5],
    )
    assert len(lines) == 6
    data = open_data(str(tmp_path / "store"), val_fraction=0.5, split_seed=0)
    assert data.class_names == ("blue", "green", "red")


def test_sizes_are_the_recipes(effnet, photos, recipe, tmp_path):
    answer = effnet("data", "prepare", photos, "--out", tmp_path / "store", "--recipe", recipe, "--json")
    # 8 and 16 px in training, and at evaluation the middle 16 of 48 px.
    assert list(json.loads(answer.out)["level_bytes"]) == ["16", "24", "48"]
    changed = effnet(
        "data",
        "prepare",
        photos,
        "--dry-run",
        "--recipe",
        recipe,
        "--set",
        "evaluate.image_size=64",
        "--json",
    )
    assert list(json.loads(changed.out)["level_bytes"]) == ["16", "24", "80"]


def test_a_result_is_one_document(effnet, photos, store):
    answer = effnet(
        "data", "prepare", photos, "--out", store, "--short-sides", "12,20", "--json", "--workers", "1"
    )
    result = json.loads(answer.out)
    assert (result["path"], result["images"], result["bad_images"]) == (str(store), {"train": 18}, 0)
    assert (result["made"], result["prediction"]) == (0, None)
    assert result["bytes"] == sum(result["level_bytes"].values())


def test_a_dry_run_predicts_and_writes_nothing(effnet, photos, tmp_path):
    answer = effnet(
        "data", "prepare", photos, "--dry-run", "--short-sides", "12", "--out", tmp_path / "store"
    )
    assert answer.code == 0
    assert re.search(r"^18 images would take 0 MB as pixels and [\d.]+ s$", answer.out, re.MULTILINE)
    document = json.loads(effnet("data", "prepare", photos, "--dry-run", "--short-sides", "12", "--json").out)
    assert document["images"] == 18
    assert document["bytes"] == document["level_bytes"]["12"] > 18 * 300
    assert not list(tmp_path.iterdir())


def test_raw_copies_quality_and_chroma_are_options(effnet, photos, tmp_path):
    options = ("--short-sides", "12", "--chroma", "444", "--quality", "77")
    effnet("data", "prepare", photos, "--out", tmp_path / "jpeg", *options)
    effnet("data", "prepare", photos, "--out", tmp_path / "raw", "--encoding", "raw", "--short-sides", "12")
    jpeg, raw = (json.loads((tmp_path / name / "store.json").read_text()) for name in ("jpeg", "raw"))
    assert (jpeg["encoding"], jpeg["chroma"], jpeg["quality"]) == ("jpeg", "444", 77)
    assert raw["encoding"] == "raw"


def test_pixels_are_kept_where_they_are_few(effnet, photos, tmp_path, monkeypatch):
    command = ("data", "prepare", photos, "--short-sides", "12", "--json", "--out")
    few = json.loads(effnet(*command, tmp_path / "few").out)
    pixels = encoding_choice.pixel_bytes([_images(photos)], (12,))
    assert few["encoding"] == "raw"
    assert pixels < few["bytes"] < 1.5 * pixels
    monkeypatch.setattr(encoding_choice, "MOST_PIXEL_BYTES", pixels - 1)
    assert json.loads(effnet(*command, tmp_path / "many").out)["encoding"] == "jpeg"
    # What was begun goes on as it was.
    assert json.loads(effnet(*command, tmp_path / "few").out)["encoding"] == "raw"


def _images(photos):
    return open_data(str(photos), val_fraction=0.0, split_seed=0).train


def test_what_is_said_of_jpeg_is_not_of_pixels(effnet, photos, tmp_path):
    command = (
        "data",
        "prepare",
        photos,
        "--out",
        tmp_path / "store",
        "--short-sides",
        "12",
        "--quality",
        "77",
    )
    answer = effnet(*command, "--encoding", "raw")
    assert answer.code == 2
    assert "--quality and --chroma are of JPEG copies" in answer.err
    assert not (tmp_path / "store").exists()


def test_unreadable_images_are_counted(effnet, photos, tmp_path):
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "photos" / "blue").symlink_to(photos / "blue")
    (tmp_path / "photos" / "red" / "bad.png").write_bytes(b"")
    command = ("data", "prepare", tmp_path / "photos", "--out", tmp_path / "store", "--short-sides", "12")
    answer = effnet(*command)
    assert (answer.code, answer.out) == (2, "")
    assert "1 images cannot be read, more than --max-bad-fraction allows" in answer.err
    assert "the first is red/bad.png: the file is empty" in answer.err
    answer = effnet(*command, "--max-bad-fraction", "0.5")
    assert answer.code == 0
    assert answer.out.endswith(f"1 unreadable images are left out, see {tmp_path}/store/bad-images.jsonl\n")


def test_a_network_is_evaluated_on_a_store(effnet, finished, store):
    answer = effnet("evaluate", finished, store, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out)["images"] == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give the folder of the store with --out, or --dry-run to write nothing"),
        (
            ("--out", "store", "--short-sides", "a"),
            "--short-sides is 'a'; give 'auto' or pixels, as 160,240,320",
        ),
        (("--out", "store", "--short-sides", "0,12"), "--short-sides is '0,12'; give 'auto' or"),
        (
            ("--out", "store", "--short-sides", "12", "--model", "v2-s"),
            "choose the sizes; give them or --short",
        ),
        (("--out", "store", "--quality", "0"), "--quality"),
        (("--out", "store", "--chroma", "411"), "--chroma"),
        (("--out", "store", "--recipe", "none"), "none"),
    ],
)
def test_mistakes_are_told(mistake, photos, options, message):
    assert message in mistake("data", "prepare", photos, *options)
    assert not Path("store").exists()


def test_the_group_lists_its_commands(effnet):
    answer = effnet("data", "--help")
    assert all(name in answer.out for name in ("prepare", "verify", "check", "show"))


# Verifying


def test_a_whole_store_is_said_to_be_whole(effnet, store):
    assert effnet("data", "verify", store).out == f"{store} is whole\n"
    assert json.loads(effnet("data", "verify", store, "--json").out) == {"path": str(store), "damaged": []}


def test_damage_is_listed_and_fails(effnet, photos, store):
    (store / "train-00000-12.arrow").unlink()
    answer = effnet("data", "verify", store)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.splitlines() == [
        "train-00000-12.arrow: No such file or directory",
        f"effnet: {store} is damaged; delete the files that are named and give the command that prepared it "
        "again",
    ]
    document = json.loads(effnet("data", "verify", store, "--json").out)
    assert document["damaged"] == [{"name": "train-00000-12.arrow", "reason": "No such file or directory"}]
    effnet("data", "prepare", photos, "--out", store, "--short-sides", "12,20")
    assert effnet("data", "verify", store).code == 0


def test_a_folder_that_is_no_store_is_told(mistake, photos, tmp_path):
    assert "is not prepared to its end" in mistake("data", "verify", tmp_path)
