"""Recorded passes do what passes do that are not; a stand-in for a GPU records what it runs again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from effnet.api import configure, start_run
from effnet.arch.external import ExternalSpec
from effnet.arch.family import released_preprocessing
from effnet.data.processes import Processes
from effnet.errors import UserError
from effnet.training import graphs, step, tune
from effnet.training.batches import noise_batch
from effnet.training.compiling import uncompiled
from effnet.training.experiment import Experiment, prepare_experiment
from effnet.training.graphs import RecordedPasses, Recording, check_recording, records_passes
from effnet.training.optimizers import optimizer_tensors
from effnet.training.step import TrainState, initial_state, rehearse_step, set_phase, train_step
from effnet.training.unread import prepare_unread
from effnet.training.watch import watched

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def make_experiment(*more: str) -> Experiment:
    """Return a run of two sizes with all kinds of random numbers."""
    small = ("model.network=v2-b0", "model.width=0.1", "model.depth=0.2", "data.classes=10")
    stages = ("progressive.stages=2", "progressive.image_size=[24,32]", "train.batch_size=8")
    rates = ("progressive.dropout_rate=[0.2,0.4]", "progressive.drop_path_rate=[0.3,0.5]")
    rest = ("data.train_images=100", "train.device=cpu", "train.kernels=plain")
    return prepare_unread(configure(recipe="scratch", changes=(*small, *stages, *rates, *rest, *more)))


@pytest.fixture
def experiment() -> Experiment:
    return make_experiment("train.micro_batch_size=3")


class Recorder:
    """Records on a processor: a replay does the work again, into the same memory."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Any]] = []
        """Of each recording, the passes before it and the pool that it was given."""
        self.fails = False

    def __call__(self, work, warmup, pool) -> Recording:
        self.told.append((warmup, pool))
        for _ in range(warmup):
            work()
        outputs = [value.clone() for value in work()]
        if self.fails:
            raise torch.OutOfMemoryError("no room")

        def replay() -> None:
            for memory, value in zip(outputs, work(), strict=True):
                memory.copy_(value)

        return Recording(outputs=outputs, replay=replay, pool=(0, len(self.told)))


@pytest.fixture
def recorder(monkeypatch) -> Recorder:
    """Let all passes be recorded."""
    recorder = Recorder()
    monkeypatch.setattr(step, "records_passes", lambda experiment: True)
    monkeypatch.setattr(step, "RecordedPasses", partial(RecordedPasses, record=recorder))
    return recorder


def do_steps(experiment: Experiment, plan: str) -> tuple[TrainState, list[torch.Tensor]]:
    """Do a step for each letter: on small or large images, in capitals where only the classifier learns."""
    state, losses = initial_state(experiment), []
    for number, letter in enumerate(plan):
        settings = experiment.schedule.stages["sl".index(letter.lower())]
        set_phase(state, experiment, settings, is_head_only=letter.isupper())
        batch = replace(noise_batch(experiment, settings, 8), step=number)
        losses.append(train_step(state, batch, experiment))
    return state, losses


def tensors_of(state: TrainState) -> dict[str, torch.Tensor]:
    average = {f"average {name}": value for name, value in state.ema.state_dict().items()}
    return state.model.state_dict() | optimizer_tensors(state.optimizer) | average


def assert_same(experiment: Experiment, eager: Experiment, plan: str) -> TrainState:
    """Make sure that steps of two runs do the same, bit for bit; return the state of the first."""
    (recorded, losses), (plain, expected) = do_steps(experiment, plan), do_steps(eager, plan)
    assert recorded.passes is not None
    assert plain.passes is None
    assert torch.equal(torch.stack(losses), torch.stack(expected))
    wanted = tensors_of(plain)
    assert [
        name for name, value in tensors_of(recorded).items() if not torch.equal(value, wanted[name])
    ] == []
    return recorded


