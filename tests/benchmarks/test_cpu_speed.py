import json

import cpu_speed
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from side_by_side import ours, power, ways, worker
from side_by_side.case import Case
from side_by_side.process import Worker
from side_by_side.table import fastest, ratio, table

TRAIN = Case(kind="train", network="v2-b0", size=64, batch=16, optimizer="rmsprop_tf")
ADAMW = Case(kind="train", network="v1-b0", size=64, batch=16, optimizer="adamw")
INFER = Case(kind="infer", network="v2-b0", size=64, batch=1)


@pytest.fixture
def everything_is_there(monkeypatch):
    monkeypatch.setattr(ways, "find_spec", lambda _: object())
    monkeypatch.setattr(ways, "supports_bf16", lambda _: True)


def names(found):
    return [way.name for way in found.taking_part]


def test_ours_comes_first_and_who_cannot_take_part_has_a_reason(everything_is_there):
    found = ways.ways_of(TRAIN, compiled=False)
    assert names(found)[0] == "effnet"
    assert {"timm", "timm best", "timm best bf16", "Keras"} <= set(names(found))
    assert found.left_out["torchvision"] == "torchvision has no v2-b0"
    assert found.left_out["timm compiled"] == "compiling takes minutes a network; --compile has it"
    assert not set(names(found)) & set(found.left_out)


def test_what_is_not_installed_or_not_in_the_processor_is_left_out(monkeypatch):
    monkeypatch.setattr(ways, "find_spec", lambda name: None if name == "tensorflow" else object())
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512f": True})
    found = ways.ways_of(TRAIN, compiled=True)
    assert found.left_out["Keras"] == "not installed: tensorflow"
    assert found.left_out["effnet bf16"] == "this processor has no arithmetic of its own in bf16"
    assert "timm compiled" in names(found)


def test_a_choice_of_ways_keeps_the_one_that_gives_the_weights(everything_is_there):
    assert names(ways.ways_of(INFER, compiled=False, chosen=["Keras"])) == ["effnet", "Keras"]


@pytest.mark.parametrize("features", [{"avx512_bf16"}, {"amx_bf16", "avx2"}])
def test_bf16_is_a_matter_of_the_processors_flags(features, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))
    found = ways.ways_of(TRAIN, compiled=False, chosen=["effnet bf16"])
    assert names(found) == ["effnet", "effnet bf16"]


def test_every_way_has_a_maker_in_its_library():
    assert {way.name for way in ways.TRAIN if way.library == "effnet"} == set(ours.TRAIN)
    assert {way.name for way in ways.INFER if way.library == "effnet"} == set(ours.INFER)


def asked(*words):
    defaults = {
        "train_sizes": "128,224",
        "networks": "v1-b0,v2-s",
        "optimizers": "rmsprop_tf,adamw",
        "train_batch": 16,
        "infer_batches": "1,16",
        "infer_size": 224,
        "only": " ".join(words),
    }
    return [case.key for case in cpu_speed.cases_of(cpu_speed.argparse.Namespace(**defaults))]


def test_the_second_optimizer_is_timed_at_the_smallest_size_alone():
    keys = asked("train")
    assert "train v1-b0 224px b16 rmsprop_tf" in keys
    assert [key for key in keys if key.endswith("adamw")] == [
        "train v1-b0 128px b16 adamw",
        "train v2-s 128px b16 adamw",
    ]


def test_cases_are_chosen_by_whole_words_of_their_keys():
    assert asked("infer", "v2-s") == ["infer v2-s 224px b1", "infer v2-s 224px b16"]
    assert asked("b1") == ["infer v1-b0 224px b1", "infer v2-s 224px b1"]


class FakeWorker:
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, losses):
        self.losses, self.asked, self.has_rested = losses, [], True

    def ask(self, do, **request):
        if do == "rest":
            self.has_rested = True
            return {}
        self.has_rested = False
        self.asked.append((request["steps"], request["conventions"]))
        return {"losses": self.losses[: request["steps"]]}


def chosen(case, *wanted):
    return tuple(way for way in ways.TRAIN if way.name in {"effnet", *wanted})


def test_losses_are_compared_by_the_conventions_of_each_library():
    workers = {
        "effnet": FakeWorker([7.0, 6.9, 6.8]),
        "timm": FakeWorker([7.001, 6.9, 6.8]),
        "torchvision": FakeWorker([7.0, 9.0, 9.0]),
    }
    found = cpu_speed.checked(TRAIN, chosen(TRAIN, "timm", "torchvision"), workers)
    # torchvision's RMSprop begins at 0: only the loss before the first update can be the same.
    assert workers["effnet"].asked == [(3, "effnet"), (1, "torchvision")]
    assert found["torchvision"]["difference"] == 0
    assert found["timm"]["difference"] == pytest.approx(1 / 7000)
    assert all(worker.has_rested for worker in workers.values())


