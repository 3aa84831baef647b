"""A Llama on a card: as many programs as OPT has, no read of the host, and one attention call with grouped heads."""

import pytest
from conftest import OnCard

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("precision", "strategy"),
    [
        ("bf16-mixed", "single"),
        pytest.param("16-mixed", "fsdp", marks=pytest.mark.endurance),
        pytest.param("16-mixed", "single", marks=pytest.mark.endurance),
        pytest.param("bf16-mixed", "fsdp", marks=pytest.mark.endurance),
    ],
)
def test_its_layers(on_card: OnCard, precision: str, strategy: str) -> None:
    """Angles in float32 made the kernel over all examples unreachable, and a mask that nobody needs was read back."""
    found = on_card("h100", "fake_cuda.llama", precision, strategy)
    assert found["host_reads"] == []
    assert found["graphs"] == 2
    assert found["attention_calls"] == 4, "forward and backward of the layers and of the last one"
    assert all(count >= 5 for count in found["triton_kernels"])
    assert found["loss"] == "torch.float32"
    short = {"bf16-mixed": "torch.bfloat16", "16-mixed": "torch.float16"}[precision]
    assert found["gradients"] == [short if strategy == "fsdp" else "torch.float32"]
