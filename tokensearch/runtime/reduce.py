"""Carry out the steps of one block, on what its attention left behind."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from tokensearch import ops
from tokensearch.ops import Ranking, Tokens, take
from tokensearch.policy import Merger, Pool, Prune, PruneOrPool, Score, Step, Threshold
from tokensearch.policy.steps import OWN, OwnScore
from tokensearch.records.profile import Phase
from tokensearch.runtime.adapters import Attended
from tokensearch.runtime.learned import learned

_CLUSTERS = {"kmeans": ops.kmeans, "kmedoids": ops.kmedoids, "agglomerative": ops.agglomerative}

# Called with a threshold's step and the scores of all tokens that are there; says the threshold.
ChooseThreshold = Callable[[Threshold, Tensor], float]


class MaskLearner(Protocol):
    """Learns what thresholds keep: other tokens are masked and not dropped."""

    def mask(
        self, step: Threshold, tokens: Tokens, score: Tensor, *, prefix: int, least: int
    ) -> Tokens:
        """Return all tokens, with sizes of 0 for those that the step leaves out.

        score  (B, N)
        least  patch tokens that every image keeps
        """
        ...


class Site(NamedTuple):
    """What the block knows where steps act."""

    block: nn.Module
    attended: Attended
    bias: Tensor | None  # that was added to the logits of the attention, (B, 1, 1, T)
    before: Tensor  # (B, T, C) features before the half of the block that has just run
    after: Tensor  # (B, T, C) and after it
    present: Tensor | None = None  # (B, T, 1) false for tokens that fill an image up; None: all are


@dataclass
class StepReducer:
    """The steps of one block in one pass: at most one prune, then at most one pool."""

    prefix: int
    block: int
    blocks: int  # of the model
    site: Site
    range: Callable[[Phase], AbstractContextManager[object]]
    sizes: bool
    least: int  # patch tokens that thresholds leave at least
    choose: ChooseThreshold | None = None  # thresholds while they are looked for
    learner: MaskLearner | None = None  # ... and while they learn
    pruned: Tensor | None = None  # (B, P + K) rows that an earlier prune of this block kept
    scores: dict[Score | OwnScore, Tensor] = field(default_factory=dict)

    def carry_out(self, step: Step, tokens: Tokens) -> Tokens:
        """Return the tokens that `step` leaves of `tokens`."""
        # Not `match`: the compiler of torch 2.9 cannot trace class patterns.
        if isinstance(step, Prune):
            return self._prune(step, tokens)
        if isinstance(step, Pool):
            return self._pool(step, tokens)
        if isinstance(step, PruneOrPool):
            return self._prune_or_pool(step, tokens)
        if isinstance(step, Threshold):
            return self._keep_above(step, tokens)
        return self._merge_by_queries(step, tokens)

    def _prune(self, step: Prune, tokens: Tokens) -> Tokens:
        if step.score == "learned":
            query = learned(self.site.block, step, "query")
            with self.range("scoring"):
                score = ops.learned_score(self.site.after, query, prefix=self.prefix)
        else:
            score = self._score(step.score)
        with self.range("selecting"):
            extra = step.rest != "drop"
            ranking = ops.rank(score, keep=step.keep - extra, prefix=self.prefix)
        self.pruned = ranking.kept
        with self.range("gathering"):
            if not extra:
                return ops.pick(tokens, ranking.kept, prefix=self.prefix)
            weight = score if step.rest == "fuse" else None
            return ops.pick_and_add(
                tokens, ranking, prefix=self.prefix, weight=weight, sizes=self.sizes
            )

    def _pool(self, step: Pool, tokens: Tokens) -> Tokens:
        prefix = self.prefix
        left = tokens.x.shape[1] - prefix
        match step.match:
            case "bipartite" | "sized_bipartite":
                with self.range("selecting"):
                    size = tokens.size if step.match == "sized_bipartite" else None
                    matching = ops.match_bipartite(
                        self._keys(step), removed=left - step.keep, prefix=prefix, size=size
                    )
                with self.range("merging"):
                    return ops.merge(tokens, matching, prefix=prefix)
            case "energy" | "energy_bipartite":
                with self.range("selecting"):
                    folding = self._match_by_energy(step, left - step.keep)
                with self.range("merging"):
                    return ops.fold(tokens, folding, prefix=prefix)
            case "ranked":
                ranking = self._ranked(step)
                with self.range("merging"):
                    return ops.merge_ranked(tokens, ranking, prefix=prefix)
            case "grid":
                label = ops.grid_2x2(tokens.x.shape[0], left, device=tokens.x.device)
            case "kmeans" | "kmedoids" | "agglomerative":
                with self.range("selecting"):
                    # Token Pooling clusters features, ATC keys.
                    seen = self._metric(step) if step.match == "agglomerative" else tokens.x
                    label = _CLUSTERS[step.match](seen[:, prefix:], clusters=step.keep)
        with self.range("merging"):
            return ops.merge_clusters(tokens, label, clusters=step.keep, prefix=prefix)

    def _match_by_energy(self, step: Pool, removed: int) -> ops.Folding:
        margin = ops.margin_of(self.block, self.blocks) if step.margin is None else step.margin
        return ops.match_by_energy(
            self._metric(step),
            removed=removed,
            prefix=self.prefix,
            margin=margin,
            bipartite=step.match == "energy_bipartite",
        )

    def _prune_or_pool(self, step: PruneOrPool, tokens: Tokens) -> Tokens:
        score = self._score(step.score)
        with self.range("merging"):
            return ops.prune_or_pool(
                tokens,
                score,
                self._keys(step),
                keep=step.keep,
                prefix=self.prefix,
                threshold=step.threshold,
            )

    def _keep_above(self, step: Threshold, tokens: Tokens) -> Tokens:
        score, threshold = self._score(step.score), step.threshold
        if self.learner is not None:
            return self.learner.mask(step, tokens, score, prefix=self.prefix, least=self.least)
        if self.choose is not None:
            held = None if tokens.size is None else tokens.size[:, self.prefix :, 0] > 0
            threshold = self.choose(step, score.flatten() if held is None else score[held])
        with self.range("gathering"):
            return ops.keep_above(
                tokens, score, threshold=threshold, prefix=self.prefix, least=self.least
            )

    def _merge_by_queries(self, step: Merger, tokens: Tokens) -> Tokens:
        block = self.site.block
        with self.range("merging"):
            return ops.merge_by_queries(
                tokens,
                learned(block, step, "queries"),
                (learned(block, step, "norm.weight"), learned(block, step, "norm.bias")),
                scale=step.scale,
                raw=step.values == "raw",
                prefix=self.prefix,
            )

    def _ranked(self, step: Pool) -> Ranking:
        assert step.score is not None
        score = self._score(step.score)
        with self.range("selecting"):
            if self.pruned is not None:
                score = score.gather(1, self.pruned[:, self.prefix :] - self.prefix)
            return ops.rank(score, keep=step.keep, prefix=self.prefix)

    def _keys(self, step: Pool | PruneOrPool) -> Tensor:
        """What bipartite matching compares: keys, (B, H, T, D), or of what is left their sum."""
        plain = self.pruned is None and not (isinstance(step, Pool) and step.metric == "learned")
        return self.site.attended.keys if plain else self._metric(step)

    def _metric(self, step: Pool | PruneOrPool) -> Tensor:
        """Keys summed over heads, or a learned metric, (B, T, D).

        The authors take the mean, which points the same way.
        """
        if isinstance(step, Pool) and step.metric == "learned":
            metric = self._learned_metric(step)
        else:
            metric = self.site.attended.keys.sum(dim=1)
        return metric if self.pruned is None else take(metric, self.pruned)

    def _learned_metric(self, step: Pool) -> Tensor:
        """A linear map of what attention reads, the output of the norm before it: (B, T, D)."""
        block: Any = self.site.block
        weight, bias = learned(block, step, "weight"), learned(block, step, "bias")
        return F.linear(block.norm1(self.site.before), weight, bias)

    def _score(self, name: Score | OwnScore) -> Tensor:
        """Score the patch tokens that entered the block: (B, N)."""
        if name not in self.scores:
            with self.range("scoring"):
                self.scores[name] = self._scored(name)
        return self.scores[name]

    def _scored(self, name: Score | OwnScore) -> Tensor:
        present = self.site.present
        at, bias, prefix = self.site.attended, self.site.bias, self.prefix
        if name == "random":
            images, left = self.site.before.shape[0], self.site.before.shape[1] - prefix
            return ops.random_order(images, left, seed=self.block, device=at.keys.device)
        if name.startswith(OWN):  # no pattern, which the compiler cannot trace
            return ops.own_score(name, self.site.after[:, prefix:], at.keys[:, :, prefix:])
        if name == "shift":
            return ops.representation_shift(
                self.site.before, self.site.after, prefix=prefix, present=present
            )
        by_class = name != "mean_attention"
        query = (
            at.queries[:, :, :1]
            if by_class
            else ops.mean_query(at.queries, prefix=prefix, present=present)
        )
        if name in ("class_attention", "mean_attention"):
            return ops.attention_score(
                query, at.keys, prefix=prefix, bias=bias, contrast=at.contrast
            )
        row = ops.attention_row(query, at.keys, bias=bias, contrast=at.contrast)
        if name == "class_attention_value":
            return ops.class_attention_value(row, at.values, prefix=prefix)
        return ops.head_weighted_class_attention(row, at.outputs, prefix=prefix)
