"""Settings for the whole suite."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
# Without a GPU the kernels in Triton run in its interpreter, which must be chosen before Triton is loaded.
os.environ.setdefault("TRITON_INTERPRET", str(int(not torch.cuda.is_available())))
# Two busy cores oversubscribe badly: one thread is several times faster here.
torch.set_num_threads(1)
computing_threads = torch.get_num_threads  # Some tests put others in its place.
# A slow machine is no failure.
hypothesis.settings.register_profile("effnet", deadline=None)
hypothesis.settings.load_profile("effnet")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """What a person has tuned or fetched on this machine must not change a test."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def nothing_tuned(own_cache):
    """Nor must what an earlier test has tuned, which runs take up wherever they say ``auto``."""
    yield
    shutil.rmtree(own_cache / "tuned", ignore_errors=True)


@pytest.fixture(autouse=True)
def same_threads():
    """How many threads compute changes sums in their last bit, and with them every test behind."""
    before = computing_threads()
    yield
    now = computing_threads()
    torch.set_num_threads(before)
    assert now == before, f"the test left {now} computing threads where there was {before}"


@pytest.fixture
def fake_timm(monkeypatch) -> ModuleType:
    """``import timm`` finds ``tests/fake_timm.py``: timm itself is no part of this environment."""
    path = Path(__file__).with_name("fake_timm.py")
    spec = importlib.util.spec_from_file_location("fake_timm", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up.
    monkeypatch.setitem(sys.modules, "fake_timm", module)
    spec.loader.exec_module(module)
    return module.install(monkeypatch)
