"""Fused kernels against the small operations that they stand for, one at a time.

    python -m tests.bench kernels [--batch 1 64] [--dtype bfloat16] [--tiles]
    python -m tests.bench kernels --resources | --count

On a GPU: microseconds of each operator captured, on the shapes of DeiT-S under `tome-r13`, as small
operations and fused, with what lies between the results; with `--tiles`, fused with other tiles.
Without one, `--resources` compiles the kernels for the H100 and prints registers and spills, and
`--count` traces passes of DeiT-S and counts what they would launch.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from tests.bench.probe.notes import guarded
from tests.bench.probe.timing import busy_us
from tests.bench.results import add_output, collect
from tokensearch import apply, ops

HEADS, HEAD_DIM = 6, 64  # DeiT-S
TOKENS, REMOVED = (197, 119, 54), 13  # the first, a middle and the last block of tome-r13
KEEP = 3 / 4


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a block has when its tokens are reduced, prefix 1, with sizes."""

    q: Tensor
    k: Tensor
    v: Tensor
    tokens: ops.Tokens
    bias: Tensor

    @property
    def keep(self) -> int:
        return int(KEEP * (self.k.shape[2] - 1))


Operator = Callable[[Inputs], Callable[[], Any]]


def main(arguments: list[str]) -> None:
    """Print one line per operator and shape."""
    options = parse(arguments)
    if options.resources:
        from tests.bench.kernel_resources import find_resources

        collect(find_resources(options.capability), options, describe_resources)
        return
    if options.count:
        collect(count_kernels(options.policy), options, describe_count)
        return
    if not torch.cuda.is_available():
        print("no NVIDIA GPU is at hand; --resources and --count need none")
        return
    with torch.inference_mode():
        collect(time_operators(options), options, describe_time)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench kernels", description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--tokens", type=int, nargs="+", default=list(TOKENS))
    parser.add_argument("--tiles", action="store_true", help="try other tiles as well")
    parser.add_argument("--resources", action="store_true", help="registers and spills, no GPU")
    parser.add_argument("--capability", type=int, nargs="+", default=[90, 80], help="of GPUs")
    parser.add_argument("--count", action="store_true", help="kernels of a pass, no GPU")
    parser.add_argument("--policy", nargs="+", default=COUNTED, help="whose passes are counted")
    add_output(parser)
    return parser.parse_args(arguments)


def make_inputs(batch: int, length: int, dtype: torch.dtype) -> Inputs:
    parts = torch.randn(batch, length, 3, HEADS, HEAD_DIM, device="cuda").to(dtype)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    x = torch.randn(batch, length, HEADS * HEAD_DIM, device="cuda").to(dtype)
    size = torch.randint(1, 5, (batch, length, 1), device="cuda").to(dtype)
    return Inputs(q, k, v, ops.Tokens(x, size), ops.size_bias(size))


def score(given: Inputs) -> Callable[[], Any]:
    return partial(ops.attention_score, given.q[:, :, :1], given.k, prefix=1, bias=given.bias)


def rank(given: Inputs) -> Callable[[], Any]:
    return partial(ops.rank, score(given)().float(), keep=given.keep, prefix=1)


def pick(given: Inputs) -> Callable[[], Any]:
    return partial(ops.pick, given.tokens, rank(given)().kept, prefix=1)


def pick_and_add(given: Inputs) -> Callable[[], Any]:
    return partial(ops.pick_and_add, given.tokens, rank(given)(), prefix=1)


def merge_ranked(given: Inputs) -> Callable[[], Any]:
    ranking = ops.rank(score(given)().float(), keep=given.k.shape[2] - 1 - REMOVED, prefix=1)
    return partial(ops.merge_ranked, given.tokens, ranking, prefix=1)


def match(given: Inputs) -> Callable[[], Any]:
    return partial(ops.match_bipartite, given.k, removed=REMOVED, prefix=1)


def merge(given: Inputs) -> Callable[[], Any]:
    return partial(ops.merge, given.tokens, match(given)(), prefix=1)