def test_all_steps_count_where_the_update_is_the_same():
    workers = {"effnet": FakeWorker([7.0, 6.9, 6.8]), "torchvision": FakeWorker([7.0, 6.9, 6.7])}
    with pytest.raises(RuntimeError, match=r"train v1-b0 .* torchvision differs from effnet by 1\.5e-02"):
        cpu_speed.checked(ADAMW, chosen(ADAMW, "torchvision"), workers)


def test_a_loss_that_is_no_number_is_a_difference():
    workers = {"effnet": FakeWorker([7.0] * 3), "timm": FakeWorker([7.0, float("nan"), 7.0])}
    with pytest.raises(RuntimeError, match="timm differs"):
        cpu_speed.checked(TRAIN, chosen(TRAIN, "timm"), workers)


def test_logits_differ_relative_to_the_largest_of_their_image(tmp_path):
    one = np.array([[1.0, -4.0], [2.0, 1.0]], np.float32)
    files = []
    for number, logits in enumerate((one, one + np.array([[0.0, 0.2], [0.2, 0.0]], np.float32))):
        save_file({"logits": logits}, tmp_path / f"{number}")
        files.append({"logits": str(tmp_path / f"{number}")})
    assert cpu_speed.difference("infer", files[1], files[0]) == pytest.approx(0.1)


def test_ways_give_memory_back_between_turns_where_it_is_scarce(monkeypatch):
    asked = []

    class Remembers:
        def __init__(self, script, library, name):
            self.name = name

        def ask(self, do, **request):
            asked.append((self.name, do, request.get("is_rested")))
            answers = {"check": {"losses": [7.0] * 3}, "rest": {"peak_bytes": 3e9}}
            return answers.get(do, {"seconds": [0.5, 0.5], "cpu": 1.0})

        def close(self):
            pass

    monkeypatch.setattr(cpu_speed, "Worker", Remembers)
    monkeypatch.setattr(cpu_speed, "PAUSE", 0.0)
    wanted = chosen(TRAIN, "timm")
    for free, rests in ((1e10, False), (8e9, True)):
        asked.clear()
        monkeypatch.setattr(cpu_speed, "free_bytes", lambda free=free: free)
        found = cpu_speed.measure(TRAIN, wanted, {}, rounds=2)
        assert found["rests"] is rests
        assert found["peak_bytes"] == {"effnet": 3e9, "timm": 3e9}
        assert asked.count(("timm", "time", rests)) == 3
        assert asked.count(("timm", "rest", None)) == (5 if rests else 2)


def test_a_way_that_was_killed_is_told_with_what_kills_most(tmp_path):
    script = tmp_path / "way.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    way = Worker(script, "timm", "timm best")
    with pytest.raises(
        RuntimeError, match=r"^timm timm best: its process has ended with -9; .* memory ran out$"
    ):
        way.ask(do="rest", sizes=[0] * 100_000)  # More than a pipe holds.
    way.close()


def test_resting_says_how_much_memory_there_was():
    way = worker.Way("effnet", "effnet")
    assert way.rest()["peak_bytes"] > 1e8


def measured(**seconds):
    about = {name: {"precision": "bf16" if "bf16" in name else "fp32"} for name in seconds}
    return TRAIN.to_dict() | {"key": TRAIN.key, "seconds": seconds, "ways": about}


def test_ratios_are_taken_within_a_round():
    case = measured(**{"effnet": [1.0, 2.0, 1.0], "timm": [1.5, 4.0, 1.2], "timm best bf16": [0.5, 0.5, 0.5]})
    assert str(ratio(case, "timm")) == "1.50 (1.20 to 2.00)"
    assert fastest(case, ["effnet", "timm"]) == "effnet"
    text = table({"cases": {case["key"]: case}})
    assert "| v2-b0 64px b16 rmsprop_tf | 1000.0 | 16.0 | 1.50 (1.20 to 2.00) |" in text


def test_the_record_says_what_the_processor_is_and_does():
    about, now = power.processor(), power.state()
    assert about["cores"] >= 1
    assert set(about["flags"]) <= set(power.FLAGS)
    assert "scaling_governor" in about["clocks_and_power"] or about["note"]
    assert now["load"] >= 0
    assert power.free_bytes() > 1e6
    json.dumps([about, now])


def test_weights_are_written_under_the_names_of_all_libraries_and_losses_can_be_had_by_any(tmp_path):
    case = Case(kind="train", network="v2-b0", size=32, batch=2, optimizer="adamw")
    way = ours.train(case, tmp_path)
    way.give()
    written = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert written == {"timm", "torchvision", "keras", "batch"}
    assert way.told["precision"] == "fp32"
    before = {name: value.clone() for name, value in way._state.model.state_dict().items()}
    own, theirs = way.check(1, "effnet"), way.check(1, "torchvision")
    # torchvision pads on all sides.
    assert 1e-6 < abs(own[0] - theirs[0]) < 1
    assert all(torch.equal(value, before[name]) for name, value in way._state.model.state_dict().items())
