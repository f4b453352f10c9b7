"""A score of your own: which patch tokens survive.

    tokensearch evaluate policy.json --model examples.own_operator:make_model

One function and one line. Policy files name it `own:contrast`, and hold no code.
"""

import sys

import timm
from torch import Tensor, nn

import tokensearch
from tokensearch.policy import Policy, Prune
from tokensearch.runtime import describe


def contrast(patches: Tensor, keys: Tensor) -> Tensor:
    """Score patches by how far they are from the mean patch: (B, N, C), (B, H, N, D) -> (B, N)."""
    return (patches - patches.mean(dim=1, keepdim=True)).norm(dim=-1)


tokensearch.add_score("contrast", contrast)


def make_model(**options: object) -> nn.Module:
    """Return the model for `--model`: importing this module has added the score."""
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


def make_policy(model: nn.Module) -> Policy:
    """Keep half of the patches from the middle block on, by the score above."""
    spec = describe(model)
    step = Prune(block=spec.blocks // 2, keep=spec.patch_tokens // 2, score="own:contrast")
    return Policy(spec, (step,))


if __name__ == "__main__":
    tokensearch.save(make_policy(make_model()), "policy.json")
    sys.stdout.write("policy.json\n")
