"""How host blocks are opened between attention and MLP, one family of blocks at a time."""

from tokensearch.runtime.adapters.attention import Attended
from tokensearch.runtime.adapters.families import (
    BlockFamily,
    explain_refusal,
    family_of,
    find_attention,
    find_norm,
)

__all__ = ["Attended", "BlockFamily", "explain_refusal", "family_of", "find_attention", "find_norm"]
