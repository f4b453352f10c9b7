"""Which of timm's models can follow a policy, found out by trying each, as small as it can be made.

A name's own constructor is called with three narrow blocks, so that the code that runs is the
model's own and the walk over some 270 names takes about a minute.
"""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tokensearch.errors import TokensearchError

if TYPE_CHECKING:
    from torch import Tensor, nn

# timm's modules whose models are known to be refused; those of `models.HOSTS` are tried.
OTHERS = (
    "beit",
    "vision_transformer_relpos",
    "vision_transformer_sam",
    "swin_transformer",
    "swin_transformer_v2",
    "swin_transformer_v2_cr",
)

_TINY: dict[str, Any] = {"depth": 3, "embed_dim": 48, "num_heads": 3, "num_classes": 5}
# Sixteen patches or so, where the constructor lets us choose.
_PLAIN_SIZE = {"img_size": 32, "patch_size": 8}
_SIZES: dict[str, dict[str, int]] = {
    "vision_transformer_hybrid": {"img_size": 96},  # 9 tokens of 32 px, or 36 of 16
    "naflexvit": {},
}
_PARTICULAR: dict[str, dict[str, Any]] = {
    "sapiens2": {"num_kv_heads": (3, 1, 3)},  # one number a block: shared keys in the middle one
    "_mci_": {"embed_dim": 768, "num_heads": 12},  # as wide as its convolutions end
}
_CLOSE = 1e-5  # of the largest logit, single precision

State = Literal["works", "refused", "fails"]


@dataclass(frozen=True, slots=True)
class Support:
    """What was found for one name."""

    name: str
    host: str  # class of the model
    block: str  # class of its blocks, and of their attention where they have one
    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """Names that share their classes and what was found of them."""

    host: str
    block: str
    state: State
    note: str
    names: tuple[str, ...]


def names(modules: tuple[str, ...]) -> tuple[str, ...]:
    """Every model that timm's `modules` register."""
    import timm

    return tuple(name for name in timm.list_models() if _module(name) in modules)


def walk(pattern: str = "*") -> Iterator[Support]:
    """Try every name that `pattern` fits, one after the other."""
    import torch

    from tokensearch.models import HOSTS

    torch.set_num_threads(1)  # nothing in here is large enough for two
    for name in fnmatch.filter(names(HOSTS), pattern):
        yield tried(name)
    for name in fnmatch.filter(names(OTHERS), pattern):
        yield looked_at(name)


def families(supports: Iterable[Support]) -> tuple[ModelFamily, ...]:
    """Put names together that have the same classes and came out the same."""
    groups: dict[tuple[str, str, State, str], list[str]] = {}
    for support in supports:
        groups.setdefault((support.host, support.block, support.state, support.note), []).append(
            support.name
        )
    return tuple(ModelFamily(*key, names=tuple(members)) for key, members in groups.items())


def tried(name: str) -> Support:
    """Build a small `name`, and hold what policies make of it against what they promise."""
    model = tiny(name)
    host, block = type(model).__name__, block_name(model)
    try:
        fault = _fault(model)
    except TokensearchError as error:
        return Support(name, host, block, "refused", str(error))
    return Support(name, host, block, "fails" if fault else "works", fault or "")


def looked_at(name: str) -> Support:
    """Ask whether `name` would be taken, without weights."""
    from tokensearch.models import resolve_model, skeleton
    from tokensearch.runtime import describe

    model = skeleton(resolve_model(name))
    host, block = type(model).__name__, block_name(model)
    try:
        describe(model)
    except TokensearchError as error:
        return Support(name, host, block, "refused", str(error))
    return Support(name, host, block, "works")


def tiny(name: str) -> "nn.Module":
    """`name`, with three narrow blocks and random weights."""
    import timm

    particular = next((more for part, more in _PARTICULAR.items() if part in name), {})
    size = _SIZES.get(_module(name), _PLAIN_SIZE)
    model: Any = timm.create_model(name, **{**_TINY, **size, **particular})
    if not hasattr(model, "patch_embed"):  # NaFlexVit takes images of any size
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 64, 64)}
    small: nn.Module = model.eval()
    return small


def block_name(model: "nn.Module") -> str:
    """Class of the first block and of its attention."""
    block = next(iter(getattr(model, "blocks", ())), None)
    attns = getattr(block, "attns", None)
    attention = attns[0].attn if attns else getattr(block, "attn", None)
    parts = [type(part).__name__ for part in (block, attention) if part is not None]
    return " with ".join(parts) or "none"


def pictures(model: "nn.Module", count: int = 2) -> "Tensor":
    """Random images of the model's own size."""
    import torch

    host: Any = model
    size = getattr(getattr(host, "patch_embed", None), "img_size", None)
    shape = size or host.pretrained_cfg["input_size"][1:]
    return torch.randn(count, 3, *shape, generator=torch.Generator().manual_seed(0))


def _module(name: str) -> str:
    import timm

    return str(timm.models.model_entrypoint(name).__module__.rpartition(".")[2])


def _fault(model: "nn.Module") -> str | None:
    """Say what does not hold, or None."""
    import torch

    from tokensearch.policy import Policy, Pool, Prune, Score
    from tokensearch.runtime import applied, describe, phase_ranges, trace
    from tokensearch.runtime.host import has_class_token

    spec, x = describe(model), pictures(model)
    score: Score = "class_attention" if has_class_token(model) else "mean_attention"
    steps = (Prune(0, spec.patch_tokens - 3, score), Pool(1, spec.patch_tokens - 5))
    policy = Policy(spec, steps, proportional_attention=True)
    with torch.inference_mode():
        before = model(x)
        with phase_ranges(model):
            opened = model(x)
        with applied(model, policy):
            reduced, sources = model(x), trace(model, x)
        after = model(x)
    counts = tuple(int(source.max()) + 1 for source in sources)
    if not (opened - before).abs().max() <= _CLOSE * before.abs().max():
        return "opened blocks differ from the model's own"
    if counts != policy.patch_tokens_per_block or not reduced.isfinite().all():
        return f"a prune and a pool leave {counts}, not {policy.patch_tokens_per_block}"
    return None if torch.equal(before, after) else "remove does not give the model back"
