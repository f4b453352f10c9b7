"""What following a policy costs beyond the tokens it saves, on DeiT-S.

    python -m tests.bench runtime [--backend eager compile cudagraph] [--batch 1 8]
        [--kernels auto torch] [--json]

*Overhead* is latency under a policy over that of the same model whose tokens are simply sliced to
the same counts: the floor that no operator can get below. *Explicit* is ToMe the way its own code
computes attention, the whole matrix, over the same schedule under a policy. All ratios are timed in
turn in one run. Weights are random: they do not change how long a pass takes.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, product
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.bench.results import add_output, collect
from tokensearch import apply, preset
from tokensearch.measure import MachineMonitor, TimingBudget, clock_for, compare, describe_cell
from tokensearch.ops import kernels_of, use_kernels
from tokensearch.policy import ModelSpec, Policy, Pool, Prune
from tokensearch.profiling import ProfilePlan, profile
from tokensearch.records.measurements import to_json
from tokensearch.records.profile import REDUCING
from tokensearch.runtime import describe
from tokensearch.runtime.backends import with_backend

MODEL = "deit_small_patch16_224"
SITES = ((3, 146), (6, 96), (9, 48))  # patch tokens: 147, 97 and 49 with the class token
Build = Callable[[nn.Module], nn.Module]


def main(arguments: list[str]) -> None:
    """Print one line per ratio; with --json, one JSON document."""
    options = parsed(arguments)
    profiled = shares(options) if "eager" in options.backend else ()
    collect(chain(ratios(options), profiled), options, line)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench runtime", description=__doc__)
    parser.add_argument("--backend", nargs="+", default=["eager", "compile"])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--kernels", nargs="+", default=["auto"], choices=["auto", "torch"])
    parser.add_argument("--seconds", type=float, default=20.0, help="per ratio")
    add_output(parser)
    return parser.parse_args(arguments)


def ratios(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield every case in every cell."""
    device, kind = torch.device(options.device), getattr(torch, options.dtype)
    host, clock = timm.create_model(MODEL).eval().to(device, kind), clock_for(device)
    budget = TimingBudget(
        warmup=5, first_look=30, max_rounds=2000, seconds=options.seconds, precision=0.002
    )
    asked = product(options.backend, options.batch, options.case, options.kernels)
    for backend, batch, name, kernels in asked:
        images = torch.randn(batch, 3, 224, 224).to(device, kind)
        with use_kernels(kernels), torch.inference_mode():
            runs = tuple(run(host, build, backend, images) for build in CASES[name])
            found = compare(*runs, clock=clock, budget=budget, watch=MachineMonitor(device))
            used = kernels_of(device, kind)
        yield {
            "case": name,
            "backend": backend,
            "dtype": options.dtype,
            "batch": batch,
            "kernels": used,
            "comparison": to_json(found),
        }


def run(host: nn.Module, build: Build, backend: str, images: Tensor) -> Callable[[], object]:
    """A pass of the model that `build` makes of a copy of the host."""
    model = build(copy.deepcopy(host))
    with torch.inference_mode():
        return partial(with_backend(model, backend, images), images)


