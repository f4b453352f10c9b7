"""A search by several processes: the run, which sets it up and ends it, and its workers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from time import sleep

import torch

from tokensearch.costs import load_costs
from tokensearch.costs.forecast import MACS_ERROR, Forecast
from tokensearch.errors import RunError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Policy, mac_share
from tokensearch.records.comparability import differences
from tokensearch.records.run_result import RunDocument
from tokensearch.redaction import redact
from tokensearch.search.latency_model import forecast_from_table
from tokensearch.search.loop import SearchLoop
from tokensearch.search.resume import check_same_run, read_trials
from tokensearch.search.run import SearchRun
from tokensearch.search.sampler.study import StudyAdapter
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.time_plan import TimePlan
from tokensearch.search.workers.device import SharedDeviceEvaluator, lock_of
from tokensearch.search.workers.publish import READY, Publication
from tokensearch.search.workers.storage import SharedStorage, using_storage
from tokensearch.search.workers.study import Role, SharedStudy

POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Sharing:
    """Where the study of a search is, and what a process of it does."""

    storage: SharedStorage
    name: str
    role: Role = "both"

    @property
    def publication(self) -> Publication:
        """The files of the run, in the study."""
        return Publication(self.storage.studies, self.name)


@dataclass(frozen=True)
class SharedRun(SearchRun):
    """The process of a shared search that has the budget: it sets up, searches too, and ends."""

    sharing: Sharing = field(kw_only=True)
    # Starts workers on this machine once they may begin; they are ended with the context.
    workers: Callable[[], AbstractContextManager[None]] = field(default=nullcontext, kw_only=True)
    published: Mapping[str, object] = field(default_factory=dict, kw_only=True)  # for workers
    _opened: list[SharedStudy] = field(default_factory=list, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)  # ends the workers

    def _run(
        self, document: RunDocument, plan: TimePlan, evaluator: PolicyEvaluator
    ) -> RunDocument:
        publication = self.sharing.publication
        self._check_folder(publication)
        if publication.exists:
            check_same_run(publication.run(), document, self.folder)
            if not self.folder.run.exists():
                publication.fetch(self.folder)
        finished = super()._run(document, plan, evaluator)
        publication.publish(self.folder)
        return finished

    def _check_folder(self, publication: Publication) -> None:
        """Refuse a folder with trials that the study does not know: they would be overwritten."""
        known = {trial.schedule_hash for trial in publication.trials()}
        if not known.issuperset(trial.schedule_hash for trial in read_trials(self.folder)):
            raise RunError(
                f"run folder {self.folder.path} holds trials that study {publication.name!r} does "
                f"not; name another folder with --out"
            )

    @contextmanager
    def using_study(self) -> Iterator[None]:
        """Turn errors of the database into sentences, and leave no trial begun behind."""
        with using_storage(self.sharing.storage.address):
            try:
                yield
            finally:
                while self._opened:
                    self._opened.pop().close()

    def seconds_before(self) -> float:
        """Return 0: the trials of a study took their seconds side by side."""
        return 0.0

    def open_study(self, space: SearchSpace) -> StudyAdapter:
        """Return the study in the database, which is made if there is none."""
        sharing = self.sharing
        study = SharedStudy(
            self.folder,
            space,
            self._spec,
            self.settings.objective,
            storage=sharing.storage.studies,
            name=sharing.name,
            role=sharing.role,
        )
        self._opened.append(study)
        return study

    def evaluator(self) -> PolicyEvaluator:
        """Return what measures policies, in turn with the other processes of its device."""
        made = super().evaluator()
        return SharedDeviceEvaluator(
            **{item.name: getattr(made, item.name) for item in fields(made)}
        )

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        """Return what predicts latencies, by timings that nobody disturbs."""
        with lock_of(torch.device(self.settings.device)).alone():
            return super().forecast(evaluator, plan)

    def searched(self, evaluator: PolicyEvaluator, plan: TimePlan) -> SearchLoop:
        """Search beside the workers until the limits, and wait for what they have begun."""
        with self._stack:
            search = super().searched(evaluator, plan)
            self._use_rest(search)
            self._end(search)
        return search

    def _use_rest(self, search: SearchLoop) -> None:
        """Search on with what is left of the budget: trials of dead workers counted as begun."""
        search.fetch_trials()
        if not self._opened[-1].running:
            return
        self._wait_for_others(search)
        tried = -1
        while search.within_budget() and len(search.trials) > tried:
            tried = len(search.trials)
            search.explore()
            self._wait_for_others(search)

    def _wait_for_others(self, search: SearchLoop) -> None:
        self.listener.stage("waiting for the workers' last trials")
        search.fetch_trials()
        while self._opened[-1].running:
            sleep(POLL_S)
            search.fetch_trials()

    def _end(self, search: SearchLoop) -> None:
        self._opened[-1].stop()
        self._wait_for_others(search)
        self.folder.write_trials(search.trials)

    def baseline_timed(self, search: SearchLoop) -> None:
        """Let workers begin."""
        self._wait_for_baseline(search)
        publication = self.sharing.publication
        self._opened[-1].stop(stopped=False)
        publication.publish(self.folder)
        for name, value in {**self.published, READY: True}.items():
            publication.set(name, value)
        self._stack.enter_context(self.workers())

    def _wait_for_baseline(self, search: SearchLoop) -> None:
        """Wait until the baseline is timed that another process, maybe a killed one, had begun."""
        baseline = Policy(self._spec)
        while search.find_trial(baseline) is None:
            sleep(POLL_S)
            search.fetch_trials()
            if not self._opened[-1].running:
                search.try_fixed([("none", baseline)], always=True)


@dataclass(frozen=True)
class WorkerRun(SharedRun):
    """One more process of a search that a run has set up; its own folder is passing."""

    def _run(
        self, document: RunDocument, plan: TimePlan, evaluator: PolicyEvaluator
    ) -> RunDocument:
        published = self.folder.require_run()
        check_same_run(published, self._as_in_study(document, published), self.folder)
        with self.using_study():
            SearchRun.searched(self, evaluator, plan)
        return published

    def _as_in_study(self, document: RunDocument, published: RunDocument) -> RunDocument:
        """Return what this process would publish; where it times nothing, its machine is no matter.

        Raises:
            RunError: It is to time policies in another cell.
        """
        here, there = RunDocument.from_json(redact(document.to_json())).cell, published.cell
        others = differences(there, here)
        if others and self.sharing.role != "accuracy":
            raise RunError(
                f"study {self.sharing.name!r} times policies on {there.machine.name}, and this "
                f"is {here.machine.name} ({'; '.join(others)}); give --role accuracy, or search "
                f"for this machine in a study of its own"
            )
        settings = replace(
            document.settings,
            device=published.settings.device,
            backend=published.settings.backend,
        )
        return replace(document, settings=settings, cell=there)

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        """Return what predicts latencies, by the costs that the run has swept."""
        if not self.folder.costs.is_file():
            return Forecast(mac_share, MACS_ERROR)
        return forecast_from_table(load_costs(self.folder.costs))

    def baseline_timed(self, search: SearchLoop) -> None:
        """Nothing: the run had it timed."""
