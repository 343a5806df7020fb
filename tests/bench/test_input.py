import json
from contextlib import contextmanager

import pytest
import torch

from effnet.bench import input as inputs
from effnet.bench import ours
from effnet.bench.measure import Timing
from effnet.bench.methods import BASELINE, DECODING, DECODING_COPIES, PIPELINES, Method
from effnet.bench.workload import UnavailableError, Workload, lay_out, open_stored
from effnet.data import filling, loader
from effnet.data.copies import CopySettings
from effnet.data.jpeg_scan import ScanMemory
from effnet.data.prepare import prepare_store
from effnet.data.transforms import open_view
from effnet.errors import UserError

FROM_STORE = "effnet: 10 epochs from the store"
FROM_PIXELS = "effnet: 10 epochs from a store of pixels"
OURS = {m.name for m in PIPELINES if m.name.startswith("effnet")}
HERE = {BASELINE, DECODING, DECODING_COPIES, *OURS}
TASKS = ("crop", "crop and RandAugment", "RandAugment alone")


@contextmanager
def _absent(workload):
    raise UnavailableError("it is on the moon")
    yield


@pytest.fixture
def without_peers(monkeypatch):
    """Measure what is at hand everywhere, and one library that is not."""
    here = tuple(method for method in PIPELINES if method.name in HERE)
    monkeypatch.setattr(inputs, "PIPELINES", (*here, Method(name="luna", open=_absent)))


def test_every_method_is_measured_at_every_size(source, without_peers):
    threads, told = torch.get_num_threads(), []
    report = inputs.bench_input(
        str(source), (16, 24), images=100, rounds=2, prepare=True, randaugment=True, announce=told.append
    )
    assert (report.images, report.rounds, report.source) == (10, 2, str(source))
    assert told == [f"{task}, {size} px" for task in TASKS for size in (16, 24)]
    for task in TASKS[:2]:
        for size in (16, 24):
            rows = [row for row in report.rows if (row.task, row.image_size) == (task, size)]
            assert {row.method for row in rows} == HERE
            epochs = {row.method: 10 if "10 epochs" in row.method else 1 for row in rows}
            assert all(row.images == 10 * epochs[row.method] for row in rows)
            assert all(len(row.rates) == 2 and min(row.rates) > 0 for row in rows)
    alone = {row.method for row in report.rows if row.task == "RandAugment alone"}
    assert alone >= {BASELINE, "Pillow, nearest", "effnet: nearest"}
    assert {(missing.method, missing.reason) for missing in report.missing} >= {("luna", "it is on the moon")}
    assert [missing.task for missing in report.missing if missing.method == "luna"] == list(TASKS[:2])
    assert report.versions["numpy"]
    assert json.loads(json.dumps(report.to_dict()))["rows"][0]["method"] == BASELINE
    assert torch.get_num_threads() == threads


def test_a_store_is_left_out_where_there_is_none(source, without_peers):
    report = inputs.bench_input(str(source), (16,), rounds=1)
    missing = {missing.method: missing.reason for missing in report.missing}
    assert missing[FROM_STORE] == missing[FROM_PIXELS] == missing[DECODING_COPIES]
    assert "name one with --store or let --prepare make one" in missing[FROM_STORE]
    assert not {row.method for row in report.rows} & missing.keys()


