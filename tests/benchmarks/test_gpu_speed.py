import json
import time
from typing import ClassVar

import gpu_speed
import jaxtyping
import pytest
import torch
from on_gpu import cases, shares, worker
from on_gpu.shares import kind_of, measure_shares, shares_of
from on_gpu.table import table

from effnet.kernels import depthwise_programs, norm_programs
from effnet.profiling import device


@pytest.fixture
def everything_is_there(monkeypatch):
    monkeypatch.setattr(cases, "find_spec", lambda _: object())


class Here:
    """A worker in this process."""

    def __init__(self, script, device, precision):
        self._process, self._answers = worker.Process(device, precision), []

    def send(self, do, **request):
        self._answers.append(getattr(self._process, do)(**request))

    def answer(self, deadline):
        if time.monotonic() > deadline:
            raise gpu_speed.OutOfTimeError
        return self._answers.pop(0)

    def ask(self, do, *, deadline, **request):
        self.send(do, **request)
        return self.answer(deadline)

    def close(self):
        pass


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(gpu_speed, "Worker", Here)
    monkeypatch.setattr(gpu_speed, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(gpu_speed, "FEWEST_ROUNDS", 1)
    monkeypatch.setattr(gpu_speed, "QUICK", (cases.QUICK[0], cases.QUICK[2]))
    monkeypatch.setattr(shares, "_STEPS", 1)
    monkeypatch.setattr(device, "_COPIED", {"cpu": 1 << 16})
    monkeypatch.setattr(device, "_SIDE", {"cpu": 32})
    jaxtyping.config.update("jaxtyping_disable", True)  # It would be what is timed.
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


class Late(Here):
    """A worker that is never ready."""

    def ask(self, do, *, deadline, **request):
        return {"bytes_per_second": 1.0, "flops_per_second": 1.0}

    def answer(self, deadline):
        raise gpu_speed.OutOfTimeError

    def send(self, do, **request):
        pass


def _given(tmp_path, *more):
    quick = ["--device", "cpu", "--quick", "--precision", "fp32", "--ways", "effnet"]
    return gpu_speed.parsed([*quick, "--out", str(tmp_path / "gpu.json"), *more])


def test_a_case_of_each_kind_has_all_figures(here, tmp_path):
    report = gpu_speed.run(_given(tmp_path))
    assert json.loads((tmp_path / "gpu.json").read_text()) == json.loads(json.dumps(report))
    assert list(report["cases"]) == ["train v2-b0 32px b4 rmsprop_tf", "infer v2-b0 32px b1"]
    assert report["left_out"] == {}
    for found in report["cases"].values():
        assert found["rounds"] == {"effnet": 1}
        assert found["differences"] == {"effnet": 0.0}
        assert found["peak_bytes"] == {"effnet": None}
        assert sum(found["shares"]["effnet"]["shares"].values()) == pytest.approx(1)
        roof = found["roofline"]
        rate = roof["images_per_second"]["effnet"]
        assert roof["share_of_bandwidth"]["effnet"] == rate / roof["images_per_second_by_bandwidth"]
    text = table(report)
    assert "train v2-b0 32px b4 rmsprop_tf: bandwidth allows" in text
    assert "convolution and matrix product" in text


def test_what_there_is_no_time_for_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_speed, "Worker", Late)
    monkeypatch.setattr(gpu_speed, "LEAST_SECONDS", 1e9)
    report = gpu_speed.run(_given(tmp_path))
    assert report["cases"] == {}
    assert set(report["left_out"].values()) == {
        "the limit was reached while it got ready",
        "no time was left",
    }
    assert "left out: infer v2-b0 32px b1: no time was left" in table(report)


def test_a_way_that_fails_is_left_out_and_the_others_go_on(here, tmp_path, monkeypatch):
    def fail(self, calls):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(worker.Process, "time", fail)
    report = gpu_speed.run(_given(tmp_path, "--only", "infer 32px b1"))
    assert report["left_out"] == {"infer v2-b0 32px b1": "effnet: out of memory"}


