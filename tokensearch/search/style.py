"""What all steps of one proposed schedule have in common, and the steps made so."""

from dataclasses import dataclass, replace
from math import ceil

from tokensearch.policy import Pool, Prune, Step
from tokensearch.policy.checks import kept_range
from tokensearch.policy.steps import Match, Rest, Score


@dataclass(frozen=True, slots=True)
class Style:
    """How tokens are scored, matched and discarded, and which counts may be left.

    Every method returns no step where the count that is asked for would remove nothing, so that
    any count is a valid wish.
    """

    score: Score
    match: Match
    rest: Rest
    by: int  # counts are multiples of this

    def one(self, op: str, block: int, *, tokens: int, count: float) -> tuple[Step, ...]:
        """Prune or pool the `tokens` that reach `block` to about `count`, as far as `op` can."""
        if op == "prune":
            return self._down(Prune(block, tokens, self.score, self.rest), count)
        score = self.score if self.match == "ranked" else None
        return self._down(Pool(block, tokens, self.match, score), count)

    def both(self, block: int, *, tokens: int, count: float, pooled: float) -> tuple[Step, ...]:
        """Prune to about `count`, then pool to the share `pooled` of what is left.

        The discarded of such a prune are dropped: a policy allows nothing else before a pool.
        """
        pruned = self._down(Prune(block, tokens, self.score), count)
        left = remaining(pruned, tokens)
        then = self.one("pool", block, tokens=left, count=pooled * left)
        return pruned + then if then else self.one("prune", block, tokens=tokens, count=count)

    def _down(self, whole: Prune | Pool, count: float) -> tuple[Step, ...]:
        """`whole`, which keeps every token there is, with the allowed count nearest to `count`."""
        least, most = kept_range(whole, whole.keep)
        keep = self.by * max(ceil(least / self.by), round(count / self.by))
        return (replace(whole, keep=keep),) if keep < most else ()


def remaining(steps: tuple[Step, ...], tokens: int) -> int:
    """Patch tokens that are left of `tokens` after the steps."""
    return steps[-1].keep if steps else tokens
