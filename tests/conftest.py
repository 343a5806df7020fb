"""Settings for the whole suite."""

import hypothesis
import matplotlib as mpl
import pytest
import torch

mpl.use("Agg")
# Two busy cores oversubscribe badly: one thread is several times faster here.
torch.set_num_threads(1)
# A slow machine is no failure.
hypothesis.settings.register_profile("effnet", deadline=None)
hypothesis.settings.load_profile("effnet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """What a person has tuned or fetched on this machine must not change a test."""
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