def test_what_a_step_moves_by_hand(tmp_path):
    """V2-S at 300 px: 22.7 million outputs of convolutions, 30 bytes each in bf16 (performance.md 4b)."""
    planned = cases.PLAN[0]
    roofs = {"bytes_per_second": 4.3e12, "flops_per_second": 790e12}
    bench = gpu_speed.Bench(_given(tmp_path), 0.0, {"roofs": roofs, "precision": "bf16"})
    found = bench._roofline(planned, {"effnet": [0.064, 0.032, 0.032]})
    bench.close()
    assert planned.case.key == "train v2-s 300px b128 rmsprop_tf"
    assert found["images_per_second_by_bandwidth"] == pytest.approx(6300, rel=0.01)
    assert found["images_per_second_by_arithmetic"] == pytest.approx(24800, rel=0.01)
    assert found["images_per_second"] == {"effnet": 4000.0}
    assert found["share_of_bandwidth"]["effnet"] == pytest.approx(0.63, abs=0.01)


def test_all_that_was_asked_for_is_in_the_plan():
    keys = [planned.case.key for planned in cases.PLAN]
    training = ("v2-s 128px", "v2-s 214px", "v2-s 300px", "v2-m 384px", "v1-b4 380px")
    assert {key[6:].rsplit(" ", 2)[0] for key in keys if key.startswith("train")} == set(training)
    sizes = {"v2-s": 384, "v2-m": 480, "v2-l": 480}
    answers = {f"infer {name} {size}px b{batch}" for name, size in sizes.items() for batch in (1, 16, 128)}
    assert {key for key in keys if key.startswith("infer")} == answers
    assert keys[0] == "train v2-s 300px b128 rmsprop_tf"


def test_who_takes_part_and_who_does_not(everything_is_there):
    full, short = cases.PLAN[0], cases.PLAN[1]
    everyone = cases.ways_of(full, device="cuda", compiles=True)
    assert [way.name for way in everyone.ways] == [way.name for way in cases.TRAIN]
    some = cases.ways_of(short, device="cuda", compiles=True)
    ours = ("effnet", "effnet triton", "effnet graphs", "effnet compiled")
    assert {way.name for way in some.ways} == {*ours, "timm", "timm compiled"}
    for name in ("effnet graphs plain", "effnet compiled graphs"):
        assert some.left_out[name] == "in the first training case only"
    processor = cases.ways_of(full, device="cpu", compiles=False)
    for name in ("effnet graphs", "effnet graphs plain", "effnet compiled graphs"):
        assert processor.left_out[name] == "there are no CUDA graphs on a processor"
    assert not any(way.is_compiled for way in processor.ways)
    uncompiled = cases.ways_of(full, device="cuda", compiles=False)
    assert {"effnet graphs", "effnet graphs plain"} <= {way.name for way in uncompiled.ways}


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(cases, "find_spec", lambda _: None)
    found = cases.ways_of(cases.PLAN[0], device="cuda", compiles=True)
    assert [way.name for way in found.ways] == ["effnet", "effnet graphs plain"]
    assert found.left_out["timm compiled"] == "not installed: timm, triton"


class Failing(Here):
    """A worker that has no memory beside others, and one that is never compiled."""

    asked: ClassVar[list[str]] = []

    def __init__(self, *given):
        self._way = ""

    def send(self, do, **request):
        self._way = request["way"]
        self.asked.append(self._way)

    def answer(self, deadline):
        if self._way == "timm compiled":
            raise gpu_speed.OutOfTimeError
        if self._way == "effnet compiled" and self.asked.count(self._way) == 1:
            raise RuntimeError("out of memory")
        if self._way == "effnet triton":
            raise RuntimeError("broken")
        return {"seconds": 1.0}


