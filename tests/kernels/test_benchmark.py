import json
import runpy
from pathlib import Path

import pytest
import torch

from effnet.kernels import dispatch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "kernels.py"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    return runpy.run_path(str(SCRIPT))["main"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure, which takes its time")
def test_the_benchmark_measures_every_kernel_of_a_network(main, tmp_path):
    out = tmp_path / "kernels.json"
    report = main(["--tiny", "--out", str(out)])
    assert json.loads(out.read_text()).keys() == report.keys()
    assert {found["call"]["kind"] for found in report["calls"]} == {"norm", "norm-gate", "depthwise"}
    assert all(error < 1e-3 for found in report["calls"] for error in found["errors"].values())
    assert list(report["steps"]) == ["plain", "triton-norm", "triton"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_the_benchmark_does_not_pass_a_processor_for_a_gpu(main, capsys):
    with pytest.raises(SystemExit):
        main([])
    assert "there is no CUDA device; --tiny checks this script without one" in capsys.readouterr().err
