"""Multiply-accumulates of a policy, by the formula that the papers' "GFLOPs" follow."""

from tokensearch.policy.policy import Policy


def block_macs(policy: Policy) -> tuple[int, ...]:
    """Multiply-accumulates of each block for one image; stem, head and the steps left out.

    Attention on the tokens before the step, MLP on those after it: 4 N C^2 + 2 N^2 C + 8 N' C^2
    (the formula of DiffRate's code). A last block of prefix tokens alone projects keys and values
    of all tokens, and the rest of the prefix only.
    """
    model, macs = policy.model, []
    width, prefix, before = model.width, model.prefix_tokens, model.tokens
    counts = zip(policy.patch_tokens_per_block, policy.patch_tokens_after_block, strict=True)
    for block, (patches, handed_on) in enumerate(counts):
        after = prefix + patches
        asking = before
        if block == model.blocks - 1 and policy.last_block == "prefix_only":
            asking = prefix
        projections = 2 * (before + asking) * width**2
        macs.append(projections + 2 * asking * before * width + 8 * after * width**2)
        before = prefix + handed_on
    return tuple(macs)


def mac_share(policy: Policy) -> float:
    """Multiply-accumulates of the blocks, as a share of the baseline's."""
    return sum(block_macs(policy)) / sum(block_macs(Policy(policy.model)))
