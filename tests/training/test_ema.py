import pytest
import torch

from effnet.training.ema import Ema, ema_decay


@pytest.mark.parametrize(
    ("step", "decay"), [(0, 0.1), (1, 2 / 11), (90, 0.91), (89_989, 89_990 / 89_999), (89_990, 0.9999)]
)
def test_decay_warms_up_as_tensorflows(step, decay):
    assert ema_decay(step, decay=0.9999, warmup=True) == pytest.approx(decay, rel=1e-12)
    assert ema_decay(step, decay=0.9999, warmup=False) == 0.9999


def test_averages_follow_weights_and_statistics(make_network, backward):
    network = make_network()
    ema = Ema(network, decay=0.9999, warmup=True)
    expected = {name: tensor.double() for name, tensor in network.state_dict().items()}
    for step in range(5):
        backward(network, step)
        with torch.no_grad():
            for param in network.parameters():
                param.sub_(param.grad, alpha=0.1)
        ema.update(step)
        decay = (1 + step) / (10 + step)
        for name, tensor in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()

    averages = ema.state_dict()
    assert averages["norm.num_batches_tracked"] == 5
    del expected["norm.num_batches_tracked"]
    assert {"norm.running_mean", "norm.running_var"} < expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(averages[name].double(), tensor, rtol=1e-5, atol=1e-6)
    for name in ("stem.weight", "classifier.bias", "norm.running_mean", "norm.running_var"):
        assert not torch.equal(averages[name], network.state_dict()[name])


def test_rates_that_are_not_saved_are_not_averaged(make_network):
    network = make_network()
    ema = Ema(network, decay=0.5, warmup=False)
    network.drop_rate.fill_(0.9)
    ema.update(0)
    with ema.swapped_into(network):
        assert network.drop_rate.item() == pytest.approx(0.9)
    assert "drop_rate" not in ema.state_dict()


def test_decay_of_zero_follows_exactly(make_network):
    network = make_network()
    ema = Ema(network, decay=0.0, warmup=True)
    with torch.no_grad():
        network.stem.weight.mul_(3.3)
    ema.update(0)
    assert torch.equal(ema.state_dict()["stem.weight"], network.stem.weight)


def test_swapping_evaluates_the_averages_and_restores_bit_for_bit(make_network, backward):
    network = make_network()
    ema = Ema(network, decay=0.9, warmup=False)
    backward(network, 0)
    with torch.no_grad():
        network.stem.weight.mul_(1.1)
    ema.update(0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.ones(2, 3, 6, 6)
    averaged = make_network(seed=3)
    ema.copy_to(averaged)

    def fail_inside():
        with ema.swapped_into(network):
            assert torch.equal(network.eval()(images), averaged.eval()(images))
            raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        fail_inside()
    assert not torch.equal(before["stem.weight"], averaged.stem.weight)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    ema.update(1)
    assert not torch.equal(ema.state_dict()["stem.weight"], averaged.stem.weight)


def test_loaded_averages_are_equal_and_independent(make_network):
    source = Ema(make_network(seed=5), decay=0.9, warmup=False)
    target = Ema(make_network(), decay=0.9, warmup=False)
    target.load(source.state_dict())
    target.update(0)
    assert not torch.equal(source.state_dict()["stem.weight"], target.state_dict()["stem.weight"])
    target.load(source.state_dict())
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_a_step_of_a_larger_batch_decays_as_the_steps_it_stands_for():
    for warmup in (True, False):
        decay = ema_decay(400.0, decay=0.99, warmup=warmup, reference_steps=4.0)
        assert decay == pytest.approx(ema_decay(400, decay=0.99, warmup=warmup) ** 4)
        assert ema_decay(400.0, decay=0.99, warmup=warmup) == ema_decay(400, decay=0.99, warmup=warmup)
