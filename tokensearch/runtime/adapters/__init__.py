"""How host blocks are opened between attention and MLP, one family of blocks at a time."""

from tokensearch.runtime.adapters.attention import Attended
from tokensearch.runtime.adapters.families import Family, family_of, refusal

__all__ = ["Attended", "Family", "family_of", "refusal"]