def plain_twin(monkeypatch, experiment: Experiment) -> Experiment:
    """Return an equal run whose passes are not recorded."""
    twin = replace(experiment, config=replace(experiment.config))
    monkeypatch.setattr(step, "records_passes", lambda run: run is not twin)
    return twin


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("train.micro_batch_size=3",),
        ("train.micro_batch_size=3", "train.gradient_clip=0.1", "train.adaptive_clip=0.02"),
        ("train.micro_batch_size=4", "train.precision=fp16"),
        ("train.loss=sigmoid", "optimizer.weight_decay_mode=decoupled"),
    ],
)
def test_recorded_steps_are_the_steps_bit_for_bit(recorder, monkeypatch, changes):
    experiment = make_experiment(*changes)
    assert_same(experiment, plain_twin(monkeypatch, experiment), "SsslLls")
    assert recorder.told


def test_statistics_that_stay_are_another_kind(recorder, monkeypatch, experiment):
    frozen = replace(experiment.config, train=replace(experiment.config.train, freeze_norm=True))
    frozen = replace(experiment, config=frozen)
    assert_same(frozen, plain_twin(monkeypatch, frozen), "ss")
    state, _ = do_steps(experiment, "s")
    before = len(recorder.told)
    set_phase(state, frozen, experiment.schedule.stages[0], is_head_only=False)
    train_step(state, noise_batch(experiment, experiment.schedule.stages[0], 8), frozen)
    assert len(recorder.told) == before + 2


def test_each_kind_is_recorded_once_and_sizes_do_not_share(recorder):
    whole = make_experiment()
    do_steps(whole, "ssslls")
    # A size that comes again needs no preparation.
    assert recorder.told == [(3, None), (3, None), (0, None)]


def test_micro_batches_of_two_lengths_share_memory_but_are_not_prepared_beside_each_other(
    recorder, experiment
):
    do_steps(experiment, "sss")
    assert recorder.told == [(3, None), (3, None), (0, (0, 2))]


def test_drop_rates_are_no_other_kind(recorder):
    experiment = make_experiment()
    state, _ = do_steps(experiment, "s")
    settings = experiment.schedule.stages[0]
    rates = {"dropout_rate": 0.0, "drop_path_rate": 0.0}
    set_phase(state, experiment, replace(settings, **rates), is_head_only=False)
    batch = noise_batch(experiment, settings, 8)
    still = float(train_step(state, batch, experiment))
    set_phase(state, experiment, settings, is_head_only=False)
    assert float(train_step(state, batch, experiment)) != still
    assert len(recorder.told) == 1


def test_gradients_are_replayed_memory_unless_they_are_added_up(recorder):
    for changes, is_own in (((), False), (("train.micro_batch_size=4",), True)):
        state, _ = do_steps(make_experiment(*changes), "s")
        (found,) = state.passes._passes.values()
        memory = {value.data_ptr() for value in found.recording.outputs}
        gradients = {parameter.grad.data_ptr() for parameter in state.model.parameters()}
        assert gradients.isdisjoint(memory) == is_own
        assert is_own or gradients < memory


def test_to_record_changes_nothing(recorder, experiment):
    state, _ = do_steps(experiment, "s")
    state.passes.drop()
    state.passes._known.clear()
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    settings = experiment.schedule.stages[0]
    images, targets = step.mixed_batch(noise_batch(experiment, settings, 8), experiment, seed=0)
    random = torch.get_rng_state()
    gradients = [parameter.grad for parameter in state.model.parameters()]
    copies = [gradient.clone() for gradient in gradients]
    given = (images, targets, torch.ones(()))
    state.passes._recorded(state.passes._kind(given), given)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert all(p.grad is kept for p, kept in zip(state.model.parameters(), gradients, strict=True))
    assert all(torch.equal(kept, copy) for kept, copy in zip(gradients, copies, strict=True))


def test_a_rehearsal_leaves_everything_as_it_was(recorder, experiment):
    state, _ = do_steps(experiment, "s")
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    rehearse_step(state, noise_batch(experiment, experiment.schedule.stages[0], 8), experiment)
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    assert all(parameter.grad is None for parameter in state.model.parameters())


