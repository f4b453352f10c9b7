"""Presets by name: found, given their options, refused or carried over to another geometry."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict, Unpack

from tokensearch.errors import PolicyError
from tokensearch.policy.model_spec import ModelSpec
from tokensearch.policy.policy import LastBlock, Policy, changes_sizes
from tokensearch.policy.rescale import rescaled
from tokensearch.policy.schedules import CONTROL, PRESETS, Preset, of_family
from tokensearch.policy.steps import Prune, PruneOrPool, Score, Step

RANDOM = "random-"
RESCALED = "-rescaled"  # after the name of a preset that was carried over by ratio


class Options(TypedDict, total=False):
    """What may be asked of a preset, where it has it."""

    rescale: bool  # carry it over by ratio to a depth or token count that it was not made for
    last_block: LastBlock
    proportional_attention: bool  # where tokens come to stand for more than one patch
    score: Score  # where tokens are ranked; "mean_attention" needs no class token
    threshold: float  # of ppt-rN: the variance of the scores from which on an image is pruned


def preset(name: str, model: ModelSpec, **options: Unpack[Options]) -> Policy:
    """Return the published schedule `name` for `model`.

    `PRESETS` lists the published ones; families such as tome-rN and evit-K take any number.
    `random-NAME` drops tokens at random with the counts of NAME: the floor for every score. The
    policy's provenance says which preset it is, what was asked of it, and whether it was rescaled.

    PolicyError for an unknown name (with the nearest ones), for an option that the preset does not
    have, and for a model of another depth or token count, unless `rescale` is asked for.
    """
    asked = dict(options)
    if name.startswith(RANDOM):
        _check(name, asked, frozenset({"rescale", "last_block"}))
        policy = preset(name.removeprefix(RANDOM), model, **options)
        return replace(at_random(policy), provenance={**policy.provenance, "preset": name})
    chosen = find(name)
    _check(name, asked, _options_of(chosen))
    told = {option: value for option, value in asked.items() if option != "rescale"}
    provenance = {"preset": name, **({"options": told} if told else {})}
    if not chosen.made_for(model):
        if not options.get("rescale"):
            raise _unfit(name, chosen, model)
        provenance["rescaled"] = f"from {chosen.origin}"
    return Policy(
        model,
        tuple(_with(step, options) for step in _steps_for(chosen, model)),
        proportional_attention=options.get("proportional_attention", chosen.proportional_attention),
        last_block=options.get("last_block", chosen.last_block),
        provenance=provenance,
    )


def known_preset(name: str) -> Preset | None:
    """Return the preset of this name, published or of a family; None if there is none."""
    return PRESETS.get(name) or of_family(name)


def find(name: str) -> Preset:
    """Return the preset of this name; PolicyError with the nearest if there is none."""
    known = known_preset(name)
    if known is None:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0)
        raise PolicyError(f"preset {name!r} is unknown; the nearest are {', '.join(near)}")
    return known


def check_name(name: str) -> None:
    """Refuse a name that no preset has, nor any control of one, as `find` does."""
    find(name.rpartition(RANDOM)[2])


def at_random(policy: Policy) -> Policy:
    """Return a control that drops random tokens down to the same counts."""
    last = {step.block: step.keep for step in policy.steps}  # of a prune and a pool, the pool's
    steps = tuple(Prune(block, keep, "random") for block, keep in last.items())
    return Policy(policy.model, steps, last_block=policy.last_block)


def _steps_for(chosen: Preset, model: ModelSpec) -> tuple[Step, ...]:
    if chosen.made_for(model) or chosen.blocks is None or chosen.patch_tokens is None:
        return chosen.steps
    return rescaled(chosen.steps, model, blocks=chosen.blocks, patch_tokens=chosen.patch_tokens)


def _with(step: Step, options: Options) -> Step:
    """Return the step with what was asked for in place of its own."""
    if "score" in options and step.score is not None:
        step = replace(step, score=options["score"])
    if "threshold" in options and isinstance(step, PruneOrPool):
        step = replace(step, threshold=options["threshold"])
    return step


def _options_of(chosen: Preset) -> frozenset[str]:
    """Options that make a difference to a preset."""
    has = {"rescale", "last_block"}
    if any(changes_sizes(step) for step in chosen.steps):
        has.add("proportional_attention")
    if any(step.score is not None for step in chosen.steps):
        has.add("score")
    if any(isinstance(step, PruneOrPool) for step in chosen.steps):
        has.add("threshold")
    return frozenset(has)


def _check(name: str, asked: Mapping[str, object], has: frozenset[str]) -> None:
    """Refuse options that the preset does not have; the policy refuses the other bad values."""
    for option, value in asked.items():
        if option not in has:
            known = ", ".join(sorted(has))
            raise PolicyError(f"preset {name!r} has no option {option!r}; it has {known}")
        if option in {"rescale", "proportional_attention"} and not isinstance(value, bool):
            raise PolicyError(f"{option} of preset {name!r} is {value!r}; it must be True or False")


def _unfit(name: str, chosen: Preset, model: ModelSpec) -> PolicyError:
    return PolicyError(
        f"preset {name!r} was made for {chosen.origin}; {model.name} has {model.blocks} and "
        f"{model.patch_tokens}; preset(name, model, rescale=True), or --rescale, carries it over "
        f"by ratio"
    )


def is_control(name: str) -> bool:
    """Whether a preset is there to compare with, and no schedule of the literature.

    >>> is_control("none"), is_control("random-tome-r8"), is_control("tome-r8"), is_control("mine")
    (True, True, False, False)
    """
    known = PRESETS.get(name.removesuffix(RESCALED))
    return name.startswith(RANDOM) or (known is not None and known.source == CONTROL)


def is_published(name: str) -> bool:
    """Whether a name is that of a schedule of the literature, carried over or as it is.

    >>> is_published("tome-r13"), is_published("tome-r13-rescaled"), is_published("last-cls")
    (True, True, False)
    """
    return name.removesuffix(RESCALED) in PRESETS and not is_control(name)