def test_figures_follow_from_the_rates(source, without_peers, monkeypatch):
    rates = {BASELINE: (100.0, 200.0, 400.0), DECODING: (1000.0, 1000.0, 1000.0), DECODING_COPIES: (4e3,) * 3}

    def timed(passes, rounds):
        return {name: Timing(images=10, rates=rates.get(name, (300.0, 500.0, 700.0))) for name in passes}

    monkeypatch.setattr(inputs, "take_turns", timed)
    report = inputs.bench_input(str(source), (16,), rounds=3, prepare=True)
    rows = {row.method: row for row in report.rows}
    row = rows["effnet: first epoch"]
    assert (row.median, row.ratio, row.ratio_range) == (500, 2.5, (1.75, 3.0))
    assert row.file_bytes == report.mean_bytes
    assert row.share_of_limit == pytest.approx(500 * report.mean_bytes / 65e6)
    assert row.share_of_decoding == 0.5
    stored = rows[FROM_STORE]
    assert 0 < stored.file_bytes < report.mean_bytes
    assert stored.share_of_limit == pytest.approx(500 * stored.file_bytes / 65e6)
    assert stored.share_of_decoding == 500 / 4000
    assert (rows[BASELINE].ratio, rows[BASELINE].ratio_range) == (1, (1, 1))


def _workload(source, folder, *, stored=(), randaugment=False):
    (folder / "photos").mkdir(exist_ok=True)
    photos = lay_out(str(source), 100, folder / "photos")
    return Workload(photos=photos, stored=dict(stored), size=16, randaugment=randaugment, scratch=folder)


def test_a_given_store_is_read(source, tmp_path, without_peers):
    prepare_store(str(source), tmp_path / "store", CopySettings(short_sides=(20,)))
    names = _workload(source, tmp_path).photos.names
    stored = open_stored(tmp_path / "store", names)
    copies = ours.read_copies(_workload(source, tmp_path, stored=stored))
    assert len(copies) == 10
    report = inputs.bench_input(str(source), (16,), rounds=1, store=tmp_path / "store")
    (row,) = (row for row in report.rows if row.method == FROM_STORE)
    assert row.file_bytes == pytest.approx(sum(map(len, copies)) / 10)


def test_a_store_of_pixels_has_no_jpeg_to_be_limited_by(source, tmp_path, without_peers):
    prepare_store(str(source), tmp_path / "store", CopySettings(short_sides=(20,), encoding="raw"))
    report = inputs.bench_input(str(source), (16,), rounds=1, store=tmp_path / "store")
    (row,) = (row for row in report.rows if row.method == FROM_PIXELS)
    assert (row.file_bytes, row.share_of_limit, row.share_of_decoding) == (None, None, None)
    reasons = {missing.method: missing.reason for missing in report.missing}
    assert reasons[FROM_STORE] == reasons[DECODING_COPIES] == "the store has pixels, not JPEG"


@pytest.mark.parametrize("randaugment", [False, True])
def test_our_methods_see_other_crops_in_every_pass(source, tmp_path, monkeypatch, randaugment):
    seen = []

    def opened(encoded, settings, *, config, augment, rng, is_whole, scans):
        given = {"config": config, "augment": augment, "rng": rng, "is_whole": is_whole, "scans": scans}
        view = open_view(encoded, settings, **given)
        seen.append((rng.random(), augment.operations, settings.image_size, config.crop_area, is_whole))
        return view

    monkeypatch.setattr(filling, "open_view", opened)
    workload = _workload(source, tmp_path, randaugment=randaugment)
    with ours.loader(ours.AS_RELEASED, epochs=2)(workload) as run:
        assert (run(), run()) == (20, 20)
    assert len({random for random, *_ in seen}) == 40
    assert {tuple(rest) for _, *rest, _ in seen} == {(2 if randaugment else 0, 16, (0.08, 1.0))}
    assert [is_whole for *_, is_whole in seen] == ([False] * 10 + [True] * 10) * 2


def test_indices_are_made_where_they_are_asked_for(source, tmp_path, monkeypatch):
    budgets = []
    monkeypatch.setattr(loader, "ScanMemory", lambda size: budgets.append(size) or ScanMemory(size))
    for config in (ours.AS_RELEASED, ours.WHOLE_FILES):
        with ours.loader(config)(_workload(source, tmp_path)) as run:
            run()
    assert [size > 0 for size in budgets] == [True, False]


def test_data_that_is_not_there_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        inputs.bench_input(str(tmp_path / "nowhere"), (16,))