def shares(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield where reducing spends its time, phase by phase, as shares of a stamped pass."""
    device, kind = torch.device(options.device), getattr(torch, options.dtype)
    host = timm.create_model(MODEL).eval().to(device, kind)
    spec = describe(host)
    policies = {
        "prune-3": pruning(spec),
        "pool-3": pooling(spec),
        "tome-r13": preset("tome-r13", host),
    }
    asked = {name: policy for name, policy in policies.items() if name in options.case}
    plan = ProfilePlan(
        TimingBudget(warmup=3, min_rounds=20, max_rounds=100, seconds=options.seconds),
        traced_passes=0,
        roofline=False,
    )
    for batch in options.batch if asked else ():
        images = torch.randn(batch, 3, 224, 224).to(device, kind)
        cell = describe_cell(images.device, images.dtype, batch, images.shape[-1])
        for found in profile(host, asked, images=images, cell=cell, plan=plan):
            parts = {phase: found.phase_ms(phase) / found.pass_ms for phase in REDUCING}
            yield {"case": found.name, "batch": batch, "shares": parts}


def pruning(spec: ModelSpec) -> Policy:
    return Policy(spec, tuple(Prune(block, keep) for block, keep in SITES))


def pooling(spec: ModelSpec) -> Policy:
    steps = tuple(Pool(block, keep) for block, keep in SITES)
    return Policy(spec, steps, proportional_attention=True)


def pruned(model: nn.Module) -> nn.Module:
    return apply(model, pruning(describe(model)))


def pooled(model: nn.Module) -> nn.Module:
    return apply(model, pooling(describe(model)))


def tome(model: nn.Module) -> nn.Module:
    return apply(model, "tome-r13")


def untouched(model: nn.Module) -> nn.Module:
    return model


def last_only(model: nn.Module) -> nn.Module:
    return apply(model, "last-cls")


def sliced(model: nn.Module, policy: Policy | None = None) -> nn.Module:
    """The floor: tokens at the end are cut off, whatever they hold."""
    chosen = policy or pruning(describe(model))
    for block, keep in zip(model.blocks, chosen.patch_tokens_per_block, strict=True):  # type: ignore[arg-type]
        block.forward = _Sliced(block, 1 + keep).forward
    return model


@dataclass(eq=False)
class _Sliced:
    block: Any
    kept: int

    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.block.attn(self.block.norm1(x)))[:, : self.kept]
        out: Tensor = x + self.block.mlp(self.block.norm2(x))
        return out


def sliced_tome(model: nn.Module) -> nn.Module:
    return sliced(model, preset("tome-r13", model))


def explicit_tome(model: nn.Module) -> nn.Module:
    """ToMe, r = 13, with the whole attention matrix and scattered sums."""
    size: list[Tensor | None] = [None]
    for place, block in enumerate(model.blocks):  # type: ignore[arg-type]
        block.forward = _Explicit(block, size, first=place == 0).forward
    return model


@dataclass(eq=False)
class _Explicit:
    block: Any
    size: list[Tensor | None]  # shared by all blocks, as the authors' code shares its state
    first: bool

    def forward(self, x: Tensor) -> Tensor:
        return _explicit(self.block, x, self.size, first=self.first)


def _explicit(block: Any, x: Tensor, size: list[Tensor | None], *, first: bool) -> Tensor:
    weight = torch.ones_like(x[..., :1]) if first or size[0] is None else size[0]
    attn, inner = block.attn, block.norm1(x)
    images, length, width = inner.shape
    q, k, v = attn.qkv(inner).view(images, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    logits = (q @ k.transpose(-2, -1)) * attn.scale
    if not first:
        logits = logits + weight.log()[:, None, None, :, 0]
    mixed = (logits.softmax(-1) @ v).transpose(1, 2).reshape(images, length, width)
    x = x + attn.proj(mixed)
    x, size[0] = _scattered(x, weight, k.mean(1))
    out: Tensor = x + block.mlp(block.norm2(x))
    return out


def _scattered(x: Tensor, size: Tensor, metric: Tensor, removed: int = 13) -> tuple[Tensor, Tensor]:
    """Merge as gather and scatter-add: even places into the odd ones they resemble most."""
    unit = F.normalize(metric, dim=-1)
    scores = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    scores[:, 0] = -torch.inf  # the class token stays
    best, partner = scores.max(-1)
    order = best.argsort(-1, descending=True)[..., None]
    stay, leave = order[:, removed:].sort(1).values, order[:, :removed]
    target = partner[..., None].gather(1, leave)

    def merged(values: Tensor) -> Tensor:
        even, odd, width = values[:, ::2], values[:, 1::2], values.shape[-1]
        moving = even.gather(1, leave.expand(-1, -1, width))
        odd = odd.scatter_add(1, target.expand(-1, -1, width), moving)
        return torch.cat([even.gather(1, stay.expand(-1, -1, width)), odd], dim=1)

    whole = merged(size)
    return merged(x * size) / whole, whole


# Baseline first, as in every comparison: ratio = second / first.
CASES: dict[str, tuple[Build, Build]] = {
    "prune-3": (sliced, pruned),
    "pool-3": (sliced, pooled),
    "tome-r13": (sliced_tome, tome),
    "tome-r13 against explicit": (explicit_tome, tome),
    "last block, class token alone": (untouched, last_only),
}


def line(result: dict[str, Any]) -> str:
    """One ratio or profile as people read it."""
    if "shares" in result:
        return share_line(result)
    found = result["comparison"]
    interval = f"{found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
    cell = f"{result['backend']:8s} {result['kernels']:6s} batch {result['batch']:2d}"
    return f"{cell}  {result['case']:30s} {interval}  {', '.join(found['cautions'])}"


def share_line(result: dict[str, Any]) -> str:
    parts = ", ".join(f"{phase} {share:.1%}" for phase, share in result["shares"].items())
    return f"profiled batch {result['batch']:2d}  {result['case']:10s} {parts}"
