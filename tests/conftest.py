"""Settings for the whole suite."""

import importlib.util
import os
import sys
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
# A slow machine is no failure.
hypothesis.settings.register_profile("effnet", deadline=None)
hypothesis.settings.load_profile("effnet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """What a person has tuned or fetched on this machine must not change a test."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


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
