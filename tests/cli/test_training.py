import json
import re
import shutil

import pytest
import torch

from effnet.data import filling
from effnet.training import keeper, loop, preflight
from effnet.weights import load_weights


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


# Plans


def test_the_plan_of_the_released_recipe_needs_no_data(effnet):
    answer = effnet("plan", "--recipe", "v2-s.release", "--json")
    document = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert document["total_steps"] == 107_336
    assert [stage["image_size"] for stage in document["stages"]] == [171, 214, 257, 300]
    assert [stage["randaugment_magnitude"] for stage in document["stages"]] == pytest.approx(
        [5, 20 / 3, 25 / 3, 10]
    )
    assert {stage["batch_size"] for stage in document["stages"]} == {4096}


def test_a_plan_for_people_has_a_line_a_stage(effnet):
    out = effnet("plan", "--recipe", "v2-s.release").out
    assert re.search(r"^4 +80502-107336 +262\.5-350\.0 +300 px +4096 +10\.00", out, re.MULTILINE)
    assert "107336 steps over 1256144 images; 66% of the arithmetic of training at 300 px" in out


def test_a_plan_shows_the_learning_rate_where_it_matters_or_where_it_is_asked_for(effnet):
    out = effnet("plan", "--recipe", "v2-s.release").out
    assert re.search(r"^1534 +5\.00 +0\.2409 +1 +171 px +4096$", out, re.MULTILINE)
    assert re.search(r"^107335 +350\.00 +0\.003091 +4 +300 px +4096$", out, re.MULTILINE)
    answer = effnet("plan", "--recipe", "v2-s.release", "--at", "0", "--at", "53668", "--json")
    start, middle = json.loads(answer.out)["at"]
    assert (start["step"], start["learning_rate"], start["image_size"]) == (0, 0.0, 171)
    assert (middle["step"], middle["stage"], middle["image_size"]) == (53_668, 2, 257)
    assert middle["learning_rate"] == pytest.approx(0.256 * 0.97**72)
    assert middle["randaugment_magnitude"] == pytest.approx(25 / 3)


def test_a_plan_shows_composers_schedule_with_the_rates_of_its_batches(effnet):
    changes = [
        *("progressive.mode=linear", "progressive.image_size=[150,300]", "progressive.size_multiple=50"),
        *("progressive.hold_share=0.5", "progressive.cooldown_share=0.2", "progressive.batch_rule=pixels"),
        *("progressive.batch_limit=2.0", "learning_rate.batch_scaling=sqrt"),
    ]
    arguments = [part for change in changes for part in ("--set", change)]
    out = effnet("plan", "--recipe", "v2-s.release", *arguments).out
    # 57.5, 7.5, 7.5, 7.5 and 20 % of the run; 150 px would have batches 4 times as large, but for the limit.
    assert re.search(r"^1 +0-30859 +0\.0-201\.2 +150 px +8192 ", out, re.MULTILINE)
    assert re.search(r"^5 +\d+-\d+ +280\.0-350\.0 +300 px +4096 ", out, re.MULTILINE)
    assert re.search(r"^767 +5\.00 +0\.08516 +1 +150 px +8192$", out, re.MULTILINE)


@pytest.mark.parametrize("step", ["-1", "107336"])
def test_a_step_that_the_run_does_not_have_is_refused(mistake, step):
    message = mistake("plan", "--recipe", "v2-s.release", "--at", step)
    assert message == f"effnet: --at {step} is no step of the run; its steps are 0 to 107335\n"


def test_a_plan_has_a_column_for_erasing_where_there_is_any(effnet):
    arguments = ("plan", "--recipe", "v2-s.release")
    assert "erasing" not in effnet(*arguments).out
    out = effnet(*arguments, "--set", "progressive.erasing_probability=[0.0,0.3]").out
    assert "erasing" in out
    assert re.search(r"^2 .* 0\.10 ", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "augment.method=autoaug",
            "augment.method must be one of randaugment, autoaugment, randaugment_or_autoaugment, "
            "trivialaugment, got 'autoaug'; did you mean 'autoaugment'?",
        ),
        ("augment.cutout=1.5", "augment.cutout must be at most 1, got 1.5"),
        ("augment.repeats=0", "augment.repeats must be at least 1, got 0"),
        (
            "progressive.erasing_probability=[0.0,1.0]",
            "progressive.erasing_probability[1] must be below 1, got 1.0",
        ),
    ],
)
def test_augmentation_that_cannot_be_is_told(effnet, change, message):
    answer = effnet("plan", "--recipe", "v2-s.release", "--set", change)
    assert answer.code == 2
    assert message in answer.err


