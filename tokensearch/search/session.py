"""A whole run: set up or go on, search, confirm, choose, quote, write down."""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from tokensearch.data.splits import PURPOSES, Splits
from tokensearch.errors import RunError
from tokensearch.evaluate import accuracy
from tokensearch.measure import attention_of, describe_cell
from tokensearch.policy import ModelSpec
from tokensearch.records import Cell, Trial, to_json, trial_from_json
from tokensearch.run_folder import RunFolder
from tokensearch.runtime import describe, reads_prefix_only, weights_digest
from tokensearch.runtime.host import has_class_token
from tokensearch.search.evaluator import Evaluator
from tokensearch.search.finalists import limit_of
from tokensearch.search.listener import Listener
from tokensearch.search.outcome import finish
from tokensearch.search.proposals import Proposals
from tokensearch.search.seeds import ladders, published
from tokensearch.search.settings import Limits, Settings
from tokensearch.search.space import Space
from tokensearch.search.trials import Search

# A model that is right on so few labelled images is likely to have been given other classes.
POOR_BASELINE = 0.2


@dataclass(frozen=True)
class Session:
    """Everything a run needs, made by the command line."""

    model: nn.Module  # un-reduced, on its device, in its dtype
    splits: Splits
    space: Space
    settings: Settings
    limits: Limits
    folder: RunFolder
    listener: Listener
    command: str

    def run(self) -> Mapping[str, Any]:
        """Search until the limits, and return what run.json then holds.

        A folder that holds a stopped run of equal settings is gone on from.

        Raises:
            RunError: The folder cannot be written, or holds another run.
        """
        began = time.monotonic()
        document = self._document()
        self.space.blocks(self._spec)  # nothing is written for a space that does not fit
        self.folder.create()
        with _alone(self.folder):
            return self._run(document, began)

    def _run(self, document: dict[str, Any], began: float) -> Mapping[str, Any]:
        """Search and finish, in a folder that is ours."""
        before = self.folder.read_run()
        if before is not None:
            _check_same(before, document, self.folder)
            if before["result"] is not None and before["budget"] == document["budget"]:
                self.listener.caution(
                    f"{self.folder.path} is finished; raise --minutes or --trials to search on"
                )
                return before
        self.folder.write_run(document)
        evaluator = Evaluator(self.model, self.splits, self._cell, self.settings.seed)
        search = self._search(evaluator)
        result = finish(search, evaluator, document)
        seconds = search.earlier_seconds + time.monotonic() - began
        document = {**document, "result": {**result, "seconds": seconds}}
        self.folder.write_run(document)
        return document

    @property
    def _spec(self) -> ModelSpec:
        """The model without its weights' digest, which need not be taken for every trial."""
        return describe(self.model, name=self.settings.model)

    @property
    def _cell(self) -> Cell:
        settings = self.settings
        return describe_cell(
            torch.device(settings.device),
            dtype=getattr(torch, settings.dtype),
            batch=settings.batch,
            resolution=settings.resolution,
            backend=settings.backend,
            attention=attention_of(self.model),
        )

    def _document(self) -> dict[str, Any]:
        """Return what run.json holds while there is no result."""
        return {
            "settings": self.settings.to_json(),
            "budget": asdict(self.limits),
            "command": self.command,
            "model": asdict(replace(self._spec, weights=weights_digest(self.model))),
            "cell": to_json(self._cell),
            "data": {
                "name": self.splits.name,
                "labelled": self.splits.labelled,
                "splits": {
                    purpose: {
                        "images": len(self.splits.of(purpose)),
                        "digest": self.splits.of(purpose).digest,
                    }
                    for purpose in PURPOSES
                },
            },
            "result": None,
        }

    def _search(self, evaluator: Evaluator) -> Search:
        """Search until the limits, from where the folder stands."""
        trials = _read_trials(self.folder)
        spec, able = self._spec, _abilities(self.model)
        space = self.space.fitting(spec, **able)
        proposals = Proposals(
            self.folder, space, spec, sampler=self.settings.sampler, seed=self.settings.seed
        )
        proposals.reconcile(self.folder.read_trials())
        self._baseline(evaluator)
        search = Search(
            evaluator,
            proposals,
            self.folder,
            self.limits,
            self.listener,
            trials=list(trials),
            earlier_seconds=sum(trial.seconds for trial in trials),
        )
        self.listener.stage(f"searching, {len(trials)} trials so far")
        search.try_fixed(published(spec, **able))
        if not proposals.seeded:
            self._seed(proposals, search)
        search.explore()
        return search

    def _seed(self, proposals: Proposals, search: Search) -> None:
        """Have simple schedules near the target proposed first."""
        first = search.trials[0].comparison
        limit = limit_of(first, self.settings.target, batch=self.settings.batch) if first else 1.0
        proposals.enqueue(ladders(proposals.space, proposals.model, search.trials, limit=limit))

    def _baseline(self, evaluator: Evaluator) -> None:
        """Ask the un-reduced model about the search split, and doubt it if it knows nothing."""
        self.listener.stage("the un-reduced model on the search split")
        found = evaluator.baseline("search", on_batch=self._on_batch)
        right = accuracy(found, found, self.splits.search).top1
        if right < POOR_BASELINE:
            self.listener.caution(
                f"the un-reduced model is right on {100 * right:.1f} % of the images: are the "
                f"folders of {self.splits.name} the classes it was trained on? (see --class-map)"
            )

    def _on_batch(self, done: int, total: int) -> None:
        self.listener.progress(done=done, total=total, seconds_left=None, text="")


def _abilities(model: nn.Module) -> dict[str, bool]:
    """What the model's head and prefix allow a schedule to do."""
    return {"scored": has_class_token(model), "prefix_read": reads_prefix_only(model)}


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Hold the folder against other processes; a killed one lets go of it."""
    with (folder.path / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"run folder {folder.path} is in use by another process") from error
        yield


def _read_trials(folder: RunFolder) -> tuple[Trial, ...]:
    folder.mend_trials()
    try:
        return tuple(trial_from_json(line) for line in folder.read_trials())
    except (KeyError, TypeError) as error:
        raise RunError(f"{folder.trials} holds something else than trials: {error}") from error


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse to go on in the folder of another run: its figures would not belong together."""
    for part in ("settings", "model", "cell", "data"):
        written = json.loads(json.dumps(now[part]))
        for name in written:
            if not isinstance(before.get(part), dict) or name not in before[part]:
                raise RunError(f"{folder.run} lacks {part}.{name}")
            if before[part][name] != written[name]:
                raise RunError(
                    f"run folder {folder.path} holds a run with {part}.{name} "
                    f"{before[part][name]!r:.80}, this one has {written[name]!r:.80}; "
                    f"name another folder with --out"
                )
