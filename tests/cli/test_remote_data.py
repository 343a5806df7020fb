"""Training on a prepared store that another machine serves, and that machine going away."""

from __future__ import annotations

import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from safetensors.numpy import load_file

from effnet.data import filling, remote, sources
from effnet.data.copies import CopySettings
from effnet.data.prepare import prepare_store


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.server.is_gone():
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(photos, tmp_path, monkeypatch):
    """Serves a store with copies of 20 px, which the second stage is the first to read."""
    for split in ("train", "val"):
        shutil.copytree(photos, tmp_path / "photos" / split, ignore=shutil.ignore_patterns("4.*", "5.*"))
    prepare_store(str(tmp_path / "photos"), tmp_path / "store", CopySettings(short_sides=(8, 20)))
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(filling, "EXPECTED_SAMPLES", 16)
    impatient = partial(remote.open_remote_store, delays=(0.01, 0.01))
    monkeypatch.setattr(sources, "open_remote_store", impatient)
    handler = partial(_Handler, directory=str(tmp_path / "store"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.is_gone = lambda: False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def train(effnet, recipe, server, tmp_path):
    """Train from an empty cache: ``train("--out", folder)``, or ``train("--resume", folder)``."""
    changes = ("train.epochs=4", "train.batch_size=2", "data.crop_area=[0.9, 1.0]")
    address = f"http://127.0.0.1:{server.server_port}"

    def run(option, folder):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        what = () if option == "--resume" else (address, "--recipe", recipe)
        sets = () if option == "--resume" else (f"--set={change}" for change in changes)
        return effnet("train", *what, *sets, option, folder, "--quiet")

    return run


def test_a_lost_server_ends_a_run_that_can_be_continued(train, server, tmp_path):
    whole = train("--out", tmp_path / "whole")
    assert whole.code == 0, whole.err

    run = tmp_path / "run"
    server.is_gone = lambda: any(run.glob("**/best.safetensors"))
    lost = train("--out", run)
    assert (lost.code, lost.out) == (1, "")
    assert re.fullmatch(
        r"effnet: 'http://.*' cannot be read: train-00000-20.arrow: 503, .* \(3 attempts in 0 s\); "
        rf"once that is mended, continue with: effnet train --resume {run}\n",
        lost.err,
    )
    assert not (run / "bad-images.jsonl").exists()

    still_lost = train("--resume", run)
    assert still_lost.code == 2
    assert "store.json: 503" in still_lost.err

    server.is_gone = lambda: False
    resumed = train("--resume", run)
    assert resumed.code == 0, resumed.err
    ours, theirs = (
        load_file(path / "checkpoints" / "best.safetensors") for path in (run, tmp_path / "whole")
    )
    assert ours.keys() == theirs.keys()
    assert all((ours[name] == theirs[name]).all() for name in ours)
