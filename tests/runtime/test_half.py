"""Half precision, pure and under autocast, on the CPU."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

import tokensearch
from tests.runtime.operators import POLICIES, host
from tests.runtime.test_apply import vit
from tokensearch import ops
from tokensearch.ops import Tokens
from tokensearch.policy import Policy, Pool
from tokensearch.runtime import describe
from tokensearch.runtime.token_state import read_state

HALVES = [torch.float16, torch.bfloat16]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def float_types(model: nn.Module) -> set[torch.dtype]:
    """Number types of what blocks take and hand on, with the token state; filled as it runs."""
    seen: set[torch.dtype] = set()

    def look(_: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        tensors = [inputs[0], out, *(read_state(out) or ())]
        seen.update(one.dtype for one in tensors if one is not None and one.is_floating_point())

    for block in model.blocks:
        block.register_forward_hook(look)
    return seen


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", POLICIES)
def test_a_model_in_half_precision_holds_nothing_else_between_blocks(
    name: str, dtype: torch.dtype
) -> None:
    model = tokensearch.apply(host().to(dtype), POLICIES[name])
    seen = float_types(model)

    with torch.inference_mode():
        logits = model(IMAGES.to(dtype))

    assert seen == {dtype}
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", POLICIES)
def test_autocast_gives_finite_logits_in_the_types_that_it_has_without_a_policy(
    name: str, dtype: torch.dtype
) -> None:
    plain, model = host(), tokensearch.apply(host(), POLICIES[name])
    before, seen = float_types(plain), float_types(model)

    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype):
        plain_logits, logits = plain(IMAGES), model(IMAGES)

    assert seen == before
    assert logits.dtype == plain_logits.dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_nothing_in_sizes_makes_a_logit_infinite(dtype: torch.dtype) -> None:
    sizes = torch.tensor([torch.finfo(dtype).tiny, 1, 196, 1024]).to(dtype)[None, :, None]

    assert ops.size_bias(sizes).isfinite().all()


@pytest.mark.parametrize("dtype", HALVES)
def test_sizes_of_a_grid_of_256_patches_are_exact(dtype: torch.dtype) -> None:
    tokens = Tokens(torch.ones(1, 257, 8, dtype=dtype))

    for left in (128, 64, 32, 16, 8, 4, 2, 1):
        matching = ops.match_bipartite(tokens.x, removed=left, prefix=1)
        tokens = ops.merge(tokens, matching, prefix=1)

    assert tokens.size is not None
    assert tokens.size.flatten().tolist() == [1, 256]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("make", [torch.zeros, torch.ones])
def test_tokens_without_length_or_difference_are_merged_without_nan(
    make: Any, dtype: torch.dtype
) -> None:
    tokens = Tokens(make(1, 9, 4, dtype=dtype))
    ranking = ops.rank(make(1, 8, dtype=dtype), keep=5, prefix=1)

    merged = ops.merge(tokens, ops.match_bipartite(tokens.x, removed=3, prefix=1), prefix=1)
    ranked = ops.merge_ranked(tokens, ranking, prefix=1)

    for after in (merged, ranked):
        assert after.size is not None
        assert after.x.isfinite().all()
        assert ops.size_bias(after.size).isfinite().all()


def test_long_values_do_not_overflow_a_score() -> None:
    row = torch.full((1, 2, 9), 1 / 9, dtype=torch.float16)
    values = torch.full((1, 2, 9, 64), 100.0, dtype=torch.float16)

    score = ops.class_attention_value(row, values, prefix=1)

    torch.testing.assert_close(score, torch.full((1, 8), 1 / 8, dtype=torch.float16))


@pytest.mark.parametrize("dtype", HALVES)
def test_long_shifts_do_not_overflow_a_score(dtype: torch.dtype) -> None:
    before, after = torch.zeros(1, 577, 4, dtype=dtype), torch.full((1, 577, 4), 100.0, dtype=dtype)

    score = ops.representation_shift(before, after, prefix=1)

    torch.testing.assert_close(score, torch.full((1, 576), 1 / 576, dtype=dtype))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("pool", ["avg", "avgmax"])
@torch.inference_mode()
def test_large_features_do_not_overflow_an_average_by_size(pool: str, dtype: torch.dtype) -> None:
    model = vit(global_pool=pool, patch_size=2)
    model.blocks[-1].mlp.fc2.bias[0] = 300.0  # of 256 patches the sum is beyond float16
    plain = model.to(dtype)(IMAGES.to(dtype))

    logits = tokensearch.apply(model, Policy(describe(model), (Pool(0, 250),)))(IMAGES.to(dtype))

    torch.testing.assert_close(logits, plain, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_of_equals_the_earlier_survives(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 4, (3, 196), generator=generator).to(dtype)

    order = ops.rank(score, keep=196, prefix=0, by_score=True).kept

    expected = [sorted(range(196), key=lambda n: (-row[n], n)) for row in score.tolist()]
    assert order.tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_features_far_apart_are_clustered_as_in_double_precision(dtype: torch.dtype) -> None:
    features = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)) * 300
    features = features.to(dtype)

    for cluster in (ops.kmeans, ops.kmedoids):
        labels = cluster(features, clusters=20)
        exact = cluster(features.double(), clusters=20)
        assert (labels == exact).float().mean() > 0.9


RAISED = (
    *("cdist", "cumsum", "exp", "layer_norm", "linalg_vector_norm", "log", "pow"),
    *("reciprocal", "softmax", "sum"),
)


class LikeOnCuda(TorchFunctionMode):
    """What autocast does on CUDA and not on a CPU: sums, norms and logarithms in single precision.

    Source: the lists `AT_FORALL_FP32` and `AT_FORALL_FP32_SET_OPT_DTYPE` of autocast_mode.h.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in RAISED and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, _raised, (args, kwargs))
        return func(*args, **(kwargs or {}))


def _raised(one: Tensor) -> Tensor:
    return one.float() if one.dtype in HALVES else one


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", POLICIES)
def test_a_model_in_half_precision_stays_so_inside_the_autocast_of_cuda(
    name: str, dtype: torch.dtype
) -> None:
    plain, model = host().to(dtype), tokensearch.apply(host().to(dtype), POLICIES[name])
    before, seen = float_types(plain), float_types(model)

    with torch.inference_mode(), torch.autocast("cpu", dtype=dtype), LikeOnCuda():
        plain(IMAGES.to(dtype))
        logits = model(IMAGES.to(dtype))

    assert seen == before == {dtype}
    assert logits.isfinite().all()
