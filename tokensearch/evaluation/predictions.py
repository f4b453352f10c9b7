"""What policies make of images: asked of the model once, then remembered, in pieces of a pass."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from tokensearch.accuracy.results import (
    ImageResults,
    Predictions,
    compare_predictions,
    join_results,
    predict_images,
)
from tokensearch.accuracy.store import AnswerStore, Key
from tokensearch.data.splits import PURPOSES, Purpose, Splits, contents
from tokensearch.errors import TokensearchWarning
from tokensearch.policy import Policy

# Images per pass when only answers count. Larger passes were no faster per image on two CPU cores.
CHUNK = 32
# Images of a block that is remembered about which the model is asked again, once for every policy.
PROBES = 4
# How far what is remembered may be off, in nats: other images in the batch, another kernel.
ROUNDING = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
STALE = (
    "remembered answers were not those of the model, and are forgotten; everything is asked again"
)

OnBatch = Callable[[int, int], None]  # called with images done, images in all
# Logits of a policy for a stretch of the images of a split, loaded only if they are needed.
Logits = Callable[[Policy, Purpose, range, Callable[[], Tensor]], Tensor]
Ask = Callable[[Purpose, range], Predictions]  # about a stretch of images


@dataclass
class PredictionCache:
    """Answers of one model under any policy, block by block."""

    splits: Splits
    unreduced: Policy
    model: str  # digest of its identity
    dtype: str
    device: str  # "cpu", "cuda"
    logits: Logits
    store: AnswerStore
    images_run: int = 0  # through the model under a policy, but for probes; 0: all was remembered
    _whole: dict[tuple[Purpose, range], Predictions] = field(default_factory=dict)
    _contents: dict[Purpose, tuple[str, ...]] = field(default_factory=dict)
    _known: dict[tuple[str, Purpose, int], ImageResults] = field(default_factory=dict)
    _probed: set[str] = field(default_factory=set)  # schedules whose stored answers were tried

    def read(self, on_batch: OnBatch | None = None) -> None:
        """Read every image once, so that one that cannot be read is found before the search.

        Raises:
            DataError: There is one.
        """
        total = sum(len(self.splits.of(purpose)) for purpose in PURPOSES)
        done = 0
        for purpose in PURPOSES:
            if on_batch is None:
                self.contents(purpose)
            elif purpose not in self._contents:
                told = partial(_tell, on_batch, done, total)
                self._contents[purpose] = contents(self.splits.of(purpose), told)
            done += len(self.splits.of(purpose))

    def contents(self, purpose: Purpose) -> tuple[str, ...]:
        """The images of a split by name (`data.splits.contents`)."""
        if purpose not in self._contents:
            self._contents[purpose] = contents(self.splits.of(purpose))
        return self._contents[purpose]

    def blocks(self, purpose: Purpose) -> int:
        """How many blocks a split has."""
        return -(-len(self.splits.of(purpose)) // CHUNK)

    def asked(self, purpose: Purpose) -> int:
        """Blocks of images that reduced policies were asked about, remembered ones counted in."""
        whole = self.unreduced.schedule_hash
        return sum(split == purpose and name != whole for name, split, _ in self._known)

    def block(self, policy: Policy, purpose: Purpose, number: int) -> ImageResults:
        """Answers to one block of images."""
        place = policy.schedule_hash, purpose, number
        if place not in self._known:
            self._known[place] = self._answered(policy, purpose, number)
        return self._known[place]

    def answers(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        limit: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> ImageResults:
        """Answers to the first `limit` images, all of them by default."""
        split = self.splits.of(purpose)
        wanted = len(split) if limit is None else min(limit, len(split))
        parts: list[ImageResults] = []
        for number in range(-(-wanted // CHUNK)):
            parts.append(self.block(policy, purpose, number))
            if on_batch is not None:
                on_batch(min(wanted, (number + 1) * CHUNK), wanted)
        return join_results(parts).first(wanted)

    def of_another(
        self, key: str, purpose: Purpose, logits: Callable[[Tensor], Tensor]
    ) -> ImageResults:
        """Answers of a model that follows no policy, held against the baseline's.

        key     says which model it is; remembered under the baseline's identity as well
        logits  of images, which it gets as the baseline takes them
        """
        ask, parts = partial(self._ask_another, logits), []
        for number in range(self.blocks(purpose)):
            found = self._kept(f"rival:{key}", purpose, number, ask)
            if found is None:
                found = self._fresh(ask, purpose, number)
                self._keep(f"rival:{key}", purpose, number, found)
            parts.append(found)
        return join_results(parts)

    def remembered(self, policy: Policy, purpose: Purpose, images: int) -> ImageResults | None:
        """Answers to the first `images`, if the model need not be asked."""
        found: list[ImageResults] = []
        for number in range(-(-images // CHUNK)):
            one = self._known.get((policy.schedule_hash, purpose, number))
            if one is None:
                ask = partial(self._ask, policy)
                one = self._kept(policy.schedule_hash, purpose, number, ask)
            if one is None:
                return None
            found.append(one)
        return join_results(found).first(images)

    def _answered(self, policy: Policy, purpose: Purpose, number: int) -> ImageResults:
        """Answers to one block: those of an earlier process, or the model's own."""
        schedule, ask = policy.schedule_hash, partial(self._ask, policy)
        found = self._kept(schedule, purpose, number, ask)
        if found is None:
            found = self._fresh(ask, purpose, number)
            self.images_run += len(found) if policy.reduces else 0
            self._keep(schedule, purpose, number, found)
        return found

    def _kept(self, schedule: str, purpose: Purpose, number: int, ask: Ask) -> ImageResults | None:
        """Answers of an earlier process, tried on a few images when first used."""
        if not self.store.keeps:
            return None
        key = self._key(schedule)
        found = self.store.get(key, self._names(purpose, number))
        if found is None or schedule in self._probed:
            return found
        if self._holds(found.first(PROBES), ask, purpose, number * CHUNK):
            self._probed.add(schedule)
            return found
        self.store.forget(key)
        warnings.warn(STALE, TokensearchWarning, stacklevel=2)
        return None

    def _holds(self, stored: ImageResults, ask: Ask, purpose: Purpose, first: int) -> bool:
        """Whether a fresh pass answers the same, but for rounding."""
        images, off = range(first, first + len(stored)), ROUNDING[self.dtype]
        predictions, whole = ask(purpose, images), self._unreduced(purpose, images)
        return all(
            (
                _close(stored, compare_predictions(predictions, whole), off),
                _may_answer(predictions, stored.answers, off),
                _may_answer(whole, stored.baseline, off),
            )
        )

    def _keep(self, schedule: str, purpose: Purpose, number: int, found: ImageResults) -> None:
        if self.store.keeps:
            self._probed.add(schedule)  # under this key there is now what the model itself said
            self.store.put(self._key(schedule), self._names(purpose, number), found)

    def _names(self, purpose: Purpose, number: int) -> Sequence[str]:
        images = self._images(purpose, number)
        return self.contents(purpose)[images.start : images.stop]

    def _images(self, purpose: Purpose, number: int) -> range:
        count = len(self.splits.of(purpose))
        return range(count)[number * CHUNK : (number + 1) * CHUNK]

    def _key(self, schedule: str) -> Key:
        return Key(self.model, schedule, self.dtype, self.device)

    def _fresh(self, ask: Ask, purpose: Purpose, number: int) -> ImageResults:
        images = self._images(purpose, number)
        return compare_predictions(ask(purpose, images), self._unreduced(purpose, images))

    def _ask_another(
        self, logits: Callable[[Tensor], Tensor], purpose: Purpose, images: range
    ) -> Predictions:
        split = self.splits.of(purpose)
        loaded, labels = split.part(images.start, images.stop)
        return predict_images(logits(loaded), labels, split, first=images.start)

    def _ask(self, policy: Policy, purpose: Purpose, images: range) -> Predictions:
        whole = self._unreduced(purpose, images)
        if not policy.reduces:
            return whole
        split = self.splits.of(purpose)
        load = partial(split.part, images.start, images.stop)
        logits = self.logits(policy, purpose, images, lambda: load()[0])
        return predict_images(logits, whole.labels, split, first=images.start)

    def _unreduced(self, purpose: Purpose, images: range) -> Predictions:
        """Predictions of the baseline, which every divergence is from."""
        if (purpose, images) not in self._whole:
            split = self.splits.of(purpose)
            loaded, labels = split.part(images.start, images.stop)
            logits = self.logits(self.unreduced, purpose, images, lambda: loaded)
            found = predict_images(logits, labels, split, first=images.start)
            self._whole[purpose, images] = found
        return self._whole[purpose, images]


def _tell(on_batch: OnBatch, before: int, total: int, read: int) -> None:
    on_batch(before + read, total)


def _close(stored: ImageResults, fresh: ImageResults, off: float) -> bool:
    """Whether divergences and cross-entropies agree, to `off` nats or that share of them."""
    pairs = (stored.kl, fresh.kl), (stored.ce, fresh.ce)
    return all(bool(((a - b).abs() <= off * (1 + b)).all()) for a, b in pairs)


def _may_answer(predictions: Predictions, answers: Tensor, off: float) -> bool:
    """Whether each answer is the most probable, or as good as that."""
    log_probs = predictions.log_probs
    if not bool(((answers >= 0) & (answers < log_probs.shape[1])).all()):
        return False
    given = log_probs.gather(1, answers[:, None]).squeeze(1)
    return bool((given >= log_probs.amax(dim=1) - off).all())
