import json

import gpu_input
import numpy as np
import pytest
from linked_photos import link_photos
from mistakes import mistakes_told
from PIL import Image

from effnet.errors import UserError


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "roses"
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 150, 180, 3), dtype=np.uint8)
    for number, photo in enumerate(pixels):
        Image.fromarray(photo).save(folder / f"{number}.jpg")
    return folder.parent


def _given(photos, tmp_path, *more):
    quick = ["--device", "cpu", "--quick", "--out", str(tmp_path / "out.json")]
    return gpu_input.parsed([str(photos), *quick, *more])


def record(step, rate, wait):
    return {"step": step, "batch_size": 4, "images_per_second": rate, "data_wait": wait}


def test_the_loader_the_steps_and_the_run_are_measured_and_compared(photos, tmp_path):
    more = ("--networks", "v2-b0", "--places", "device", "--sources", "jpeg")
    report = gpu_input.run(_given(photos, tmp_path, *more))
    assert report["left_out"] == {}
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(json.dumps(report))
    found = report["runs"]["v2-b0 jpeg device"]
    loader, steps = report["loader"]["jpeg device"], report["steps"]["v2-b0 device"]
    assert (found["loader"], found["steps"]) == (loader["later"], steps["images_per_second"])
    assert found["bottleneck"] == ("loader" if loader["later"] < found["steps"] else "network")
    assert found["run"]["images"] == 40
    assert 0 <= found["run"]["data_wait"] <= 1
    assert str(tmp_path) not in json.dumps(report)
    text = gpu_input.table(report)
    assert "| v2-b0 | jpeg | device |" in text
    assert report["data"]["photos"] == 2


def test_what_a_run_recorded_counts_behind_its_first_epoch():
    records = [{"step": 0}, record(10, 1.0, 1.0), record(20, 40.0, 0.5), record(30, 20.0, 0.0)]
    found = gpu_input.recorded(records, 10)
    assert found["images"] == 80
    assert found["seconds"] == pytest.approx(1 + 2)
    assert found["images_per_second"] == pytest.approx(80 / 3)
    assert found["data_wait"] == pytest.approx(0.5 / 3)


def test_what_fails_is_told_and_the_rest_is_measured(photos, tmp_path, monkeypatch):
    def fail(self, case):
        if case.source == "files":
            raise RuntimeError("out of memory")
        self._report["runs"][case.key] = case._asdict()

    monkeypatch.setattr(gpu_input.Bench, "_measure", fail)
    report = gpu_input.run(_given(photos, tmp_path, "--networks", "v2-s"))
    assert set(report["left_out"].values()) == {"RuntimeError: out of memory"}
    assert list(report["runs"]) == ["v2-s jpeg device", "v2-s jpeg worker"]


def test_what_there_is_no_time_for_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_input.Bench, "_measure", lambda self, case: self._report["runs"].update(a={}))
    report = gpu_input.run(_given(photos, tmp_path, "--minutes", "0", "--networks", "v2-s"))
    assert set(report["left_out"]) == {"v2-s jpeg device", "v2-s files worker", "v2-s jpeg worker"}


def test_the_most_important_cases_come_first(photos, tmp_path):
    keys = [case.key for case in gpu_input.cases(_given(photos, tmp_path))]
    assert keys[:3] == ["v2-s files device", "v2-s jpeg device", "v2-b0 files device"]
    assert len(keys) == 8


def test_names_are_links_to_the_photos(photos, tmp_path):
    told = link_photos(photos, tmp_path / "many", 30)
    names = list((tmp_path / "many" / "train").rglob("*.jpg"))
    assert (told["photos"], told["names"], len(names)) == (2, 30, 30)
    assert len({name.stat().st_ino for name in names}) == 2


def test_a_folder_without_photos_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no JPEG files; give a folder of photos"):
        link_photos(tmp_path / "empty", tmp_path / "many", 3)


def test_a_setting_that_there_is_not_ends_everything_at_once(photos, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, mistakes_told():
        gpu_input.run(_given(photos, tmp_path, "--set", "train.compile=graph"))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "got 'graph'; did you mean 'graphs'?" in said
    assert "Traceback" not in said
