"""Operators that PyTorch sees: each is one kernel, or two, with shapes, types and tuning.

`triton_op` lets `torch.compile` and CUDA graphs look inside. What they compute is what the plain
functions of `ops` compute, which stay the reference; those check nothing either.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.library import triton_op
from torch.library import wrap_triton as _wrap_triton

from tokensearch.ops.triton import attention, move, select


class Tile(NamedTuple):
    """What a program holds at once, and its threads."""

    rows: int
    columns: int = 1
    warps: int = 4  # of 32 threads
    stages: int = 2  # of loads under way


# MATCHED, FOLDED, GATHERED and ATTENDED were fastest of a few on an H100; the others were not timed
# there in this form (`python -m tests.bench kernels --tiles`).
SCORED = Tile(16384, warps=8)  # numbers of keys, whatever tokens and heads they belong to
AVERAGED = Tile(256, warps=8)
RANKED = Tile(1024, warps=8)
GATHERED = Tile(8, 1024)
SUMMED = Tile(32, 128)
MATCHED = Tile(32, 64, warps=8)
RESEMBLED = Tile(16, 64)
FOLDED = Tile(16, 128)
ATTENDED = Tile(64, 64)


def wrap_triton(kernel: Any) -> Any:
    """Return what launches a kernel; Triton's interpreter needs no wrapping and takes none."""
    return _wrap_triton(kernel) if isinstance(kernel, triton.JITFunction) else kernel


def next_power(number: int, least: int = 1) -> int:
    """Return the least power of 2 that is no less than `number` and `least`."""
    return max(least, 1 << (number - 1).bit_length())


def _flat(size: Tensor | None, unused: Tensor) -> Tensor:
    """Sizes one after the other; for no sizes, a pointer that is not followed."""
    return unused if size is None else size.contiguous()


