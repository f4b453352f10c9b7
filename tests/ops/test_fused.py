"""Fused kernels give what small operations give. Without a GPU, Triton's interpreter runs them."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import tokensearch
from tokensearch import ops
from tokensearch.ops import Tokens, fused, use_kernels
from tokensearch.policy import Policy, Pool, Prune, PruneOrPool
from tokensearch.runtime import describe

pytest.importorskip("triton")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Images, heads, tokens, features of a head, removed, prefix.
SHAPES = [
    (1, 3, 197, 64, 13, 1),
    (2, 3, 59, 48, 13, 1),
    (2, 2, 18, 32, 8, 1),
    (1, 3, 66, 20, 20, 5),
    (2, 3, 64, 32, 32, 0),
    (1, 2, 300, 16, 149, 1),
    (3, 1, 3, 16, 1, 1),
    (1, 4, 2, 8, 0, 1),
]
SIZED = pytest.mark.parametrize("sized", ["sized", "unsized"])
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


def drawn(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as timm's blocks make them."""
    images, heads, length, width = shape[:4]
    torch.manual_seed(0)
    parts = torch.randn(images, length, 3, heads, width).to(DEVICE, dtype)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    return q, k, v


def tokens_of(shape: tuple[int, ...], *, sized: bool, dtype: torch.dtype = torch.float32) -> Tokens:
    images, heads, length, width = shape[:4]
    x = torch.randn(images, length, heads * width).to(DEVICE, dtype)
    size = torch.randint(1, 400, (images, length, 1)).to(DEVICE, dtype)
    return Tokens(x, size if sized else None)


def both(call):  # type: ignore[no-untyped-def]
    """The result of small operations, and of fused ones."""
    with use_kernels("torch"):
        wanted = call()
    with use_kernels("triton"):
        return wanted, call()


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_are_the_same(shape: tuple[int, ...]) -> None:
    _, keys, _ = drawn(shape)

    wanted, fused = both(lambda: ops.match_bipartite(keys, removed=shape[4], prefix=shape[5]))

    assert all(map(torch.equal, wanted, fused))


def test_what_runs_is_marked_as_torch_marks_constants() -> None:
    @torch.compiler.assume_constant_result
    def marked() -> bool:
        return True

    assert fused._runs_on.__dict__ == marked.__dict__


def test_of_equals_the_earlier_is_matched_and_what_is_no_number_comes_first() -> None:
    keys = torch.ones(1, 2, 12, 16, device=DEVICE)
    keys[:, :, 4] = torch.nan
    keys[:, :, 9, :8] = 0.0

    wanted, fused = both(lambda: ops.match_bipartite(keys, removed=3, prefix=1))

    assert all(map(torch.equal, wanted, fused))
    assert fused.leave[0, 0] == 1  # the row of the token that is no number, in set A


@SIZED
@pytest.mark.parametrize("shape", SHAPES)
def test_merged_tokens_are_the_same(shape: tuple[int, ...], sized: str) -> None:
    _, keys, _ = drawn(shape)
    tokens, prefix = tokens_of(shape, sized=sized == "sized"), shape[5]

    def merged() -> Tokens:
        matching = ops.match_bipartite(keys, removed=shape[4], prefix=prefix)
        return ops.merge(tokens, matching, prefix=prefix)

    wanted, fused = both(merged)

    torch.testing.assert_close(fused.x, wanted.x, rtol=1e-6, atol=1e-6)
    assert torch.equal(fused.size, wanted.size)
    torch.testing.assert_close(fused.log_size, wanted.size.log())


@HALF
def test_in_half_precision_merging_rounds_once(dtype: torch.dtype) -> None:
    _, keys, _ = drawn(SHAPES[0], dtype)
    tokens = tokens_of(SHAPES[0], sized=True, dtype=dtype)
    with use_kernels("torch"):
        matching = ops.match_bipartite(keys.double(), removed=13, prefix=1)
        exact = ops.merge(Tokens(tokens.x.double(), tokens.size.double()), matching, prefix=1)

    with use_kernels("triton"):
        fused = ops.merge(tokens, matching, prefix=1)

    # One step of the number type: the interpreter cuts off what a GPU rounds.
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(fused.x.double(), exact.x, rtol=step, atol=1e-3)
    torch.testing.assert_close(fused.size.double(), exact.size, rtol=step, atol=0)