def test_where_there_is_no_room_to_record_nothing_is_left_of_it(recorder, experiment):
    state, _ = do_steps(experiment, "s")
    settings = experiment.schedule.stages[1]
    set_phase(state, experiment, settings, is_head_only=False)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    recorder.fails = True
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        train_step(state, noise_batch(experiment, settings, 8), experiment)
    assert state.passes._passes == {}
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())
    recorder.fails = False
    train_step(state, noise_batch(experiment, settings, 8), experiment)
    assert state.passes._passes


def test_what_was_recorded_before_gives_way_to_what_there_is_no_room_for(recorder, experiment):
    state, _ = do_steps(experiment, "s")
    assert state.passes._passes  # Those of the shorter micro-batch, with which the step ended.
    recorder.fails = True
    with pytest.raises(torch.OutOfMemoryError):
        train_step(state, noise_batch(experiment, experiment.schedule.stages[0], 8), experiment)
    assert state.passes._passes == {}


def test_what_learns_makes_another_kind():
    layer, recorder = torch.nn.Linear(2, 1), Recorder()

    def work(images, targets, weight) -> torch.Tensor:
        mean = (layer(images.mean((2, 3))) * targets).mean()
        torch.autograd.backward(mean, weight)
        return mean.detach()

    passes = RecordedPasses(layer, work, CPU, recorder)
    given = (torch.ones(3, 2, 4, 4), torch.ones(3, 1), torch.tensor(2.0))
    passes.run(*given, is_part=False)
    assert (layer.weight.grad.tolist(), layer.bias.grad.tolist()) == ([[2.0, 2.0]], [2.0])
    layer.zero_grad()
    layer.weight.requires_grad_(False)
    passes.run(*given, is_part=False)
    assert (layer.weight.grad, layer.bias.grad.tolist()) == (None, [2.0])
    assert len(recorder.told) == 2


def test_a_watched_step_is_done_as_it_is_and_has_the_memory(recorder, monkeypatch, experiment):
    state, _ = do_steps(experiment, "s")
    settings, twin = experiment.schedule.stages[0], plain_twin(monkeypatch, experiment)
    batch = replace(noise_batch(experiment, settings, 8), step=1)
    loss, findings = watched(lambda: train_step(state, batch, experiment), state.model)
    assert findings.outputs
    assert findings.gradients
    assert state.passes._passes == {}
    plain, expected = do_steps(twin, "ss")
    assert torch.equal(loss, expected[1])
    wanted = tensors_of(plain)
    assert all(torch.equal(value, wanted[name]) for name, value in tensors_of(state).items())
    with uncompiled():
        assert graphs.runs_as_it_is()
    assert not graphs.runs_as_it_is()


def test_recordings_make_room_where_little_is_left(recorder, monkeypatch, experiment):
    state, _ = do_steps(experiment, "s")
    state.passes.make_room()
    assert state.passes._passes
    state.passes._device = CUDA
    free = 20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 100))
    state.passes.make_room()
    assert state.passes._passes
    free = 10
    state.passes.make_room()
    assert state.passes._passes == {}


def recording(experiment: Experiment, **changes: Any) -> Experiment:
    train = replace(experiment.config.train, compile="graphs")
    given = {"device": CUDA, "config": replace(experiment.config, train=train)} | changes
    return replace(experiment, **given)


def test_a_new_run_that_cannot_be_recorded_is_refused(experiment):
    check_recording(experiment)
    check_recording(recording(experiment))
    assert records_passes(recording(experiment))
    assert not records_passes(replace(experiment, device=CUDA))
    timm = ExternalSpec(
        name="timm:x",
        preprocessing=released_preprocessing(experiment.spec),
        train_size=224,
        classifier="fc",
    )
    for changes, reason in (
        ({"device": CPU}, "the run is on cpu"),
        ({"processes": Processes(count=2)}, "the run has 2 processes"),
        ({"spec": timm}, "timm:x is no EfficientNet"),
    ):
        refused = recording(experiment, **changes)
        assert not records_passes(refused)
        with pytest.raises(UserError, match=f"on a CUDA device, and {reason}; set train.compile=off"):
            check_recording(refused)


