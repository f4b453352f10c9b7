"""What policies make of images: asked of the model once, then remembered, in pieces of a pass."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from tokensearch.data.splits import Purpose, Split, Splits
from tokensearch.evaluate import Answers, Predictions, held_against, joined, predicted
from tokensearch.evaluate.store import AnswerStore, Key, fingerprint
from tokensearch.policy import Policy

# Images per pass when only answers count. Larger passes were no faster per image on two CPU cores.
BLOCK = 32

OnBatch = Callable[[int, int], None]  # called with images done, images in all
# Logits of a policy for a block of images, which are loaded only if they are needed.
Logits = Callable[[Policy, Purpose, int, Callable[[], Tensor]], Tensor]
Ask = Callable[[Purpose, int], Answers]  # about one block of images


@dataclass
class Answering:
    """Answers of one model under any policy, block by block."""

    splits: Splits
    unreduced: Policy
    weights: str  # digest
    dtype: str
    logits: Logits
    store: AnswerStore
    images_run: int = 0  # through the model under a policy: 0 where all was remembered
    _whole: dict[tuple[Purpose, int], Predictions] = field(default_factory=dict)
    _images: dict[Purpose, str] = field(default_factory=dict)  # what they are called in the store
    _known: dict[tuple[str, Purpose, int], Answers] = field(default_factory=dict)

    def blocks(self, purpose: Purpose) -> int:
        """How many blocks a split has."""
        return -(-len(self.splits.of(purpose)) // BLOCK)

    def asked(self, purpose: Purpose) -> int:
        """Blocks of images that reduced policies were asked about, remembered ones counted in."""
        whole = self.unreduced.schedule_hash
        return sum(split == purpose and name != whole for name, split, _ in self._known)

    def block(self, policy: Policy, purpose: Purpose, number: int) -> Answers:
        """Answers to one block of images."""
        place = policy.schedule_hash, purpose, number
        if place not in self._known:
            ask = partial(self._run, policy)
            self._known[place] = self._stored(policy.schedule_hash, purpose, number, ask)
        return self._known[place]

    def answers(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        limit: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> Answers:
        """Answers to the first `limit` images, all of them by default."""
        split = self.splits.of(purpose)
        wanted = len(split) if limit is None else min(limit, len(split))
        parts: list[Answers] = []
        for number in range(-(-wanted // BLOCK)):
            parts.append(self.block(policy, purpose, number))
            if on_batch is not None:
                on_batch(min(wanted, (number + 1) * BLOCK), wanted)
        return joined(parts).first(wanted)

    def of_another(self, key: str, purpose: Purpose, logits: Callable[[Tensor], Tensor]) -> Answers:
        """Answers of a model that follows no policy, held against the un-reduced model's.

        key     says which model it is; remembered under the un-reduced model's weights as well
        logits  of a block of images, which it gets as the un-reduced model takes them
        """
        return joined(
            [
                self._stored(f"rival:{key}", purpose, number, partial(self._ask, logits))
                for number in range(self.blocks(purpose))
            ]
        )

    def remembered(self, policy: Policy, purpose: Purpose, images: int) -> Answers | None:
        """Answers to the first `images`, if the model need not be asked."""
        blocks = range(-(-images // BLOCK))
        found = [self._at_hand(policy.schedule_hash, purpose, number) for number in blocks]
        known = [one for one in found if one is not None]
        return joined(known).first(images) if len(known) == len(found) else None

    def _stored(self, schedule: str, purpose: Purpose, number: int, ask: Ask) -> Answers:
        found = self._kept(schedule, purpose, number)
        if found is None:
            found = ask(purpose, number)
            first, _ = _bounds(self.splits.of(purpose), number)
            self.store.put(self._key(schedule, purpose), first, found)
        return found

    def _at_hand(self, schedule: str, purpose: Purpose, number: int) -> Answers | None:
        known = self._known.get((schedule, purpose, number))
        return self._kept(schedule, purpose, number) if known is None else known

    def _kept(self, schedule: str, purpose: Purpose, number: int) -> Answers | None:
        """Answers of an earlier process."""
        if not self.store.keeps:
            return None
        first, stop = _bounds(self.splits.of(purpose), number)
        return self.store.get(self._key(schedule, purpose), first, stop - first)

    def _key(self, schedule: str, purpose: Purpose) -> Key:
        if purpose not in self._images:
            self._images[purpose] = fingerprint(self.splits.of(purpose))
        return Key(self.weights, schedule, self._images[purpose], self.dtype)

    def _ask(self, logits: Callable[[Tensor], Tensor], purpose: Purpose, number: int) -> Answers:
        split = self.splits.of(purpose)
        first, stop = _bounds(split, number)
        images, labels = split.part(first, stop)
        found = predicted(logits(images), labels, split, first=first)
        return held_against(found, self._unreduced(purpose, number))

    def _run(self, policy: Policy, purpose: Purpose, number: int) -> Answers:
        whole = self._unreduced(purpose, number)
        if not policy.reduces:
            return held_against(whole, whole)
        split = self.splits.of(purpose)
        first, stop = _bounds(split, number)
        logits = self.logits(policy, purpose, number, lambda: split.part(first, stop)[0])
        self.images_run += stop - first
        return held_against(predicted(logits, whole.labels, split, first=first), whole)

    def _unreduced(self, purpose: Purpose, number: int) -> Predictions:
        """Predictions of the un-reduced model, which every divergence is from."""
        if (purpose, number) not in self._whole:
            split = self.splits.of(purpose)
            first, stop = _bounds(split, number)
            images, labels = split.part(first, stop)
            logits = self.logits(self.unreduced, purpose, number, lambda: images)
            self._whole[purpose, number] = predicted(logits, labels, split, first=first)
        return self._whole[purpose, number]


def _bounds(split: Split, number: int) -> tuple[int, int]:
    return number * BLOCK, min((number + 1) * BLOCK, len(split))