@pytest.mark.parametrize("bias_is", ["there", "none"])
@pytest.mark.parametrize("shape", SHAPES)
def test_class_attention_is_the_same(shape: tuple[int, ...], bias_is: str) -> None:
    q, k, _ = drawn(shape)
    bias = torch.rand(shape[0], 1, 1, shape[2], device=DEVICE) if bias_is == "there" else None

    wanted, fused = both(lambda: ops.attention_score(q[:, :, :1], k, prefix=shape[5], bias=bias))

    torch.testing.assert_close(fused, wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("order", ["by score", "by place"])
@pytest.mark.parametrize(("tokens", "keep"), [(196, 147), (66, 1), (5, 5), (1, 1), (130, 65)])
def test_ranks_are_the_same_for_equals_and_what_is_no_number(
    tokens: int,
    keep: int,
    order: str,
) -> None:
    score = torch.randint(0, 6, (3, tokens)).to(DEVICE, torch.float32)
    score[1, tokens // 2] = torch.nan
    score[2, ::3] = torch.nan

    wanted, fused = both(lambda: ops.rank(score, keep=keep, prefix=1, by_score=order == "by score"))

    assert all(map(torch.equal, wanted, fused))


@SIZED
def test_picked_tokens_are_the_same(sized: str) -> None:
    tokens = tokens_of((2, 3, 70, 50), sized=sized == "sized")
    index = torch.rand(2, 70, device=DEVICE).argsort(dim=1)[:, :33]

    wanted, fused = both(lambda: ops.pick(tokens, index, prefix=1))

    assert torch.equal(fused.x, wanted.x)
    assert fused.size is None if wanted.size is None else torch.equal(fused.size, wanted.size)


@SIZED
@pytest.mark.parametrize("kind", ["sum", "mean"])
@pytest.mark.parametrize("keep", [1, 40, 68])
def test_what_is_added_for_the_discarded_is_the_same(
    keep: int,
    kind: str,
    sized: str,
) -> None:
    tokens = tokens_of((2, 3, 70, 50), sized=sized == "sized")
    score = torch.rand(2, 69, device=DEVICE)
    ranking = ops.rank(score, keep=keep, prefix=1)
    weight = score if kind == "sum" else None

    wanted, fused = both(lambda: ops.pick_and_add(tokens, ranking, prefix=1, weight=weight))

    torch.testing.assert_close(fused.x, wanted.x, rtol=1e-5, atol=1e-6)
    if wanted.size is None:
        assert fused.size is None
    else:
        torch.testing.assert_close(fused.size, wanted.size)


@SIZED
@pytest.mark.parametrize("shape", [(70, 50, 40, 1), (197, 96, 184, 1), (30, 16, 1, 5)])
def test_ranked_merges_are_the_same(shape: tuple[int, ...], sized: str) -> None:
    length, width, keep, prefix = shape
    tokens = tokens_of((2, 1, length, width), sized=sized == "sized")
    ranking = ops.rank(torch.rand(2, length - prefix, device=DEVICE), keep=keep, prefix=prefix)
    start = ops.start_tokens(tokens.x, prefix=prefix, places=True, sources=True)

    wanted, fused = both(
        lambda: ops.merge_ranked(start._replace(size=tokens.size), ranking, prefix=prefix)
    )

    torch.testing.assert_close(fused.x, wanted.x, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(fused.size, wanted.size, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fused.log_size, fused.size.log())
    assert torch.equal(fused.source, wanted.source)


@pytest.mark.parametrize("shape", SHAPES)
def test_attention_with_a_bias_is_the_same(shape: tuple[int, ...]) -> None:
    # Of half precisions float16: the interpreter multiplies the bits of bfloat16.
    q, k, v = drawn(shape, torch.float16)
    bias = torch.randint(1, 400, (shape[0], 1, 1, shape[2])).to(DEVICE, torch.float16).log()
    exact = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), attn_mask=bias.double()
    )

    with use_kernels("triton"):
        assert ops.is_attention_fused(q, k, v, bias)
        fused = ops.attend_with_bias(q, k, v, bias)

    torch.testing.assert_close(fused.double(), exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("layout", ["of all images", "strided", "for one image"])
def test_a_bias_may_lie_in_memory_as_it_likes(layout: str) -> None:
    q, k, v = drawn((2, 3, 30, 16), torch.float16)
    bias = torch.rand(2, 1, 1, 60, device=DEVICE).half()
    bias = {
        "of all images": bias[..., :30],
        "strided": bias[..., ::2],
        "for one image": bias[:1, ..., :30],
    }[layout]

    wanted, fused = both(lambda: ops.attention_score(q[:, :, :1], k, prefix=1, bias=bias))
    with use_kernels("triton"):
        attended = ops.attend_with_bias(q, k, v, bias)

    torch.testing.assert_close(fused, wanted.float(), rtol=1e-2, atol=1e-4)
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    torch.testing.assert_close(attended, exact, rtol=2e-2, atol=2e-3)


def test_keys_of_no_size_take_no_attention_however_many_come_first() -> None:
    q, k, v = drawn((1, 2, 300, 16), torch.float16)
    bias = torch.zeros(1, 1, 1, 300, device=DEVICE).half()
    bias[..., :280] = -torch.inf

    wanted, fused = both(lambda: ops.attention_score(q[:, :, :1], k, prefix=0, bias=bias))
    with use_kernels("triton"):
        attended = ops.attend_with_bias(q, k, v, bias)

    torch.testing.assert_close(fused, wanted.float(), rtol=1e-2, atol=1e-4)
    assert attended.isfinite().all()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter: inf * 0
def test_sizes_keep_their_own_type_and_what_stays_is_copied_whatever_moves() -> None:
    tokens = tokens_of((1, 1, 20, 16), sized=True, dtype=torch.float16)
    tokens = tokens._replace(size=tokens.size.float())
    keys = torch.randn(1, 1, 20, 16, device=DEVICE)
    keys[:, :, 8] = keys[:, :, 9]  # which leaves first, then
    tokens.x[0, 8] = torch.inf
    matching = ops.match_bipartite(keys, removed=5, prefix=1)

    with use_kernels("triton"):
        merged = ops.merge(tokens, matching, prefix=1)
        picked = ops.pick(tokens, torch.arange(5, device=DEVICE)[None], prefix=1)

    assert merged.size.dtype == picked.size.dtype == torch.float32
    assert (matching.leave[0, 0], matching.stay.shape[1]) == (3, 4)  # of A: rows 2, 4, 6, 8 ...
    assert merged.x[0, : 1 + 4].isfinite().all()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own, when it loads these
def test_forward_derivatives_flow_as_they_do_without_the_kernels() -> None:
    x, direction = torch.randn(1, 6, 8, device=DEVICE), torch.ones(1, 6, 8, device=DEVICE)
    index = torch.tensor([[0, 2, 5]], device=DEVICE)

    def picked(x: Tensor) -> Tensor:
        return ops.pick(Tokens(x), index, prefix=1).x

    wanted, fused = both(lambda: torch.func.jvp(picked, (x,), (direction,))[1])

    assert torch.equal(fused, wanted)


def test_the_last_wish_for_kernels_holds_and_none_outlives_its_block() -> None:
    first, second = use_kernels("torch"), use_kernels("triton")
    x = torch.zeros(1, 2, 8)

    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ops.is_fused(x)
    second.__exit__(None, None, None)
    assert not ops.is_fused(x)


def test_a_compiler_and_an_exporter_take_different_ways() -> None:
    class Way(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if ops.is_fused(x) else x * 2

    x = torch.full((1, 2, 8), 5.0)
    with use_kernels("triton"), torch.no_grad():
        compiled = torch.compile(Way(), backend="eager", fullgraph=True)(x)
        exported = [torch.export.export(Way(), (x,), strict=s).module()(x) for s in (True, False)]

    assert torch.equal(compiled, x + 1)
    assert all(torch.equal(found, x * 2) for found in exported)


class Sharded(Tensor):
    """Like PyTorch's own, made of other tensors."""

    def __tensor_flatten__(self) -> None: ...


def test_what_the_kernels_do_not_take_goes_the_other_way() -> None:
    x = torch.randn(1, 5, 8, device=DEVICE)
    with use_kernels("triton"):
        assert ops.is_fused(x)
        assert not ops.is_fused(x.double())
        assert not ops.is_fused(x, x.double())
        assert not ops.is_fused(x[..., ::2])
        assert not ops.is_fused(x.as_subclass(Sharded))
        assert not ops.is_fused(torch.empty(1, 4097, 8, device=DEVICE))
        assert not ops.is_fused(x.clone().requires_grad_())
        with torch.no_grad():
            assert ops.is_fused(x.clone().requires_grad_())
    with use_kernels("torch"):
        assert not ops.is_fused(x)
    assert ops.is_fused(x) == (DEVICE.type == "cuda")


# Every operator that is fused; 49 patch tokens enter.
STEPS = (
    Prune(0, 44, "class_attention", "mean"),
    Pool(1, 36),
    Prune(2, 30),
    Pool(2, 28, "ranked", "class_attention"),
    Prune(3, 22, "mean_attention", "fuse"),
    PruneOrPool(4, 18, threshold=7e-5),  # of PPT
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_model_gives_the_same_answers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=112, embed_dim=48, num_heads=3, depth=6).eval().to(DEVICE)
    images = torch.randn(2, 3, 112, 112).to(DEVICE)
    policy = Policy(describe(model), STEPS, proportional_attention=True)

    with torch.inference_mode(), tokensearch.applied(model, policy):
        exact = model(images)
        with use_kernels("triton"):
            fused = model.to(dtype)(images.to(dtype))

    if dtype == torch.float32:
        torch.testing.assert_close(fused, exact, rtol=1e-5, atol=1e-5)
    assert (torch.cosine_similarity(fused.float(), exact) > 0.999).all()  # near-ties fall otherwise


def run_bench(*options: str) -> list[dict[str, Any]]:
    """In a process of its own: the interpreter is no compiler, and has no shapes without values."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    asked = [sys.executable, "-m", "tests.bench", "kernels", "--json", *options]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_tracer_sees_operators_with_shapes_and_types_and_no_gpu() -> None:
    passes = {
        counted["policy"]: counted
        for counted in run_bench("--count", "--policy", "none", "tome-r13")
    }

    assert passes["none"]["fused"] == passes["none"]["small"]
    added = {way: passes["tome-r13"][way] - passes["none"][way] for way in ("fused", "small")}
    assert added["fused"] == 12 * 3  # matching takes two kernels, merging one
    assert added["small"] > 12 * 20


@pytest.mark.slow
@pytest.mark.parametrize("capability", [90, 80])
def test_kernels_compile_for_a_gpu_that_is_not_at_hand_and_hardly_spill(capability: int) -> None:
    compiled = run_bench("--resources", "--capability", str(capability))

    assert {kernel["capability"] for kernel in compiled} == {capability}
    assert len({kernel["kernel"] for kernel in compiled}) == 10
    assert max(kernel["spilled_bytes"] for kernel in compiled) <= 8  # two registers


def test_gradients_flow_as_they_do_without_the_kernels() -> None:
    tokens = tokens_of(SHAPES[2], sized=True)
    x = tokens.x.requires_grad_()

    def gradient() -> Tensor:
        matching = ops.match_bipartite(x[:, None], removed=4, prefix=1)
        merged = ops.merge(tokens._replace(x=x), matching, prefix=1)
        return torch.autograd.grad(merged.x.square().sum(), x)[0]

    wanted, fused = both(gradient)

    assert torch.equal(fused, wanted)