def attend(given: Inputs) -> Callable[[], Any]:
    def run() -> Tensor:
        if ops.is_attention_fused(given.q, given.k, given.v, given.bias):
            return ops.attend_with_bias(given.q, given.k, given.v, given.bias)
        return F.scaled_dot_product_attention(given.q, given.k, given.v, attn_mask=given.bias)

    return run


OPERATORS: dict[str, Operator] = {
    "attend": attend,
    "merge": merge,
    "match": match,
    "score": score,
    "rank": rank,
    "pick": pick,
    "add": pick_and_add,
    "ranked": merge_ranked,
}


def time_operators(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield every operator on every shape; then other tiles."""
    dtype = getattr(torch, options.dtype)
    shapes = [(batch, length) for batch in options.batch for length in options.tokens]
    for batch, length in shapes:
        given = make_inputs(batch, length, dtype)
        for name, operator in OPERATORS.items():
            shape = {"operator": name, "batch": batch, "tokens": length, "dtype": options.dtype}
            yield shape | compare_ways(operator, given)
    for batch, length in shapes if options.tiles else ():
        given = make_inputs(batch, length, dtype)
        for name, operator in OPERATORS.items():
            shape = {"operator": name, "batch": batch, "tokens": length, "dtype": options.dtype}
            for tile in list_tiles(name):
                yield shape | time_tile(operator, given, name, tile)


def compare_ways(operator: Operator, given: Inputs) -> dict[str, Any]:
    """Time both ways, on the same inputs; results are held against float64's."""
    exact = run_in_double(operator, given)
    with ops.use_kernels("torch"):
        call = operator(given)
        torch_us, torch_off = busy_us(call, given.k.device), measure_difference(call(), exact)
    with ops.use_kernels("auto"):
        fused = operator(given)
        return {
            "torch_us": torch_us,
            "fused_us": busy_us(fused, given.k.device),
            "torch_off": torch_off,
            "fused_off": measure_difference(fused(), exact),
        }


def run_in_double(operator: Operator, given: Inputs) -> Any:
    """What the operator gives in float64, as small operations."""
    parts = [part.double() for part in (given.q, given.k, given.v)]
    x, size = given.tokens.x.double(), given.tokens.size
    assert size is not None
    tokens = ops.Tokens(x, size.double())
    with ops.use_kernels("torch"):
        return operator(Inputs(*parts, tokens, given.bias.double()))()


def measure_difference(result: Any, exact: Any) -> float:
    """Share of numbers that differ by more than 1 %, and of indices that differ."""
    if isinstance(result, Tensor):
        if not result.is_floating_point():
            return float((result != exact).double().mean())
        off = (result.double() - exact).abs() > 0.01 * exact.abs().mean()
        return float(off.double().mean())
    pairs = zip(result[:2], exact[:2], strict=True)  # of Tokens the features and sizes
    return max(measure_difference(one, other) for one, other in pairs if one is not None)


def list_tiles(name: str) -> list[tuple[int, int, int, int]]:
    """Other rows, columns, warps and stages for an operator."""
    return {
        "attend": [
            (64, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3), (64, 128, 4, 2), (128, 128, 8, 2),
            (64, 32, 4, 3), (32, 64, 2, 2), (64, 64, 2, 2), (16, 64, 1, 2), (32, 64, 4, 3),
        ],
        "merge": [(16, 64, 4, 2), (16, 128, 4, 2), (64, 64, 4, 2), (32, 128, 4, 2), (32, 64, 2, 2),
                  (16, 64, 2, 2)],
        "match": [(16, 64, 4, 2), (32, 32, 4, 2), (16, 128, 4, 2), (64, 64, 4, 2), (32, 64, 8, 2),
                  (16, 32, 2, 2)],
        "score": [(8192, 1, 4, 2), (8192, 1, 8, 2), (16384, 1, 4, 2), (32768, 1, 16, 2)],
        "rank": [(1024, 1, 4, 2), (128, 1, 4, 2), (1024, 1, 16, 2)],
        "add": [(64, 128, 4, 2), (16, 64, 4, 2), (64, 64, 8, 2)],
        "ranked": [(16, 64, 4, 2), (16, 64, 8, 2), (32, 64, 4, 2), (16, 32, 4, 2)],
        "pick": [(4, 1024, 4, 2), (16, 1024, 4, 2), (8, 1024, 8, 2), (4, 1024, 2, 2)],
    }[name]  # fmt: skip


# Policies whose passes are traced, and kernels of the operators that are more than one.
COUNTED = ("none", "evit-0.7", "pomt-56", "tome-r13", "ppt-r50", "diffrate-s-2.3")
KERNELS = {"class_attention": 2, "match_bipartite": 2, "gather_and_add": 2, "merge_ranked": 2}
# Of the operators that a trace holds, those that launch nothing.
VIEWS = {
    "_unsafe_view", "alias", "as_strided", "detach", "empty", "expand", "getitem", "new_empty",
    "permute", "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze",
    "view",
}  # fmt: skip


def count_kernels(policies: list[str]) -> Iterator[dict[str, Any]]:
    """Yield how many kernels a captured pass of DeiT-S in bfloat16 launches, about."""
    for name in policies:
        model = timm.create_model("deit_small_patch16_224").eval().to(torch.bfloat16)
        apply(model.requires_grad_(requires_grad=False), name)
        # On tensors without values, on a GPU that need not exist.
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            model.to("cuda")
            with ops.use_kernels("torch"):
                small = count_launches(model)
            with ops.use_kernels("auto"):
                fused = count_launches(model)
        yield {"policy": name, "small": small, "fused": fused}


def count_launches(model: nn.Module) -> int:
    """Kernels of a traced pass."""
    images = torch.empty(1, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    with patch.object(F, "scaled_dot_product_attention", stand_for_attention):
        graph = make_fx(model)(images).graph
    targets = [node.target for node in graph.nodes if callable(node.target)]
    names = [target.__name__.split(".")[0] for target in targets]
    return sum(KERNELS.get(name, 1) for name in names if name not in VIEWS)


def stand_for_attention(q: Tensor, *_: Tensor, **__: object) -> Tensor:
    """Stands for attention, of which a trace without a GPU holds the steps."""
    return q.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)


def describe_count(result: dict[str, Any]) -> str:
    return (
        f"{result['policy']:14s} {result['small']:4d} kernels as small operations, "
        f"{result['fused']:4d} fused"
    )


TILES = {
    "attend": "ATTENDED", "merge": "FOLDED", "match": "MATCHED", "score": "SCORED",
    "rank": "RANKED", "pick": "GATHERED", "add": "SUMMED", "ranked": "RESEMBLED",
}  # fmt: skip


def time_tile(
    operator: Operator, given: Inputs, name: str, tile: tuple[int, int, int, int]
) -> dict[str, Any]:
    """Time the fused operator with another tile; one that does not compile is its error."""
    from tokensearch.ops.triton import launch

    before = getattr(launch, TILES[name])
    setattr(launch, TILES[name], launch.Tile(*tile))
    try:
        us = guarded(lambda: busy_us(operator(given), given.k.device))
    finally:
        setattr(launch, TILES[name], before)
    # One that does not compile is its error: it may take too much shared memory, say.
    return {"tile": tile, "fused_us" if isinstance(us, float) else "error": us}


def describe_time(result: dict[str, Any]) -> str:
    shape = f"{result['operator']:7s} batch {result['batch']:3d} {result['tokens']:4d} tokens"
    if "error" in result:
        return f"{shape} {result['tile']}  {result['error']}"
    if "tile" in result:
        return f"{shape} {result['tile']!s:20s} {result['fused_us']:7.2f} us"
    return (
        f"{shape}  torch {result['torch_us']:7.2f} us  fused {result['fused_us']:7.2f} us  "
        f"off {result['torch_off']:.1%} and {result['fused_off']:.1%}"
    )


def describe_resources(result: dict[str, Any]) -> str:
    return (
        f"{result['kernel']:17s} sm_{result['capability']} {result['dtype']:5s} "
        f"{result['registers']:3d} registers, {result['spilled_bytes']:3d} bytes spilled, "
        f"{result['shared_bytes']:6d} bytes shared  {result['constants']}"
    )
