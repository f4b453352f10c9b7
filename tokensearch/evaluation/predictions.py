"""Predictions of one model under any policy, image by image: computed once in chunks, then cached.

`PredictionCache` holds them in memory, and in a `PredictionStore` for later processes. A chunk is
the images of one pass. Embeddings go the same way, but for the store.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from tokensearch.accuracy.accuracy import Results, join_results, take_results
from tokensearch.accuracy.embeddings import (
    Embeddings,
    compare_embeddings,
    embed_images,
)
from tokensearch.accuracy.readouts import Readouts
from tokensearch.accuracy.results import (
    ImageResults,
    Predictions,
    compare_predictions,
    predict_images,
)
from tokensearch.accuracy.store import Key, PredictionStore
from tokensearch.data.splits import PURPOSES, Purpose, Splits, contents
from tokensearch.errors import DataError, TokensearchWarning
from tokensearch.policy import Policy
from tokensearch.records.embedding import RightBy

# Images per pass when only predictions count. Larger passes were no faster per image on two cores.
CHUNK = 32
# Images of a stored chunk that are predicted again as a check, once for every policy.
PROBES = 4
# How far stored results may be off, in nats: other images in the batch, another kernel.
ROUNDING = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
STALE = "stored predictions differ from the model's and are deleted; all images are predicted again"

OnBatch = Callable[[int, int], None]  # called with images done, images in all
# Logits of a policy for a range of images of a split; they are loaded only if they are needed.
Logits = Callable[[Policy, Purpose, range, Callable[[], Tensor]], Tensor]
Outputs = Predictions | Embeddings
Predict = Callable[[Purpose, range], Outputs]  # outputs for a range of images of a split


@dataclass
class PredictionCache:
    """Results of one model under any policy, chunk by chunk."""

    splits: Splits
    unreduced: Policy
    model: str  # digest of its identity
    dtype: str
    device: str  # "cpu", "cuda"
    logits: Logits
    store: PredictionStore
    right_by: RightBy | None = None  # of embeddings; None: outputs are scores of classes
    images_run: int = 0  # through the model under a policy, but for probes; 0: all were stored
    _baseline: dict[tuple[Purpose, range], Outputs] = field(default_factory=dict)
    _contents: dict[Purpose, tuple[str, ...]] = field(default_factory=dict)
    _results: dict[tuple[str, Purpose, int], Results] = field(default_factory=dict)
    _loaded: tuple[tuple[Purpose, range], tuple[Tensor, Tensor]] | None = None
    _probed: set[str] = field(default_factory=set)  # schedules whose stored results were checked

    def read(self, on_batch: OnBatch | None = None) -> None:
        """Read every image once, so that an unreadable one is found before the search.

        Raises:
            DataError: An image cannot be read.
        """
        total = sum(len(self.splits.of(purpose)) for purpose in PURPOSES)
        done = 0
        for purpose in PURPOSES:
            if on_batch is None:
                self.contents(purpose)
            elif purpose not in self._contents:
                report_read = partial(_report_read, on_batch, done, total)
                self._contents[purpose] = contents(self.splits.of(purpose), report_read)
            done += len(self.splits.of(purpose))

    def contents(self, purpose: Purpose) -> tuple[str, ...]:
        """Names of the images of a split (`data.splits.contents`)."""
        if purpose not in self._contents:
            self._contents[purpose] = contents(self.splits.of(purpose))
        return self._contents[purpose]

    def count_chunks(self, purpose: Purpose) -> int:
        """Return the number of chunks of a split."""
        return -(-len(self.splits.of(purpose)) // CHUNK)

    def chunks_asked(self, purpose: Purpose) -> int:
        """Return the number of chunks that were predicted under policies, stored ones included."""
        baseline = self.unreduced.schedule_hash
        return sum(split == purpose and name != baseline for name, split, _ in self._results)

    def chunk(self, policy: Policy, purpose: Purpose, number: int) -> Results:
        """Return the results of one chunk of images."""
        key = policy.schedule_hash, purpose, number
        if key not in self._results:
            self._results[key] = self._load_or_predict(policy, purpose, number)
        return self._results[key]

    def results(
        self,
        policy: Policy,
        purpose: Purpose,
        *,
        first: int | None = None,
        on_batch: OnBatch | None = None,
    ) -> Results:
        """Return the results of the first `first` images, of all by default."""
        split = self.splits.of(purpose)
        images = len(split) if first is None else min(first, len(split))
        parts: list[Results] = []
        for number in range(-(-images // CHUNK)):
            parts.append(self.chunk(policy, purpose, number))
            if on_batch is not None:
                on_batch(min(images, (number + 1) * CHUNK), images)
        return take_results(join_results(parts), images)

    def results_of_alternative(
        self,
        key: str,
        purpose: Purpose,
        logits: Callable[[Tensor], Tensor],
        *,
        first: int,
    ) -> Results:
        """Return the results of a model that follows no policy, compared with the baseline's.

        key     names the model; stored under the baseline's identity as well
        logits  of images, which it gets as the baseline takes them
        first   so many images
        """
        predict, parts = partial(self._predict_alternative, logits), []
        for number in range(min(self.count_chunks(purpose), -(-first // CHUNK))):
            results = self._stored(f"rival:{key}", purpose, number, predict)
            if results is None:
                results = self._predict_chunk(predict, purpose, number)
                self._write(f"rival:{key}", purpose, number, results)
            parts.append(results)
        return take_results(join_results(parts), first)

    def cached(self, policy: Policy, purpose: Purpose, images: int) -> Results | None:
        """Return the results of the first `images`, None if the model would have to run."""
        parts: list[Results] = []
        for number in range(-(-images // CHUNK)):
            results = self._results.get((policy.schedule_hash, purpose, number))
            if results is None:
                predict = partial(self._predict, policy)
                results = self._stored(policy.schedule_hash, purpose, number, predict)
            if results is None:
                return None
            parts.append(results)
        return take_results(join_results(parts), images)

    def _load_or_predict(self, policy: Policy, purpose: Purpose, number: int) -> Results:
        """Return the results of one chunk: stored by an earlier process, or the model's own."""
        schedule, predict = policy.schedule_hash, partial(self._predict, policy)
        results = self._stored(schedule, purpose, number, predict)
        if results is None:
            results = self._predict_chunk(predict, purpose, number)
            self.images_run += len(results) if policy.reduces else 0
            self._write(schedule, purpose, number, results)
        return results

    def _stored(
        self, schedule: str, purpose: Purpose, number: int, predict: Predict
    ) -> Results | None:
        """Return results of an earlier process, checked on a few images when first used."""
        if not self.store.keeps or self.right_by is not None:  # it holds predictions alone
            return None
        key = self._key(schedule)
        results = self.store.get(key, self._names(purpose, number))
        if results is None or schedule in self._probed:
            return results
        if self._agrees(take_results(results, PROBES), predict, purpose, number * CHUNK):
            self._probed.add(schedule)
            return results
        self.store.forget(key)
        warnings.warn(STALE, TokensearchWarning, stacklevel=2)
        return None

    def _agrees(self, stored: ImageResults, predict: Predict, purpose: Purpose, start: int) -> bool:
        """Whether a fresh pass gives the same results, but for rounding."""
        images, tolerance = range(start, start + len(stored)), ROUNDING[self.dtype]
        predictions, baseline = predict(purpose, images), self._predict_baseline(purpose, images)
        assert isinstance(predictions, Predictions)  # nothing else is stored
        assert isinstance(baseline, Predictions)
        return all(
            (
                _losses_agree(stored, compare_predictions(predictions, baseline), tolerance),
                _may_predict(predictions, stored.predicted, tolerance),
                _may_predict(baseline, stored.baseline, tolerance),
            )
        )

    def _write(self, schedule: str, purpose: Purpose, number: int, results: Results) -> None:
        if self.store.keeps and isinstance(results, ImageResults):
            self._probed.add(schedule)  # the store now holds what this model predicted
            self.store.put(self._key(schedule), self._names(purpose, number), results)

    def _names(self, purpose: Purpose, number: int) -> Sequence[str]:
        images = self._images(purpose, number)
        return self.contents(purpose)[images.start : images.stop]

    def _images(self, purpose: Purpose, number: int) -> range:
        count = len(self.splits.of(purpose))
        return range(count)[number * CHUNK : (number + 1) * CHUNK]

    def _key(self, schedule: str) -> Key:
        return Key(self.model, schedule, self.dtype, self.device)

    def _predict_chunk(self, predict: Predict, purpose: Purpose, number: int) -> Results:
        images = self._images(purpose, number)
        own, baseline = predict(purpose, images), self._predict_baseline(purpose, images)
        return self._compare(own, baseline, purpose, images)

    def _predict_alternative(
        self, logits: Callable[[Tensor], Tensor], purpose: Purpose, images: range
    ) -> Outputs:
        loaded, labels = self._load(purpose, images)
        return self._read_output(logits(loaded), labels, purpose, images)

    def _predict(self, policy: Policy, purpose: Purpose, images: range) -> Outputs:
        baseline = self._predict_baseline(purpose, images)
        if not policy.reduces:
            return baseline
        logits = self.logits(policy, purpose, images, lambda: self._load(purpose, images)[0])
        return self._read_output(logits, baseline.labels, purpose, images)

    def _predict_baseline(self, purpose: Purpose, images: range) -> Outputs:
        """Return predictions of the baseline, which every divergence is from."""
        if (purpose, images) not in self._baseline:
            loaded, labels = self._load(purpose, images)
            logits = self.logits(self.unreduced, purpose, images, lambda: loaded)
            self._baseline[purpose, images] = self._read_output(logits, labels, purpose, images)
        return self._baseline[purpose, images]

    def _read_output(
        self, output: Tensor, labels: Tensor, purpose: Purpose, images: range
    ) -> Outputs:
        """Read what a model returned: scores of classes, or embeddings."""
        split, first = self.splits.of(purpose), images.start
        if self.right_by is None:
            return predict_images(output, labels, split, first=first)
        prefix = self.unreduced.model.prefix_tokens
        return embed_images(output, labels, split, first=first, prefix_tokens=prefix)

    def _compare(self, own: Outputs, baseline: Outputs, purpose: Purpose, images: range) -> Results:
        if isinstance(own, Embeddings) and isinstance(baseline, Embeddings):
            assert self.right_by is not None  # or they would have been read as predictions
            return compare_embeddings(
                own,
                baseline,
                right_by=self.right_by,
                readouts=self._readouts,
                among=images if purpose == "search" else None,
            )
        assert isinstance(own, Predictions)
        assert isinstance(baseline, Predictions)
        return compare_predictions(own, baseline)

    @cached_property
    def _readouts(self) -> Readouts | None:
        """What tells the classes of `search` by the baseline's embeddings; None without labels."""
        if not self.splits.search.labelled:
            return None
        chunks = range(self.count_chunks("search"))
        outputs = [self._predict_baseline("search", self._images("search", n)) for n in chunks]
        labels = torch.cat([one.labels for one in outputs])
        if not (labels == labels[0]).all():
            vectors = torch.cat([one.vectors for one in outputs if isinstance(one, Embeddings)])
            return Readouts(vectors, labels)
        if self.right_by == "recall":
            return None
        raise DataError(
            f"the {len(labels)} images to search on of the {self.splits.name} are of one class, so "
            f"that nothing tells classes by their embeddings; give more --images"
        )

    def _load(self, purpose: Purpose, images: range) -> tuple[Tensor, Tensor]:
        """Return images and their labels; those of the last call are kept for the next policy."""
        if self._loaded is None or self._loaded[0] != (purpose, images):
            part = self.splits.of(purpose).part(images.start, images.stop)
            self._loaded = (purpose, images), part
        return self._loaded[1]


def _report_read(on_batch: OnBatch, before: int, total: int, read: int) -> None:
    on_batch(before + read, total)


def _losses_agree(stored: ImageResults, fresh: ImageResults, tolerance: float) -> bool:
    """Whether divergences and cross-entropies agree, to `tolerance` nats or that share of them."""
    pairs = (stored.kl, fresh.kl), (stored.ce, fresh.ce)
    return all(bool(((a - b).abs() <= tolerance * (1 + b)).all()) for a, b in pairs)


def _may_predict(predictions: Predictions, classes: Tensor, tolerance: float) -> bool:
    """Whether each class is the most probable one, or as probable to `tolerance` nats."""
    log_probs = predictions.log_probs
    if not bool(((classes >= 0) & (classes < log_probs.shape[1])).all()):
        return False
    given = log_probs.gather(1, classes[:, None]).squeeze(1)
    return bool((given >= log_probs.amax(dim=1) - tolerance).all())
