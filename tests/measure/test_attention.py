"""The kernel that is named is the kernel that runs."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from tokensearch.measure import attention_of, sdpa_backend
from tokensearch.ops import use_kernels

CPU = torch.device("cpu")
OPERATORS = {
    "flash": "aten::_scaled_dot_product_flash_attention_for_cpu",
    "math": "aten::_scaled_dot_product_attention_math",
}


def asked(dtype: torch.dtype = torch.float32, *, masked: bool = False) -> str:
    return sdpa_backend(CPU, dtype, heads=3, tokens=17, head_dim=8, masked=masked)


def run(dtype: torch.dtype, *, masked: bool) -> set[str]:
    """Operators of one call on the CPU."""
    q = torch.randn(1, 3, 17, 8).to(dtype)
    bias = torch.randn(1, 1, 1, 17).to(dtype) if masked else None
    activities = [ProfilerActivity.CPU]
    with torch.inference_mode(), profile(activities=activities, acc_events=True) as seen:
        F.scaled_dot_product_attention(q, q, q, attn_mask=bias)
    return {event.name for event in seen.events()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("allowed", [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])
def test_the_kernel_that_is_named_is_the_one_that_runs(
    dtype: torch.dtype, allowed: SDPBackend, *, masked: bool
) -> None:
    with sdpa_kernel(allowed):
        named, seen = asked(dtype, masked=masked), run(dtype, masked=masked)

    assert OPERATORS[named] in seen
    assert not (set(OPERATORS.values()) - {OPERATORS[named]}) & seen


def test_a_model_is_asked_about_its_first_block() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1).eval()
    whole = sdpa_backend(CPU, torch.float32, heads=3, tokens=197, head_dim=64, masked=False)

    assert attention_of(model) == whole
    with sdpa_kernel(SDPBackend.MATH):
        assert attention_of(model) == "math"


def test_attention_that_is_spelt_out_is_called_explicit() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1).eval()
    model.blocks[0].attn.fused_attn = False

    assert attention_of(model) == "explicit"


def test_attention_that_does_not_say_its_heads_is_unknown() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1).eval()
    del model.blocks[0].attn.num_heads

    assert attention_of(model) == "unknown"


def test_a_bias_is_for_the_fused_kernel_where_that_takes_it() -> None:
    with use_kernels("triton"):
        assert asked(torch.bfloat16, masked=True) == "triton"
        assert asked(torch.bfloat16) != "triton"
        assert asked(torch.float64, masked=True) in OPERATORS
