"""How host blocks are opened between attention and MLP, one family of blocks at a time."""

from tokensearch.runtime.adapters.attention import Attended
from tokensearch.runtime.adapters.families import (
    BlockFamily,
    attention_of,
    explain_refusal,
    family_of,
)

__all__ = ["Attended", "BlockFamily", "attention_of", "explain_refusal", "family_of"]
