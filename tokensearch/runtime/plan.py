"""Which blocks a policy opens, and what each hands on to the next."""

from collections.abc import Iterator
from dataclasses import dataclass

from tokensearch.policy import Policy, changes_sizes
from tokensearch.runtime.adapters import family_of
from tokensearch.runtime.host import Host
from tokensearch.runtime.reduced_block import Around, ReducedBlock


@dataclass(frozen=True)
class Extras:
    """What is wanted beside the policy itself."""

    dense: bool = False  # every block hands out the full grid
    sources: bool = False  # from the first block on, it is known where patches went
    floor: bool = False  # steps cut tokens off instead, the last ones first
    around: Around | None = None  # put around every phase of what is opened


def make_plan(
    host: Host, policy: Policy, extras: Extras, *, weighs: bool
) -> Iterator[ReducedBlock]:
    """Open the blocks that do something: reduce, or take part in what others know of their tokens.

    weighs  the head wants sizes
    """
    last = len(host.blocks) - 1
    sites = [step.block for step in policy.steps]
    first_step = sites[0] if sites else last + 1
    sizes = range(0) if extras.floor else _span_of_sizes(policy, last + 1 if weighs else last)
    follows = extras.sources or extras.dense
    first = 0 if extras.sources else first_step
    left = policy.model.patch_tokens
    for place, block in enumerate(host.blocks):
        steps = policy.steps_of(place)
        prefix_only = place == last and policy.last_block == "prefix_only"
        # After the first step, tokens have positions of their own and patches must be looked up.
        tracks = (follows or host.rotates) and place >= first
        next_tracks = (tracks and place < last) or (extras.sources and place == last)
        if steps or prefix_only or place in sizes or tracks:
            family = family_of(block)
            assert family is not None  # `as_host` refuses others
            yield ReducedBlock(
                block,
                family,
                place,
                prefix=host.num_prefix_tokens,
                enters=left,
                steps=steps,
                # Elsewhere sizes are 1; a flag without effect would tell equal blocks apart.
                proportional=policy.proportional_attention and place in sizes,
                prefix_only=prefix_only,
                begins=not (place in sizes or (tracks and place > first)),
                hands_on=place + 1 in sizes or next_tracks,
                sizes=place + 1 in sizes,
                places=host.rotates,
                sources=follows,
                dense=extras.dense,
                floor=extras.floor,
                around=extras.around,
            )
        left = steps[-1].keep if steps else left


def sizes_leave(policy: Policy) -> bool:
    """Whether tokens of more than one patch reach the head."""
    return policy.last_block == "full" and any(changes_sizes(step) for step in policy.steps)


def _span_of_sizes(policy: Policy, last: int) -> range:
    """Blocks that tokens with sizes enter and that need them; one past the last is the head."""
    changing = [step.block for step in policy.steps if changes_sizes(step)]
    if not changing:
        return range(0)
    head = last >= policy.model.blocks
    needed = last if policy.proportional_attention or head else changing[-1]  # which weighs by size
    return range(changing[0] + 1, needed + 1)