def test_a_measured_plan_predicts_time_and_leaves_nothing_behind(effnet, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = effnet("plan", "--recipe", recipe, "--json")
    document = json.loads(answer.out)
    assert answer.code == 0
    assert answer.err.splitlines() == ["measuring stage 2 at 16 px", "measuring stage 1 at 8 px"]
    assert document["seconds"] > 0
    assert all(stage["seconds_per_step"] > 0 for stage in document["stages"])
    assert files_of(tmp_path) == []


def test_a_plan_warns_of_batches_too_small_for_batch_norm(effnet, photos, recipe):
    arguments = ("plan", photos, "--recipe", recipe, "--no-measure", "--set", "train.batch_size=4")
    assert "batch norm has only 4 images at a time in stage 1" in effnet(*arguments).out
    assert "batch norm" in json.loads(effnet(*arguments, "--json").out)["advice"]


def test_a_plan_without_measurement_does_not_train(effnet, photos, recipe):
    answer = effnet("plan", photos, "--recipe", recipe, "--no-measure", "--json")
    assert answer.err == ""
    assert not json.loads(answer.out).keys() & {"seconds", "memory_bytes"}
    assert json.loads(answer.out)["train_images"] == 15


# Training


def test_a_run_prints_one_json_document_and_nothing_else(effnet, recipe, tmp_path):
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run", "--json")
    document = json.loads(answer.out)
    assert answer.code == 0
    assert document.keys() == {
        "run", "steps", "val_top1", "best_val_top1", "best_step", "train_seconds", "step_seconds", "images",
        "macs", "data_wait", "bad_images", "non_finite", "stopped_early",
    }  # fmt: skip
    assert document["images"] == 7 * 4
    assert 0 < document["step_seconds"] <= document["train_seconds"]
    assert 0 < document["data_wait"] < 1
    assert (document["run"], document["steps"]) == (str(tmp_path / "run"), 7)
    assert 0 <= document["val_top1"] <= document["best_val_top1"] <= 1
    assert "stage 2/2" in answer.err


def test_a_quiet_run_says_its_result_alone(effnet, recipe, tmp_path):
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run", "--quiet")
    assert answer.err == ""
    assert re.match(
        r"validation top-1 \d+\.\d\d%, best \d+\.\d\d% at step \d; 7 steps in \d+\.\d s, "
        r"\d+% of the steps' time waiting for images\n",
        answer.out,
    )
    assert answer.out.endswith(f"run: {tmp_path / 'run'}\n")


def test_a_run_goes_to_a_folder_named_after_its_network(effnet, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = json.loads(effnet("train", "--recipe", recipe, "--quiet", "--json").out)
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d-\d{6}-tiny", document["run"])
    assert (tmp_path / document["run"] / "config.toml").is_file()


def test_values_given_win_over_the_recipe(effnet, recipe, photos, tmp_path):
    effnet(
        "train", photos, "--recipe", recipe, "--out", tmp_path / "run", "--set", "train.epochs=1", "--quiet"
    )
    config = (tmp_path / "run" / "config.toml").read_text()
    assert "epochs = 1.0" in config
    assert "batch_size = 4" in config
    assert f'source = "{photos}"' in config


def test_unreadable_images_are_counted(effnet, recipe, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    for file in (tmp_path / "photos").glob("*/0.jpg"):
        file.write_bytes(file.read_bytes()[:-100])
    out = effnet(
        "train", tmp_path / "photos", "--recipe", recipe, "--out", tmp_path / "run", "--quiet",
        "--set", "data.max_bad_fraction=0.5",
    ).out  # fmt: skip
    assert f"3 images could not be read in full, see {tmp_path / 'run'}/bad-images.jsonl" in out


def test_a_loss_that_is_not_finite_is_a_failure_and_no_mistake(effnet, recipe, tmp_path):
    answer = effnet(
        "train", "--recipe", recipe, "--out", tmp_path / "run", "--quiet", "--json",
        "--set", "learning_rate.base=1e30", "--set", "learning_rate.warmup_epochs=0",
    )  # fmt: skip
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(
        r"effnet: the loss is (nan|inf) at step \d, which begins in the output of \S+, after such "
        r"a step was left out 3 times; a lower learning_rate.base .* may help. The state of step \d is "
        r"saved and finite\n",
        answer.err,
    )


def test_a_thread_that_dies_is_a_failure_and_no_traceback(effnet, recipe, tmp_path, monkeypatch):
    def dies(*_, **__):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(filling, "open_view", dies)
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(
        r"effnet: the loader thread effnet-data_\d died at (red|green|blue)/\d\.(jpg|png): "
        r"ZeroDivisionError: a defect; once that is mended, continue with: "
        rf"effnet train --resume {tmp_path}/run\n",
        answer.err,
    )


def test_steps_that_were_left_out_are_counted(effnet, recipe, tmp_path, monkeypatch):
    real = loop.train_step

    def step(state, batch, experiment):
        loss = real(state, batch, experiment)
        return loss * float("nan") if batch.step == 5 else loss

    monkeypatch.setattr(loop, "train_step", step)
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run")
    assert answer.code == 0
    assert (
        f"1 step was not finite and answered as train.on_non_finite says, see {tmp_path}/run/metrics.jsonl\n"
    ) in answer.out


def test_a_device_without_room_is_a_failure_and_no_traceback(effnet, recipe, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "train_step", full)
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(r"effnet: out of memory at step 0, with a single image at a time; .*\n", answer.err)


def test_a_disk_that_is_full_is_a_failure_and_no_mistake(effnet, recipe, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "step-00000004.safetensors")

    monkeypatch.setattr(keeper, "write_snapshot", full)
    answer = effnet("train", "--recipe", recipe, "--out", tmp_path / "run", "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert re.fullmatch(r"effnet: .*No space left on device.*\n", answer.err)


@pytest.fixture
def interrupted_plan(effnet, recipe, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(preflight, "train_step", interrupt)
    return effnet("plan", "--recipe", recipe)


def test_an_interruption_while_planning_ends_without_a_traceback(interrupted_plan):
    assert (interrupted_plan.code, interrupted_plan.out) == (130, "")
    assert "Traceback" not in interrupted_plan.err


def test_an_interruption_while_planning_is_told(interrupted_plan):
    assert interrupted_plan.err.splitlines()[-1] == "effnet: interrupted"


def test_resume_needs_nothing_but_the_run(effnet, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    answer = effnet("train", "--resume", tmp_path / "run", "--json", "--quiet")
    assert (answer.code, json.loads(answer.out)["steps"]) == (0, 7)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_one_command_starts_a_run_and_goes_on_with_it(effnet, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ("train", "--recipe", recipe, "--out", "run", "--resume", "auto", "--quiet", "--json")
    first, again = effnet(*command), effnet(*command)
    assert first.code == again.code == 0
    assert json.loads(first.out) == json.loads(again.out)
    assert json.loads(first.out)["steps"] == 7


def test_a_run_that_was_killed_at_once_is_started_again(effnet, recipe, finished, tmp_path):
    command = ("train", "--recipe", recipe, "--resume", "auto", "--quiet", "--json", "--out")
    # Before its configuration was written, before its split was, and before its first checkpoint.
    for kept in (["environment.json"], ["config.toml"], ["config.toml", "split.json", "metrics.jsonl"]):
        run = tmp_path / str(len(kept)) / kept[0]
        (run / "checkpoints").mkdir(parents=True)
        (run / "plots").mkdir()
        for name in kept:
            shutil.copy(finished / name, run)
        answer = effnet(*command, run)
        assert answer.code == 0, answer.err
        assert (run / "split.json").read_bytes() == (finished / "split.json").read_bytes()
        weights = [load_weights(str(r / "checkpoints" / "best.safetensors")) for r in (run, finished)]
        assert all(torch.equal(t, weights[1].state[name]) for name, t in weights[0].state.items())
        assert (run / "metrics.jsonl").read_text().count("\n") == (
            finished / "metrics.jsonl"
        ).read_text().count("\n")


# Mistakes


def test_a_run_is_not_written_over(mistake, finished, recipe):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    message = mistake("train", "--recipe", recipe, "--out", finished)
    assert f"{finished} already holds a run: continue it with `effnet train --resume {finished}`" in message
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.parametrize(
    "more",
    [["--set", "train.epochs=3"], ["--recipe", "demo"], ["--out", "x"], ["digits"], ["--model", "v2-s"]],
)
def test_resume_takes_nothing_else(mistake, finished, more):
    assert "give nothing but --resume RUN" in mistake("train", "--resume", finished, *more)


def test_a_run_is_not_continued_with_other_values(mistake, finished, recipe, photos):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    message = mistake(
        "train", photos.parent, "--recipe", recipe, "--out", finished, "--resume", "auto",
        "--set", "train.epochs=3", "--set", "data.flip=false",
    )  # fmt: skip
    assert (
        f"the run in {finished} was started otherwise: data.source is '{photos}' there and '{photos.parent}' "
        "here, data.flip is true there and false here, train.epochs is 2.0 there and 3.0 here; give the same "
        "values to continue it, or another folder with --out"
    ) in message
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_resuming_by_itself_needs_a_folder(mistake, recipe):
    assert "--resume auto needs the folder of the run" in mistake(
        "train", "--recipe", recipe, "--resume", "auto"
    )


def test_resume_of_no_run_names_those_near(mistake, finished):
    assert "did you mean 'finished'?" in mistake("train", "--resume", finished.parent / "finishd")
    assert "it contains the runs finished" in mistake("train", "--resume", finished.parent)


@pytest.mark.parametrize("command", ["train", "plan"])
def test_data_that_is_not_there_is_told(mistake, command, recipe, photos):
    message = mistake(command, photos.parent / "photoz", "--recipe", recipe)
    assert "photoz' does not exist" in message
    assert "did you mean 'photos'?" in message


def test_a_class_without_an_image_is_told(mistake, recipe, tmp_path, photos):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "violet").mkdir()
    assert "violet' has no image" in mistake("train", tmp_path / "photos", "--recipe", recipe)


def test_a_single_class_is_told(mistake, recipe, tmp_path, photos):
    shutil.copytree(photos / "red", tmp_path / "photos" / "red")
    message = mistake("train", tmp_path / "photos", "--recipe", recipe)
    assert "has only one class, 'red'; a classifier needs at least two" in message


def test_a_file_or_an_empty_folder_is_no_data(mistake, recipe, tmp_path):
    assert "unknown kind" in mistake("train", recipe, "--recipe", recipe)
    assert "has no class folders" in mistake("train", tmp_path, "--recipe", recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("train.epoch=3", "unknown key 'train.epoch' in the overrides; did you mean 'train.epochs'?"),
        ("epochs=3", "did you mean 'train.epochs'?"),
        ("trian.epochs=3", "'trian'"),
        ("train.batch_size=many", "train.batch_size must be a whole number, got 'many'"),
        ("train.batch_size=2.5", "train.batch_size must be a whole number, got 2.5"),
        ("train.epochs=-1", "train.epochs must be above 0, got -1"),
        ("data.flip=1", "data.flip must be true or false, got 1"),
        ("progressive.image_size=128", "progressive.image_size must be a list, got 128"),
        ("optimizer.name=adam", "did you mean 'adamw'?"),
        ("train.epochs", "write section.key=value, such as train.epochs=10"),
        ("model.network=v2-ss", "unknown network 'v2-ss'; did you mean 'v2-s'?"),
        ("train.device=gpu", "auto, cpu, cuda or cuda:N"),
        ("train.device=meta", "auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_value_that_is_wrong_is_told_with_what_is_right(mistake, recipe, tmp_path, change, message):
    assert message in mistake("train", "--recipe", recipe, "--out", tmp_path / "run", "--set", change)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        "train.seed=-1",
        "train.seed=100000000000000000000",
        "progressive.image_size=[16, 8]",
    ],
)
def test_a_value_that_cannot_work_is_told(mistake, recipe, tmp_path, change):
    mistake("train", "--recipe", recipe, "--out", tmp_path / "run", "--set", change)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_or_network_is_named_with_the_nearest(mistake):
    assert "unknown recipe 'dmo'; did you mean 'demo'?" in mistake("train", "digits", "--recipe", "dmo")
    assert "did you mean 'v1-b3'?" in mistake("plan", "digits", "--model", "v1-b33")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train\nepochs = 3", "mine.toml is not TOML"),
        ("[train]\nepoch = 3", "unknown key 'train.epoch' in"),
        ("train = 3", "train must be a section of keys and values, got 3"),
        ('extends = "dmo"', "did you mean 'demo'?"),
        ('extends = "mine.toml"', "circle"),
    ],
)
def test_a_recipe_that_is_wrong_is_told_by_its_file(mistake, tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    assert message in mistake("plan", "--recipe", tmp_path / "mine.toml")


def test_a_run_can_start_from_the_weights_of_another(effnet, recipe, photos, finished, tmp_path):
    run = tmp_path / "run"
    answer = effnet(
        "train", photos, "--recipe", recipe, "--weights", finished, "--out", run, "--quiet",
        "--set", "train.head_epochs=100", "--set", "train.epochs=1",
    )  # fmt: skip
    assert answer.code == 0
    old, new = (load_weights(str(path / "checkpoints" / "best.safetensors")) for path in (finished, run))
    assert torch.equal(old.state["stem.conv.weight"], new.state["stem.conv.weight"])


def test_weights_of_another_network_are_told(mistake, finished, photos, recipe, tmp_path):
    weights = finished / "checkpoints" / "best.safetensors"
    message = mistake(
        "train",
        photos,
        "--recipe",
        recipe,
        "--model",
        "v2-b0",
        "--weights",
        weights,
        "--out",
        tmp_path / "run",
    )
    assert "holds the weights of tiny, and v2-b0 has other layers" in message
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_told(mistake, recipe, tmp_path):
    message = mistake("train", "--recipe", recipe, "--weights", tmp_path / "gone.safetensors")
    assert "gone.safetensors; give a path that exists" in message


def test_an_out_that_is_a_file_is_told(mistake, recipe):
    assert "is no folder" in mistake("train", "--recipe", recipe, "--out", recipe)


def test_a_run_is_not_written_into_its_data(mistake, recipe, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    before = files_of(tmp_path / "photos")
    mistake("train", tmp_path / "photos", "--recipe", recipe, "--out", tmp_path / "photos")
    assert files_of(tmp_path / "photos") == before


def test_data_that_changed_since_the_run_began_is_told(mistake, effnet, recipe, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    effnet("train", tmp_path / "photos", "--recipe", recipe, "--out", tmp_path / "run", "--quiet")
    (tmp_path / "photos" / "red" / "0.jpg").unlink()
    (tmp_path / "photos" / "red" / "2.jpg").unlink()
    for command in (["train", "--resume"], ["evaluate"]):
        message = mistake(*command, tmp_path / "run")
        assert "the data is not what this run began with" in message


def test_a_run_can_be_resumed_from_another_folder(effnet, recipe, photos, tmp_path, monkeypatch):
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    effnet("train", "photos", "--recipe", recipe, "--out", "run", "--quiet")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert effnet("train", "--resume", "../run", "--quiet").code == 0


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("split.json", b"{"),
        ("split.json", b"{}"),
        ("config.toml", b"\xff\xff"),
    ],
)
def test_a_file_of_a_run_that_is_damaged_is_told_by_its_name(mistake, finished, tmp_path, file, content):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / file).write_bytes(content)
    assert str(tmp_path / "run" / file) in mistake("train", "--resume", tmp_path / "run")
