"""What a merger begins with: queries at the centres of the tokens that it will see."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokensearch.errors import ModelError, PolicyError
from tokensearch.ops.merger import NORM_EPS
from tokensearch.policy import Merger, ModelSpec, Policy, RawTensor, Tensors
from tokensearch.runtime import applied, capture_activations, describe
from tokensearch.runtime.adapters import find_norm
from tokensearch.runtime.host import as_host

ROUNDS = 20  # of Lloyd's algorithm; centres move by little after ten
MOST_TOKENS = 50_000  # that are clustered: a few hundred images


@torch.inference_mode()
def begin_merger(model: nn.Module, images: Tensor, step: Merger, *, seed: int = 0) -> Policy:
    """Return a policy with one merger whose queries are k-means centres of its normed tokens.

    images  (B, 3, rows, columns)  that the model is run on without a policy, some hundred

    The norm begins as that of the next block where it has one, else as no change of scale. A query
    is a centre less the mean of all tokens: without that all queries look at the same tokens, those
    that lie along the mean.

    ModelError where no block follows to which the tokens go; PolicyError where there are fewer.
    """
    host = as_host(model)
    if not 0 <= step.block < len(host.blocks) - 1 or step.at != "block_end":
        raise ModelError(
            f"a merger at block {step.block} ({step.at}) cannot be begun; it needs a block that "
            f"follows, and to act at block_end"
        )
    spec = describe(model)
    if step.keep > spec.patch_tokens:
        raise PolicyError(
            f"keep is {step.keep}; {spec.name} has {spec.patch_tokens} patch tokens to merge"
        )
    # What is wrong with a step is said before k-means takes its time.
    _make_policy(spec, step, torch.zeros(step.keep, spec.width), (torch.zeros(spec.width),) * 2)
    entering = _entering(model, images, step.block + 1)[:, host.num_prefix_tokens :]
    tokens = _in_single_precision(entering.flatten(0, 1))
    weight, bias = _norm_of(host.blocks[step.block + 1], tokens)
    normed = F.layer_norm(tokens, tokens.shape[-1:], weight, bias, NORM_EPS)
    queries = k_means(_sample(normed, seed), step.keep, seed=seed)
    queries = (queries - normed.mean(dim=0)) / step.scale
    return _make_policy(spec, step, queries, (weight, bias))


def _make_policy(
    spec: ModelSpec, step: Merger, queries: Tensor, norm: tuple[Tensor, Tensor]
) -> Policy:
    weight, bias = norm
    held = {"queries": queries, "norm.weight": weight, "norm.bias": bias}
    raw = {f"{step.tensors}.{role}": to_raw(tensor) for role, tensor in held.items()}
    return Policy(spec, (step,), tensors=Tensors.pack(raw))


def k_means(points: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """Return the centres of clusters by Lloyd's algorithm, begun at points far apart (k-means++).

    points  (T, C)
    ->      (clusters, C)  in single precision at least
    """
    points = _in_single_precision(points)
    generator = torch.Generator("cpu").manual_seed(seed)
    first = int(torch.randint(len(points), (1,), generator=generator))
    centres = points[first : first + 1]
    while len(centres) < clusters:
        distance = torch.cdist(points, centres).amin(dim=1).square().cpu() + 1e-12
        chosen = int(torch.multinomial(distance, 1, generator=generator))
        centres = torch.cat([centres, points[chosen : chosen + 1]])
    for _ in range(ROUNDS):
        label = torch.cdist(points, centres).argmin(dim=1)
        joins = F.one_hot(label, clusters).to(points.dtype)
        counts = joins.sum(dim=0)[:, None]
        centres = torch.where(counts > 0, joins.T @ points / counts.clamp(min=1), centres)
    return centres


def _in_single_precision(values: Tensor) -> Tensor:
    """Return values at least in float32: sums over thousands of tokens overflow in halves."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def to_raw(tensor: Tensor) -> RawTensor:
    """Return a tensor as the tensors file holds it, in single precision."""
    numbers = tensor.detach().to("cpu", torch.float32).contiguous()
    return RawTensor("F32", tuple(numbers.shape), numbers.numpy().tobytes())


def _entering(model: nn.Module, images: Tensor, block: int) -> Tensor:
    """Features that enter a block without a policy: (B, P + N, C)."""
    held: list[Tensor] = []
    with (
        applied(model, Policy(describe(model))),
        capture_activations(model, [block], lambda _, x: held.append(x.clone())),
    ):
        model(images)
    return held[0]


def _norm_of(block: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of the norm that a block's attention reads, where it has them."""
    norm = find_norm(block)
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    width = like.shape[-1]
    return (
        like.new_ones(width) if weight is None else weight.to(like.dtype),
        like.new_zeros(width) if bias is None else bias.to(like.dtype),
    )


def _sample(points: Tensor, seed: int) -> Tensor:
    """At most MOST_TOKENS of the points, drawn at random."""
    if len(points) <= MOST_TOKENS:
        return points
    generator = torch.Generator("cpu").manual_seed(seed)
    return points[torch.randperm(len(points), generator=generator)[:MOST_TOKENS].to(points.device)]
