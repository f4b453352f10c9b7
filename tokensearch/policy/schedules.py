"""The published schedules themselves: how many tokens each method leaves, and where.

Counts come from the papers and repositories named in `PRESETS`, and follow the authors' code where
it has a quirk; the function of each method names them. One holds for all: prefix tokens are never
touched here. ToMe's code spares a distillation token too, but that of EViT, of DiffRate and of
PPT's prune ranks it among the patches and may drop it; on a distilled model these presets therefore
leave a token more than the authors' code.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from tokensearch.policy.diffrate import diffrate_lists
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import LastBlock
from tokensearch.policy.steps import Pool, Prune, PruneOrPool, Step

CONTROL = "control"  # the source of what no paper proposed
PATCHES = 196  # 224 pixels in patches of 16: what all of the published schedules start from
SITES = (3, 6, 9)  # blocks at which EViT, PPT and others reduce, of 12
PPT_THRESHOLD = 7e-5  # without training; the authors fine-tune with 6e-5

TOME = "ToMe, arXiv:2210.09461"
PPT = "PPT, arXiv:2310.01812"
EVIT = "EViT, arXiv:2202.07800"
DIFFRATE = "DiffRate, arXiv:2305.17997"
MCTF = "MCTF, arXiv:2403.10030"
POMT = "POMT, arXiv:2407.05941"
PITOME = "PiToMe, arXiv:2405.16148"


@dataclass(frozen=True, slots=True)
class Preset:
    """One published schedule, for the depth and token count that it was made for."""

    source: str
    summary: str
    steps: tuple[Step, ...] = ()
    blocks: int | None = 12  # None fits any depth
    patch_tokens: int | None = PATCHES
    proportional_attention: bool = False
    last_block: LastBlock = "full"

    def made_for(self, model: ModelSpec) -> bool:
        """Whether the model has the depth and the token count of the schedule."""
        return self.blocks in {None, model.blocks} and (
            self.patch_tokens in {None, model.patch_tokens}
        )

    @property
    def origin(self) -> str | None:
        """What the schedule was made for, in words; None if for any model."""
        if self.blocks is None:
            return None
        return f"{self.blocks} blocks and {self.patch_tokens} patch tokens"


@dataclass(frozen=True, slots=True)
class PresetFamily:
    """Presets that differ in a number, which their name holds."""

    shown: str  # as people write it: tome-rN
    pattern: str  # what a name must match as a whole; its groups go to `build`
    build: Callable[..., Preset]

    def find(self, name: str) -> Preset | None:
        """Return the preset of this name, None if it belongs to another family."""
        match = re.fullmatch(self.pattern, name)
        return None if match is None else self.build(*match.groups())


def _tome(removed: str, *, blocks: int = 12) -> Preset:
    """ToMe with a constant r: merge r tokens in every block, at most half of those left."""
    return Preset(
        TOME,
        f"merge {removed} similar tokens in every block",
        _fewer(((block, int(removed)) for block in range(blocks)), Pool),
        blocks=blocks,
        proportional_attention=True,
    )


def _tome_decreasing(removed: str) -> Preset:
    """ToMe's (r, -1): from 2r in block 0 evenly down to 0 in the last, every fraction cut off."""
    last = 12 - 1
    removed_at = ((block, 2 * int(removed) * (last - block) // last) for block in range(12))
    return Preset(
        TOME,
        f"merge {2 * int(removed)} similar tokens in block 0, fewer in each, none in the last",
        _fewer(removed_at, Pool),
        proportional_attention=True,
    )


def _ppt(removed: str, operator: str | None) -> Preset:
    """PPT: r tokens fewer at blocks 3, 6 and 9, pruned or pooled.

    The code caps r at half of the tokens left for the prune as well, which could take more, and
    has proportional attention even where tokens are only pruned and it changes nothing.
    """
    make: Callable[[int, int], Step]
    match operator:
        case "prune":
            make, verb = partial(Prune, score="class_attention_value"), "prune"
        case "pool":
            make, verb = Pool, "merge"
        case _:
            make = partial(PruneOrPool, threshold=PPT_THRESHOLD)
            verb = "image by image prune or merge"
    return Preset(
        PPT,
        f"{verb} {removed} tokens at blocks 3, 6, 9",
        _fewer(((block, int(removed)) for block in SITES), make),
        proportional_attention=True,
    )


def _evit(rate: str, unfused: str | None = None) -> Preset:
    """EViT: at blocks 3, 6 and 9 keep ceil(rate N) of N patch tokens, and one fused of the rest.

    The fused token is a sum whose weights do not add up to 1; from then on it counts as one of the
    N, may be dropped like any, and weighs no more than a single patch. Where all but one are kept
    it takes the place of that one, which is a step all the same.
    """
    rest = " and fuse the rest" if unfused is None else ""
    left, steps = PATCHES, list[Step]()
    for block in SITES:
        kept = math.ceil(float(rate) * left)
        if kept < left:
            left = kept + (unfused is None)
            steps.append(Prune(block, left, rest="drop" if unfused else "fuse"))
    summary = f"keep {100 * float(rate):g} % by class attention at blocks 3, 6, 9{rest}"
    return Preset(EVIT, summary, tuple(steps))


def _topk(rate: str) -> Preset:
    """Top-K pruning, in EViT's paper the variant without the fused token."""
    return _evit(rate, "-unfused")


def _pomt(removed: str) -> Preset:
    """POMT's counts: r tokens fewer at block 3, one of those left being the mean of the discarded.

    Its own score needs every row of attention and is scaled by the largest in the batch, so that
    an image's tokens depend on its batch-mates; class attention stands in for it.
    """
    return Preset(
        POMT,
        f"prune {removed} at block 3, their mean stays (POMT's counts and mean token; its score "
        "needs all of attention, so class attention stands in)",
        (Prune(3, PATCHES - int(removed), rest="mean"),),
    )


def _pitome(rate: str) -> Preset:
    """PiToMe: every block keeps a share of its tokens; without proportional attention.

    The first half of the blocks splits all tokens by energy, the second the mergeable alone.
    """
    left, steps = PATCHES, list[Step]()
    for block in range(12):
        left -= min(math.floor(left - left * float(rate)), left // 2)
        steps.append(Pool(block, left, "energy_bipartite" if block < 6 else "energy"))
    summary = f"keep {100 * float(rate):g} % in every block, merge those with many neighbours"
    return Preset(PITOME, summary, tuple(steps))


def _diffrate(name: str, steps: tuple[Step, ...]) -> Preset:
    """DiffRate: prune, then merge the lowest-ranked into the most similar of the others.

    The counts go with the model that they were found for, whose size begins the name. A merged
    token counts for less than a patch in proportional attention, the less the less similar it was.
    Most lists end with two patch tokens, since a class-token head reads none of them; those for
    MAE, whose head averages patch tokens, leave more.
    """
    size, _, budget = name.rpartition("-")
    return Preset(
        DIFFRATE,
        f"prune, then merge by class attention: found for {_SEARCHED[size]} at {budget} GFLOPs",
        steps,
        blocks=24 if size == "mae-l" else 12,
        proportional_attention=True,
    )


_SEARCHED = {
    "t": "DeiT-T",
    "s": "DeiT-S",
    "b": "DeiT-B",
    "mae-b": "ViT-B of MAE",
    "mae-l": "ViT-L of MAE",
}


def _fewer(
    removed_at: Iterable[tuple[int, int]], make: Callable[[int, int], Step]
) -> tuple[Step, ...]:
    """Steps that remove so many tokens at these blocks, at most half of those left."""
    left, steps = PATCHES, list[Step]()
    for block, removed in removed_at:
        left -= min(removed, left // 2)
        steps.append(make(block, left))
    return tuple(steps)


_NUMBER, _RATE = "([1-9][0-9]{0,3})", r"(0?[.][0-9]*[1-9][0-9]*)"  # above 0; and below 1
FAMILIES = (
    PresetFamily("tome-rN", f"tome-r{_NUMBER}", _tome),
    PresetFamily("tome-decN", f"tome-dec{_NUMBER}", _tome_decreasing),
    PresetFamily("tome-l-rN", f"tome-l-r{_NUMBER}", partial(_tome, blocks=24)),
    PresetFamily("ppt-rN[-prune|-pool]", f"ppt-r{_NUMBER}(?:-(prune|pool))?", _ppt),
    PresetFamily("evit-K[-unfused]", f"evit-{_RATE}(-unfused)?", _evit),
    PresetFamily("topk-K", f"topk-{_RATE}", _topk),
    PresetFamily("pomt-N", f"pomt-{_NUMBER}", _pomt),
    PresetFamily("pitome-K", f"pitome-{_RATE}", _pitome),
)


def of_family(name: str) -> Preset | None:
    """Return the preset that a family has under this name; None if there is no such family."""
    matches = (family.find(name) for family in FAMILIES)
    return next((preset for preset in matches if preset is not None), None)


def _listed(*names: str) -> dict[str, Preset]:
    """Members of families by name, those that were published."""
    return {name: preset for name in names if (preset := of_family(name)) is not None}


PRESETS: dict[str, Preset] = {
    **_listed("tome-r8", "tome-r13", "tome-r16", "tome-dec13", "tome-dec16"),
    **_listed("tome-l-r5", "tome-l-r6", "tome-l-r7", "tome-l-r8"),
    **_listed("ppt-r50", "ppt-r50-prune", "ppt-r50-pool"),
    **_listed("evit-0.9", "evit-0.8", "evit-0.7", "evit-0.6", "evit-0.5"),
    **_listed("evit-0.9-unfused", "evit-0.8-unfused", "evit-0.7-unfused", "evit-0.6-unfused"),
    **_listed("evit-0.5-unfused", "topk-0.7", "topk-0.5"),
    "ratio35": Preset(
        MCTF,
        "merge 35 % at blocks 3, 6, 9 (counts of MCTF's fast variant, not its fusion)",
        (Pool(3, 128), Pool(6, 83), Pool(9, 54)),
        proportional_attention=True,
    ),
    **_listed("pomt-56", "pitome-0.95", "pitome-0.9"),
    **{f"diffrate-{name}": _diffrate(name, steps) for name, steps in diffrate_lists().items()},
    "none": Preset(CONTROL, "the baseline", blocks=None, patch_tokens=None),
    "last-cls": Preset(
        CONTROL,
        "the last block computes prefix tokens alone (lossless)",
        blocks=None,
        patch_tokens=None,
        last_block="prefix_only",
    ),
    "avgpool-grid": Preset(
        CONTROL,
        "average 2 x 2 neighbours once, at block 6",
        (Pool(6, PATCHES // 4, "grid"),),
        proportional_attention=True,
    ),
    "ppt-aligned": Preset(
        CONTROL,
        "PPT made static: merge at block 3, prune at 6 and 9, to 144, 96, 48 with the class token",
        (
            Pool(3, 143),
            Prune(6, 95, "class_attention_value"),
            Prune(9, 47, "class_attention_value"),
        ),
        proportional_attention=True,
    ),
}