@triton_op("tokensearch::class_attention", mutates_args=())
def run_class_attention(query: Tensor, keys: Tensor, bias: Tensor | None, prefix: int) -> Tensor:
    """(B, H, 1, D), (B, H, T, D), (B, 1, 1, T) -> (B, N) float32: see `ops.scores`."""
    images, heads, length, width = keys.shape
    head_power, width_power = next_power(heads), next_power(width)
    score = keys.new_empty(images, length - prefix, dtype=torch.float32)
    logits = keys.new_empty(images, length, head_power, dtype=torch.float32)
    query = query.expand(images, heads, 1, width)
    query = query if query.stride(3) == 1 else query.contiguous()
    bias = None if bias is None else bias.expand(images, 1, 1, length).contiguous()
    block = max(1, SCORED.rows // (head_power * width_power))
    wrap_triton(select.attention_logits)[(images, triton.cdiv(length, block))](
        query, keys, keys if bias is None else bias, logits, length, heads, width, width**-0.5,
        query.stride(0), query.stride(1), keys.stride(0), keys.stride(1), keys.stride(2),
        0 if bias is None else bias.stride(0),
        HAS_BIAS=bias is not None, HEADS=head_power, WIDTH=width_power, BLOCK=block,
        num_warps=SCORED.warps,
    )  # fmt: skip
    wrap_triton(select.average_softmax)[(images,)](
        logits, score, length, heads, prefix,
        HEADS=head_power, BLOCK=min(AVERAGED.rows, next_power(length)), num_warps=AVERAGED.warps,
    )  # fmt: skip
    return score


@triton_op("tokensearch::rank", mutates_args=())
def run_rank(score: Tensor, keep: int, prefix: int, by_score: bool) -> tuple[Tensor, Tensor]:
    """(B, N) -> (B, P + K) and (B, N - K): see `ops.prune.rank`."""
    images, tokens = score.shape
    kept = score.new_empty(images, prefix + keep, dtype=torch.int64)
    gone = score.new_empty(images, tokens - keep, dtype=torch.int64)
    wrap_triton(select.split_by_rank)[(images,)](
        score.contiguous(), kept, gone, score, kept.new_empty(0),
        tokens, keep, prefix + keep, prefix,
        TOP_BY_RANK=by_score, REST_BY_RANK=True, HAS_PARTNER=False,
        BLOCK=min(RANKED.rows, next_power(tokens)),
        num_warps=RANKED.warps,
    )  # fmt: skip
    return kept, gone


@triton_op("tokensearch::gather", mutates_args=())
def run_gather(x: Tensor, size: Tensor | None, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, C), (B, T, 1), (B, K) -> (B, K, C), and (B, K, 1) sizes and their logarithms."""
    outs = _make_outs(x, index.shape[1], size)
    _gather(x, size, index, outs)
    return outs


@triton_op("tokensearch::gather_and_add", mutates_args=())
def run_gather_and_add(
    x: Tensor, size: Tensor | None, kept: Tensor, gone: Tensor, weight: Tensor | None, prefix: int
) -> tuple[Tensor, Tensor, Tensor]:
    """As `gather` of `kept`, and one more token of `gone`: see `ops.prune.pick_and_add`."""
    images, length, width = x.shape
    outs = _make_outs(x, kept.shape[1] + 1, size)
    _gather(x, size, kept, outs)
    wrap_triton(move.sum_rows)[(images, triton.cdiv(width, SUMMED.columns))](
        x, _flat(size, x), gone.contiguous(), _flat(weight, x), *outs,
        length, gone.shape[1], width, prefix, kept.shape[1] + 1, x.stride(0), x.stride(1),
        HAS_SIZE=size is not None, HAS_WEIGHT=weight is not None,
        CHUNK=SUMMED.rows, COLUMNS=SUMMED.columns, num_warps=SUMMED.warps,
    )  # fmt: skip
    return outs


def _gather(
    x: Tensor, size: Tensor | None, index: Tensor, outs: tuple[Tensor, Tensor, Tensor]
) -> None:
    images, length, width = x.shape
    kept = index.shape[1]
    wrap_triton(move.gather_rows)[(images, triton.cdiv(kept, GATHERED.rows))](
        x, _flat(size, x), index.contiguous(), *outs,
        length, kept, width, outs[0].shape[1], x.stride(0), x.stride(1),
        HAS_SIZE=size is not None, ROWS=GATHERED.rows,
        COLUMNS=min(GATHERED.columns, next_power(width)), num_warps=GATHERED.warps,
    )  # fmt: skip


def _make_outs(
    x: Tensor, length: int, size: Tensor | None, *, sizes: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Room for features, and for sizes and their logarithms where there are some, or will be."""
    images, _, width = x.shape
    sized = (x if size is None else size).new_empty
    shape = (images, length if sizes or size is not None else 0, 1)
    return x.new_empty(images, length, width), sized(shape), sized(shape)


@triton_op("tokensearch::match_bipartite", mutates_args=())
def run_match_bipartite(keys: Tensor, removed: int, prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, T, D) -> the rows of a `Matching`: see `ops.pool.match_bipartite`."""
    images, heads, length, width = keys.shape
    odd = prefix % 2
    first_a, first_b = prefix + odd, prefix + 1 - odd
    of_a, of_b = len(range(first_a, length, 2)), len(range(first_b, length, 2))
    best = keys.new_empty(images, of_a, dtype=torch.float32)
    nearest = keys.new_empty(images, of_a, dtype=torch.int32)
    stay = keys.new_empty(images, of_a - removed, dtype=torch.int64)
    leave, partner = (keys.new_empty(images, removed, dtype=torch.int64) for _ in range(2))
    floor = max(1e-12, torch.finfo(keys.dtype).tiny)  # as in `ops.pool.normalize`
    wrap_triton(select.match_nearest)[(images, triton.cdiv(of_a, MATCHED.rows))](
        keys, best, nearest, of_a, of_b, first_a, first_b, heads, width,
        keys.stride(0), keys.stride(1), keys.stride(2), floor,
        PRECISION="ieee" if keys.dtype == torch.float32 else "tf32",
        WIDTH=next_power(width, 16), ROWS=MATCHED.rows, BLOCK=MATCHED.columns,
        num_warps=MATCHED.warps,
    )  # fmt: skip
    wrap_triton(select.split_by_rank)[(images,)](
        best, leave, stay, nearest, partner, of_a, removed, removed, 0,
        TOP_BY_RANK=True, REST_BY_RANK=prefix == 0, HAS_PARTNER=True,
        BLOCK=min(RANKED.rows, next_power(of_a)),
        num_warps=RANKED.warps,
    )  # fmt: skip
    return stay, leave, partner


@triton_op("tokensearch::merge", mutates_args=())
def run_merge(
    x: Tensor, size: Tensor | None, stay: Tensor, leave: Tensor, partner: Tensor, prefix: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, C), (B, T, 1) -> (B, T - r, C), and (B, T - r, 1) sizes and their logarithms."""
    images, length, width = x.shape
    removed, odd = leave.shape[1], prefix % 2
    left, of_a = length - removed, stay.shape[1] + removed
    outs = _make_outs(x, left, size, sizes=True)
    grid = (images, triton.cdiv(left, FOLDED.rows), triton.cdiv(width, FOLDED.columns))
    wrap_triton(move.fold_pairs)[grid](
        x, _flat(size, x), *(part.contiguous() for part in (stay, leave, partner)),
        *outs, length, width, of_a, removed, prefix, prefix + odd, prefix + 1 - odd,
        x.stride(0), x.stride(1),
        HAS_SIZE=size is not None, ROWS=FOLDED.rows, CHUNK=min(32, next_power(removed, 16)),
        COLUMNS=FOLDED.columns, num_warps=FOLDED.warps,
    )  # fmt: skip
    return outs


@triton_op("tokensearch::merge_ranked", mutates_args=())
def run_merge_ranked(
    x: Tensor, size: Tensor | None, kept: Tensor, gone: Tensor, prefix: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(B, T, C), (B, T, 1) -> (B, P + K, C), sizes and their logarithms, and partners (B, r)."""
    images, length, width = x.shape
    rows, removed = kept.shape[1], gone.shape[1]
    kept, gone = kept.contiguous(), gone.contiguous()
    outs = _make_outs(x, rows, size, sizes=True)
    best = x.new_empty(images, removed, dtype=torch.float32)
    partner = x.new_empty(images, removed, dtype=torch.int32)
    limits = torch.finfo(x.dtype)
    wrap_triton(select.match_ranked)[(images, triton.cdiv(removed, RESEMBLED.rows))](
        x, kept, gone, best, partner, rows - prefix, removed, width, prefix,
        x.stride(0), x.stride(1), max(1e-12, limits.tiny),  # as in `ops.pool.normalize`
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        ROWS=RESEMBLED.rows, BLOCK=RESEMBLED.columns, COLUMNS=64, num_warps=RESEMBLED.warps,
    )  # fmt: skip
    grid = (images, triton.cdiv(rows, FOLDED.rows), triton.cdiv(width, FOLDED.columns))
    wrap_triton(move.fold_ranked)[grid](
        x, _flat(size, x), kept, gone, best, partner, *outs,
        length, width, rows, removed, limits.tiny, x.stride(0), x.stride(1),
        HAS_SIZE=size is not None, ROWS=FOLDED.rows, CHUNK=min(32, next_power(removed, 16)),
        COLUMNS=FOLDED.columns, num_warps=FOLDED.warps,
    )  # fmt: skip
    return *outs, partner


@triton_op("tokensearch::attention", mutates_args=())
def run_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """(B, H, Q, D), twice (B, H, T, D), (B, 1, 1, T) -> (B, Q, H, D)."""
    images, heads, queries, width = q.shape
    bias = bias.expand(images, 1, 1, k.shape[2]).contiguous()
    out = q.new_empty(images, queries, heads, width)
    wrap_triton(attention.biased_attention)[(images * heads, triton.cdiv(queries, ATTENDED.rows))](
        q, k, v, bias, out, queries, k.shape[2], heads, width, width**-0.5,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], bias.stride(0),
        WIDTH=next_power(width, 16), ROWS=ATTENDED.rows, BLOCK=ATTENDED.columns,
        num_warps=ATTENDED.warps, num_stages=ATTENDED.stages,
    )  # fmt: skip
    return out
