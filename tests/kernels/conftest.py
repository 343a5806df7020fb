"""Every test of an operation runs twice: in plain PyTorch and in Triton, interpreted on a processor."""

import jaxtyping
import pytest
import torch

from effnet.kernels import dispatch


@pytest.fixture(params=["plain", "triton"])
def backend(request, monkeypatch) -> str:
    """Who computes; tiles are small, so that small tensors have several, and several programs share them."""
    if request.param == "plain":
        monkeypatch.setattr(dispatch, "has_triton", lambda: False)
    else:
        use_small_tiles(monkeypatch)
    return request.param


@pytest.fixture
def small_tiles(monkeypatch) -> None:
    use_small_tiles(monkeypatch)


def use_small_tiles(monkeypatch) -> None:
    skip_without_interpreter()
    from effnet.kernels import depthwise_triton, norm_triton

    monkeypatch.setattr(depthwise_triton, "_TILE", 256)
    monkeypatch.setattr(depthwise_triton, "_TILE_WIDTH", 4)
    monkeypatch.setattr(depthwise_triton, "_MOST_CHANNELS", 8)
    monkeypatch.setattr(depthwise_triton, "_ROWS_TILE", 32)
    monkeypatch.setattr(depthwise_triton, "_SHORTEST", 3)
    for name in ("_TILE", "_SUM_TILE", "_POOL_TILE", "_IMAGE_TILE"):
        monkeypatch.setattr(norm_triton, name, 128)
    monkeypatch.setattr(norm_triton, "_MOST_CHANNELS", 8)
    monkeypatch.setattr(norm_triton, "_MOST_SUM_CHANNELS", 8)
    monkeypatch.setattr(norm_triton, "_PROGRAMS", 3)
    monkeypatch.setattr(norm_triton, "_PARTS", 2)
    monkeypatch.setattr(norm_triton, "_MOVED", 4)


def skip_without_interpreter() -> None:
    if not dispatch.has_triton():
        pytest.skip("Triton is not installed; it comes with the extra 'kernels'")
    if not dispatch.is_interpreted():
        pytest.skip("Triton compiles here; TRITON_INTERPRET=1 lets it run on a processor")


@pytest.fixture
def untyped():
    """The compiler cannot look into checks of types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def draw():
    """Return a function that draws activations with their channels last."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values

    return normal