def test_recomputed_blocks_cannot_be_recorded():
    with pytest.raises(UserError, match="do not go together: a CUDA graph cannot record recomputed blocks"):
        initial_state(make_experiment("train.compile=graphs", "model.gradient_checkpointing=true"))


def test_a_new_run_on_a_processor_is_refused_before_it_has_a_folder(tmp_path):
    changes = ("train.compile=graphs", "train.device=cpu")
    config = configure(data="digits", model="v2-b0", recipe="scratch", changes=changes)
    with pytest.raises(UserError, match=r"train\.compile 'graphs' records the passes of one process"):
        start_run(config, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_run_has_the_same_result(recorder, monkeypatch, tmp_path):
    small = ("model.width=0.1", "model.depth=0.2", "progressive.stages=2", "progressive.image_size=[16,24]")
    more = ("train.epochs=0.2", "train.batch_size=64", "train.device=cpu", "train.head_epochs=0.05")
    changes = (*small, *more, "evaluate.image_size=24")
    config = configure(data="digits", model="v2-b0", recipe="scratch", changes=changes)
    recorded = start_run(config, tmp_path / "recorded", quiet=True)
    assert recorder.told
    monkeypatch.setattr(step, "records_passes", lambda experiment: False)
    plain = start_run(config, tmp_path / "plain", quiet=True)
    assert (recorded.steps, recorded.val_top1) == (plain.steps, plain.val_top1)
    weights = [tmp_path / name / "checkpoints" / "best.safetensors" for name in ("recorded", "plain")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_passes_are_recorded_before_steps_are_timed_beside_the_loader(recorder, monkeypatch):
    small = ("model.width=0.1", "model.depth=0.2", "progressive.stages=1", "progressive.image_size=[16,16]")
    changes = (*small, "train.batch_size=8", "train.device=cpu")
    run = prepare_experiment(configure(data="digits", model="v2-b0", recipe="scratch", changes=changes))
    recorded: list[int] = []
    monkeypatch.setattr(tune, "SECONDS", 0.0)
    monkeypatch.setattr(tune, "train_step", lambda *given: recorded.append(len(recorder.told)))
    state, settings = initial_state(run), run.schedule.stages[0]
    tune.measure_together(run, state, settings, tune.StepSpeed(batch_size=8, seconds=1.0), workers=1)
    assert recorded == [1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("kernels", ["plain", "triton-norm", "triton"])
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("micro_batch_size", [0, 4, 3])
def test_a_gpu_replays_steps_bit_for_bit(monkeypatch, kernels, precision, micro_batch_size):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    choices = (f"train.kernels={kernels}", f"train.precision={precision}")
    made = make_experiment(*choices, f"train.micro_batch_size={micro_batch_size}", "train.compile=graphs")
    experiment = replace(made, device=CUDA)
    off = replace(made.config, train=replace(made.config.train, compile="off"))
    assert_same(experiment, replace(experiment, config=off), "SssllLlss")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_has_its_memory_again_when_recordings_are_dropped(monkeypatch):
    experiment = replace(make_experiment("train.compile=graphs"), device=CUDA)
    state, _ = do_steps(experiment, "sl")
    torch.cuda.synchronize()
    held = torch.cuda.memory_reserved()
    assert graphs.records_passes(experiment)
    state.optimizer.zero_grad(set_to_none=True)
    state.passes.drop()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_without_room_gives_up_a_recording_half_made():
    experiment = replace(make_experiment("train.compile=graphs"), device=CUDA)
    state, settings = initial_state(experiment), experiment.schedule.stages[1]
    set_phase(state, experiment, settings, is_head_only=False)
    images, targets = step.mixed_batch(noise_batch(experiment, settings, 512), experiment, seed=0)
    given = (images, targets, torch.ones((), device=CUDA))
    torch.manual_seed(0)
    expected = state.passes.run(*given, is_part=False).clone()
    state.optimizer.zero_grad(set_to_none=True)
    state.passes.drop()
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + 2**25
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(torch.OutOfMemoryError):
            state.passes.run(*given, is_part=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert state.passes._passes == {}
    torch.manual_seed(0)
    assert torch.equal(state.passes.run(*given, is_part=False), expected)
