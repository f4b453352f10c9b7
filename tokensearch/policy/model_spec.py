"""The facts about a model that a policy depends on."""

from dataclasses import dataclass

from tokensearch.errors import PolicyError

# What a model may have, far beyond any: a file must not make a reader count to a billion.
# 1,000 layers are the deepest Transformer published (DeepNet, arXiv:2203.00555), 6,144 features
# the widest Vision Transformer (ViT-22B, arXiv:2302.05442), 2**20 patches an image of 16,384 px.
BOUNDS: dict[str, tuple[int, int]] = {
    "blocks": (1, 1024),
    "patch_tokens": (1, 2**20),
    "prefix_tokens": (0, 1024),
    "width": (1, 2**17),
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a policy must know of a Vision Transformer, and nothing of how it is built.

    >>> ModelSpec("toy", blocks=12, patch_tokens=196, prefix_tokens=1, width=192).tokens
    197
    """

    name: str  # timm name, tag included, or `package.module:function`
    blocks: int
    patch_tokens: int  # entering block 0; prefix tokens are not counted
    prefix_tokens: int  # class, distillation and register tokens, never touched
    width: int  # C, features per token
    weights: str | None = None  # "sha256:..." over the parameters; None when not known

    def __post_init__(self) -> None:
        for field, (least, most) in BOUNDS.items():
            value = getattr(self, field)
            if type(value) is not int or not least <= value <= most:
                raise PolicyError(
                    f"model.{field} is {value!r:.60}; it must be an integer from {least} to {most}"
                )

    @property
    def tokens(self) -> int:
        """Prefix and patch tokens together, P + N, entering block 0."""
        return self.prefix_tokens + self.patch_tokens

    @property
    def geometry(self) -> tuple[int, int, int, int]:
        """(blocks, patch tokens, prefix tokens, width): what must be equal for a policy to fit."""
        return self.blocks, self.patch_tokens, self.prefix_tokens, self.width
