import json
import re
import subprocess
import sys

import pytest

import effnet as package
from effnet.recipes import recipe_names, recipe_text


def test_the_version_is_the_packages(effnet):
    answer = effnet("--version")
    assert (answer.code, answer.out) == (0, f"effnet {package.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], *([c, "--help"] for c in ("models", "plan", "train"))])
def test_help_is_no_mistake(effnet, arguments):
    answer = effnet(*arguments)
    assert answer.code == 0
    assert "Usage: " in answer.out


# Parameters and multiply-adds as torchvision states them, parameters with statistics as Keras counts them
# (V1 without the seven numbers of its normalization layer); statistics of the last three as in timm.
GOLDEN = {
    "v1-b0": (5_288_548, 5_330_564, 224, 0.386e9),
    "v1-b7": (66_347_960, 66_658_680, 600, 37.75e9),
    "v2-b0": (7_139_704, 7_200_312, 224, 0.72e9),
    "v2-s": (21_458_488, 21_612_360, 384, 8.366e9),
    "v2-m": (54_139_356, 54_431_388, 480, 24.582e9),
    "v2-l": (118_515_272, 119_027_848, 480, 56.08e9),
    "mobilenet-v1": (4_231_976, 4_231_976 + 21_888, 224, 0.569e9),
    "mobilenet-v2": (3_504_872, 3_504_872 + 34_112, 224, 0.301e9),
    "resnet-50": (25_557_032, 25_557_032 + 53_120, 224, 4.089e9),
}


def test_models_as_json(effnet):
    answer = effnet("models", "--json")
    rows = {row["name"]: row for row in json.loads(answer.out)}
    assert (answer.code, answer.err) == (0, "")
    assert len(rows) >= 25
    for name, (params, with_stats, size, macs) in GOLDEN.items():
        row = rows[name]
        assert (row["params"], row["params_with_bn_stats"], row["image_size"]) == (params, with_stats, size)
        assert row["macs"] == pytest.approx(macs, rel=0.01)


def test_models_at_another_size(effnet):
    (row,) = json.loads(effnet("models", "v2-s", "--size", "320", "--json").out)
    assert (row["image_size"], row["params"]) == (320, 21_458_488)
    assert row["macs"] == pytest.approx(8.366e9 * (320 / 384) ** 2, rel=0.001)


def test_models_for_people(effnet):
    answer = effnet("models")
    assert answer.code == 0
    assert re.search(r"^v2-s +21\.46 M +384 px +8\.37 G", answer.out, re.MULTILINE)


def test_one_model_shows_its_stages(effnet):
    out = effnet("models", "v2-s").out
    assert re.search(r"^4 mbconv +3 x 3 +2 +4 +128 +6 +0\.25$", out, re.MULTILINE)


def test_a_small_network_of_a_file_shows_what_it_is(effnet, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(
        effnet("models", "v2-b0.stride8", "--spec").out.replace('"residual": true', '"residual": false')
    )
    out = effnet("models", path, "--size", "8").out
    assert re.search(r"^v2-b0\.stride8 +7\.14 M +8 px +[0-9]+\.[0-9] M ", out, re.MULTILINE)
    assert re.search(r"^4 mbconv, no skip +3 x 3 ", out, re.MULTILINE)


def test_a_network_without_a_head_says_so(effnet):
    out = effnet("models", "resnet-50").out
    assert re.search(r"^2 bottleneck +3 x 3 +2 +4 +512 +4 +0$", out, re.MULTILINE)
    assert "stem 64 of 7 x 7, pooled, no head; relu, symmetric padding" in out
    assert "stem 24, head 1280 channels; silu, same padding" in effnet("models", "v2-s").out


def test_a_spec_can_be_written_edited_and_used(effnet, tmp_path):
    text = effnet("models", "v2-b0", "--spec").out
    path = tmp_path / "mine.json"
    path.write_text(text)
    (row,) = json.loads(effnet("models", path, "--json").out)
    assert row["params"] == GOLDEN["v2-b0"][0]
    path.write_text(text.replace('"repeats": 8', '"repeats": 9'))
    (deeper,) = json.loads(effnet("models", path, "--json").out)
    assert deeper["blocks"] == row["blocks"] + 1


WITHOUT_TORCH = """
import sys
from effnet.cli.main import main
try:
    main()
finally:
    heavy = {"torch", "matplotlib", "cv2", "sklearn", "pyarrow"} & sys.modules.keys()
    print("imported:", *sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["models"], ["recipes"], ["recipes", "demo"]])
def test_looking_does_not_import_torch(arguments):
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == "imported:\n"


@pytest.mark.parametrize("command", [["models"], ["models", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about(command):
    code = "from effnet.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(timeout=60)


# Mistakes


def test_a_network_that_is_unknown_is_named_with_the_nearest(mistake):
    assert "unknown network 'v2-ss'; did you mean 'v2-s'?" in mistake("models", "v2-ss")


def test_a_file_that_is_no_json_is_told(mistake, tmp_path):
    (tmp_path / "half.json").write_text('{"name": ')
    assert "half.json is not JSON" in mistake("models", tmp_path / "half.json")
    assert "cannot read the network" in mistake("models", tmp_path / "gone.json")


def test_a_misspelt_key_of_a_spec_is_named_with_the_nearest(mistake, effnet, tmp_path):
    text = effnet("models", "v2-b0", "--spec").out
    path = tmp_path / "mine.json"
    path.write_text(text.replace('"channels": 16', '"chanels": 16'))
    assert "unknown key 'stages[0].chanels'" in mistake("models", path)


def test_only_one_spec_can_be_printed(mistake):
    assert "name one" in mistake("models", "v2-s", "v2-m", "--spec")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["models", "--jsn"], "--jsn"),
        (["modles"], "modles"),
        (["models", "--size", "0"], "--size"),
        (["models", "--size", "large"], "--size"),
        (["predict"], "RUN"),
        (["train", "a", "b"], "b"),
        (["export", "a", "--out", "b", "--to", "keras"], "keras"),
    ],
)
def test_a_command_line_that_is_wrong_is_answered_in_one_sentence(mistake, arguments, word):
    assert word in mistake(*arguments)


# Recipes


def test_recipes_are_listed_with_what_they_are(effnet):
    lines = effnet("recipes").out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(listed) == recipe_names()
    assert all(len(line.split()) > 3 for line in lines)
    assert lines[0] == "your own images, and a first try:"
    document = json.loads(effnet("recipes", "--json").out)
    assert [entry["name"] for entry in document] == listed
    assert document[0]["group"] == "your own images, and a first try"


def test_a_recipe_is_shown_as_it_is_written(effnet):
    assert effnet("recipes", "v2-s.paper").out == recipe_text("v2-s.paper")


@pytest.mark.parametrize("name", ["demo", "v2-m.paper"])
def test_a_copied_recipe_can_be_used_as_it_is(effnet, name, tmp_path):
    path = tmp_path / "mine.toml"
    assert effnet("recipes", name, "--copy", path).code == 0
    assert path.read_text() == recipe_text(name)
    plans = [
        effnet("plan", "--recipe", which, "--set", "data.train_images=1000", "--json")
        for which in (name, path)
    ]
    assert plans[0].code == 0
    assert plans[0].out == plans[1].out


def test_a_copy_overwrites_nothing(mistake, tmp_path):
    (tmp_path / "mine.toml").write_text("mine")
    assert "is there already" in mistake("recipes", "demo", "--copy", tmp_path / "mine.toml")
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_a_copy_gets_a_name_that_the_recipe_option_takes(mistake, tmp_path):
    assert ".toml" in mistake("recipes", "demo", "--copy", tmp_path / "mine")


def test_a_copy_of_nothing_is_a_mistake(mistake, tmp_path):
    assert "name" in mistake("recipes", "--copy", tmp_path / "mine.toml")


def test_an_unknown_recipe_is_named_with_the_nearest(mistake):
    assert "unknown recipe 'dmo'; did you mean 'demo'?" in mistake("recipes", "dmo")