def test_who_fails_beside_others_tries_again_alone(everything_is_there, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_speed, "Worker", Failing)
    Failing.asked.clear()
    bench, left_out = gpu_speed.Bench(_given(tmp_path), 1e12, {}), {}
    everyone = cases.ways_of(cases.PLAN[1], device="cuda", compiles=True).ways
    ways, about = bench._prepared(cases.PLAN[1], everyone, str(tmp_path), 0.0, left_out)
    bench.close()
    assert [way.name for way in ways] == ["effnet", "timm", "effnet graphs", "effnet compiled"]
    assert set(about) == {way.name for way in ways}
    assert left_out == {"effnet triton": "broken", "timm compiled": "it was not compiled in time"}
    assert Failing.asked[-1] in {"effnet triton", "effnet compiled"}


def test_an_earlier_call_is_kept_where_that_is_asked_for(tmp_path):
    (tmp_path / "gpu.json").write_text('{"cases": {"one": {}}}')
    assert gpu_speed.kept(_given(tmp_path)) == {}
    assert gpu_speed.kept(_given(tmp_path, "--keep")) == {"one": {}}


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<__half>", "batch norm"),
        ("void cudnn::batchnorm_fwtr_nhwc_semiPersist", "batch norm"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution and matrix product"),
        ("nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT", "convolution and matrix product"),
        ("void at::native::conv_depthwise2d_forward_kernel<3>", "depthwise convolution"),
        ("triton_red_fused__native_batch_norm_legit_silu_3", "compiled, with reduction"),
        ("triton_poi_fused_silu_backward_7", "compiled, elementwise"),
        ("void at::native::multi_tensor_apply_kernel<Lerp>", "optimizer and average"),
        ("void at::native::vectorized_elementwise_kernel<4, silu_kernel>", "activation"),
        ("Memcpy DtoD (Device -> Device)", "copies and layout"),
        ("void at::native::reduce_kernel<512, MeanOps>", "reduction"),
        ("void at::native::vectorized_elementwise_kernel<4, AddFunctor>", "elementwise"),
        ("something_else", "other"),
    ],
)
def test_a_kernel_has_a_kind(kernel, kind):
    assert kind_of(kernel) == kind


def test_our_kernels_are_told_from_all_others():
    norm, depthwise = (
        [name for name in vars(module) if name.endswith("_program")]
        for module in (norm_programs, depthwise_programs)
    )
    assert norm
    assert depthwise
    assert {kind_of(name) for name in norm} == {"batch norm and what follows, ours"}
    assert {kind_of(name) for name in depthwise} == {"depthwise convolution, ours"}


def test_shares_add_up_to_one():
    found = shares_of([("triton_red_1", 1.0), ("triton_red_2", 2.0), ("Memset", 1.0)])
    assert found == {"compiled, with reduction": 0.75, "copies and layout": 0.25}
    assert shares_of([]) == {}
    found = measure_shares(lambda: torch.ones(64, 64) @ torch.ones(64, 64), torch.device("cpu"))
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert found["kernel_seconds"] > 0


@pytest.fixture
def stub(tmp_path):
    """A process that answers nothing, an error or what it was asked."""
    (tmp_path / "worker.py").write_text(
        "import sys, time\n"
        "for line in sys.stdin:\n"
        "    if 'wait' in line: time.sleep(60)\n"
        "    print('{\"error\": \"broken\"}' if 'fail' in line else line, flush=True, end='\\n')\n"
    )
    made = gpu_speed.Worker(tmp_path / "worker.py")
    yield made
    made.close()


def test_a_worker_is_waited_for_until_the_limit_and_no_longer(stub):
    soon = time.monotonic() + 30
    assert stub.ask("fine", deadline=soon, calls=3) == {"do": "fine", "calls": 3}
    stub._process.stdout.readline()
    with pytest.raises(RuntimeError, match="broken"):
        stub.ask("fail", deadline=soon)
    with pytest.raises(gpu_speed.OutOfTimeError):
        stub.ask("wait", deadline=time.monotonic() + 0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure")
def test_a_processor_does_not_pass_for_a_gpu(capsys):
    with pytest.raises(SystemExit):
        gpu_speed.parsed([])
    assert "there is no CUDA device; --device cpu --quick checks this script" in capsys.readouterr().err
