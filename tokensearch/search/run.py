"""A whole search run: set up or resume, search, confirm, select, report, write."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from optuna.samplers import BaseSampler
from torch import nn

from tokensearch.accuracy.store import PredictionStore
from tokensearch.costs.forecast import Forecast
from tokensearch.data.splits import PURPOSES, Purpose, Splits
from tokensearch.errors import PolicyError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.measure import attention_of, describe_cell, describe_environment
from tokensearch.policy import EMBEDDING_OBJECTIVES, ModelSpec, Policy, is_published
from tokensearch.progress import ProgressListener, tell_images
from tokensearch.records.measurements import Cell
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunData, RunDocument, SplitInfo
from tokensearch.records.run_settings import SearchBudget, SearchSettings
from tokensearch.runtime import describe, reads_prefix_only, weights_digest
from tokensearch.runtime.host import has_class_token
from tokensearch.search.controls import (
    alternate,
    draw_controls,
    fixed_controls,
    nearest_presets,
)
from tokensearch.search.early_stopping import smallest_loss
from tokensearch.search.finalists.alternatives import AlternativeModel
from tokensearch.search.finalists.finish import finish_run
from tokensearch.search.finalists.other_settings import OtherSettings
from tokensearch.search.finalists.result import warn_launch_bound
from tokensearch.search.latency_model import SWEEP_SECONDS, draw_policies, make_forecast
from tokensearch.search.loop import RANDOM_ORIGIN, SearchLoop
from tokensearch.search.resume import check_same_run, digest_by_name, read_trials
from tokensearch.search.sampler.local import LocalSampler
from tokensearch.search.sampler.storage import using_study
from tokensearch.search.sampler.study import StudyAdapter, optuna_sampler
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.time_plan import (
    TimePlan,
    count_images,
    fit_plan,
    measure_pace,
    take_first,
    warn_few_images,
)
from tokensearch.search.warm_start import (
    choose_first,
    describe_out_of_reach,
    describe_reach,
    fastest_policies,
    launch_floor_hint,
)

# A model that is right on so few labelled images is likely to have been given other classes.
POOR_BASELINE = 0.2

PRESET_SHARE = 0.5  # of the trials: a published schedule is a start, and no search


@dataclass(frozen=True)
class SearchRun:
    """Everything a run needs, made by the command line."""

    model: nn.Module  # the baseline, on its device, in its dtype
    splits: Splits
    space: SearchSpace
    settings: SearchSettings
    limits: SearchBudget
    folder: RunFolder
    listener: ProgressListener
    command: str
    store: PredictionStore = field(default_factory=partial(PredictionStore, None))
    cache_gb: float = 0.75  # of activations that policies share
    neighbours: tuple[Policy, ...] = ()  # what won elsewhere: tried first, near the target
    smaller: AlternativeModel | None = None  # a model to compare the answer with
    other_settings: tuple[OtherSettings, ...] = ()  # in which the answer is tried too
    confirm_seconds: float | None = None  # of passes, for each policy of a session of timing
    fresh: bool = False  # what an earlier run left in the folder is set aside
    dense: bool = False  # whether the model returns its tokens, on the whole grid

    def run(self) -> RunDocument:
        """Search until the limits, and return what run.json then holds.

        A stopped run of equal settings in the folder is resumed.

        Raises:
            RunError: The folder cannot be written, or holds another run.
            DataError: An image cannot be read.
            ModelError: The model is not deterministic.
        """
        plan = TimePlan(self.limits.seconds)
        self.space.blocks(self._spec)  # nothing is written for a space that does not fit
        self._check_neighbours()
        evaluator = self.evaluator()
        _ = evaluator.images  # made now: a batch that does not fit in memory leaves nothing behind
        evaluator.check_deterministic(self.settings.model)
        if plan.seconds is None:
            return self._run_within(plan, self.splits)
        pace = measure_pace(evaluator)
        plan = fit_plan(plan, pace)
        counts = count_images(plan, pace, self.splits) | self._counts_before()
        splits = take_first(self.splits, counts)
        self.listener.note(plan.describe(splits, self.splits))
        return replace(self, splits=splits)._run_within(plan, self.splits)

    def _counts_before(self) -> dict[Purpose, int]:
        """Return how many images an earlier process had time for, of as many as are asked now."""
        before = None if self.fresh else self.folder.read_run()
        if before is None:
            return {}
        known = before.data.splits
        return {
            purpose: known[purpose].images
            for purpose in PURPOSES
            if purpose in known and known[purpose].of == len(self.splits.of(purpose))
        }

    def _run_within(self, plan: TimePlan, asked: Splits) -> RunDocument:
        """Run on the images that there is time for, of all that were asked for."""
        warn_few_images(self.settings.goal, self.splits.select, self.listener)
        evaluator = self.evaluator()
        self.listener.stage("reading every image once", unit="images")
        evaluator.predictions.read(tell_images(self.listener))
        document = self._document(evaluator, asked)
        self.folder.create(fresh=self.fresh)
        with self.folder.locked():
            return self._run(document, plan, evaluator)

    def _check_neighbours(self) -> None:
        """Refuse schedules that are of another geometry: they say nothing here."""
        for policy in self.neighbours:
            if policy.model.geometry != self._spec.geometry:
                raise PolicyError(
                    f"the front to start from is of {policy.model.name}, with (blocks, patches, "
                    f"prefix, width) {policy.model.geometry}; {self._spec.name} has "
                    f"{self._spec.geometry}"
                )

    def _run(
        self, document: RunDocument, plan: TimePlan, evaluator: PolicyEvaluator
    ) -> RunDocument:
        """Search and finish, in a folder that is ours."""
        if self.fresh and (aside := self.folder.set_aside()) is not None:
            self.listener.note(f"what an earlier run left in {self.folder.path} is in {aside} now")
        before = self.folder.read_run()
        if before is not None and self._is_answered(before, document):
            return before
        document = replace(document, launching=warn_launch_bound(evaluator.timing, self.listener))
        self.folder.write_run(document)
        plan = replace(plan, earlier=self.seconds_before())
        with self.using_study():
            search = self.searched(evaluator, plan)
            if self.confirm_seconds is not None:
                plan = replace(plan, confirm_seconds=self.confirm_seconds)
            result = finish_run(
                search,
                evaluator,
                document,
                plan,
                smaller=self.smaller,
                other_settings=self.other_settings,
            )
        document = replace(document, result=replace(result, seconds=plan.elapsed))
        self.folder.write_run(document)
        return document

    def seconds_before(self) -> float:
        """Return the seconds that the trials of earlier processes took, of those of the run."""
        return sum(trial.seconds for trial in read_trials(self.folder))

    def using_study(self) -> AbstractContextManager[None]:
        """Turn errors of the study's storage into sentences."""
        return using_study(self.folder.study)

    def open_study(self, space: SearchSpace) -> StudyAdapter:
        """Return the study of the run, which is made if there is none."""
        return StudyAdapter(self.folder, space, self._spec, self.settings.objective)

    def baseline_timed(self, search: SearchLoop) -> None:
        """Note that from now on policies can be compared with the baseline."""

    def _is_answered(self, before: RunDocument, now: RunDocument) -> bool:
        """Whether the run before has the same budget, has ended, and still holds; say what not."""
        changes = check_same_run(before, now, self.folder)
        for change in changes:
            self.listener.caution(change)
        if before.result is None:
            return False
        if not changes and _asked_of(before) == _asked_of(now):
            self.listener.caution(
                f"{self.folder.path} is finished; raise --minutes or --trials to search on"
            )
            return True
        self.listener.note(
            f"until this search has ended, front, policy and report in {self.folder.path} are "
            f"those of the search before"
        )
        return False

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
            columns=settings.columns,
            backend=settings.backend,
            attention=attention_of(self.model),
        )

    def _document(self, evaluator: PolicyEvaluator, asked: Splits) -> RunDocument:
        """Return what run.json holds while there is no result."""
        return RunDocument(
            settings=self.settings,
            budget=self.limits,
            command=self.command,
            model=replace(self._spec, weights=weights_digest(self.model)),
            cell=self._cell,
            data=RunData(
                self.splits.name,
                self.splits.labelled,
                {
                    purpose: self._describe_split(purpose, evaluator, len(asked.of(purpose)))
                    for purpose in PURPOSES
                },
            ),
            smaller=None if self.smaller is None else self.smaller.info,
            identity=evaluator.identity,
            environment=describe_environment(torch.device(self.settings.device)),
            other_settings=tuple(each.name for each in self.other_settings) or None,
        )

    def _describe_split(
        self, purpose: Purpose, evaluator: PolicyEvaluator, asked: int
    ) -> SplitInfo:
        split = self.splits.of(purpose)
        contents = digest_by_name(evaluator.predictions.contents(purpose))
        return SplitInfo(len(split), split.digest, contents, asked)

    def evaluator(self) -> PolicyEvaluator:
        """Return what measures policies."""
        return PolicyEvaluator(
            self.model,
            self.splits,
            self._cell,
            self.settings.seed,
            self.store,
            self.cache_gb,
            self.settings.objective,
            self.dense,
        )

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        """Return what predicts latencies."""
        seconds = min(SWEEP_SECONDS, plan.share("sweep"))
        space = self.space.fitting(self._spec, **_abilities(self.model))
        first = draw_policies(space, self._spec, self.settings.seed)
        return make_forecast(
            evaluator.timing,
            self.folder,
            self.listener,
            first,
            seconds=seconds,
            pass_s=plan.pass_s,
            asked=(*(f"pool {m}" for m in space.match), *(f"score {s}" for s in space.score)),
        )

    def searched(self, evaluator: PolicyEvaluator, plan: TimePlan) -> SearchLoop:
        """Search until the limits, from where the folder stands.

        First what may meet the target, within the error of predictions: published schedules, then
        known shapes, then what the sampler proposes. What searching has to beat comes last, and is
        a fifth at most.
        """
        self._baseline(evaluator)
        forecast = self.forecast(evaluator, plan)
        search = self._begun(evaluator, plan, forecast)
        title = f"searching, {len(search.trials)} trials so far"
        self.listener.stage(title, unit=self.limits.unit)
        search.try_fixed([("none", Policy(self._spec))])
        self.baseline_timed(search)
        search.target_ratio = self.settings.goal.target_ratio(
            batch=self.settings.batch, baseline_ms=search.baseline.median_ms
        )
        search.study.set_sampler(self._sampler(search.study, forecast, search.target_ratio))
        able = _abilities(self.model)
        predicted: dict[str, Any] = {
            "ratio": search.predict,
            "target_ratio": search.target_ratio,
        }
        fixed = dict(fixed_controls(self._spec, **able))
        for most in (search.target_ratio, search.target_ratio * (1 + search.margin)):
            near = {**predicted, "target_ratio": most}
            fixed |= dict(nearest_presets(self._spec, **(able | near)))
        if self._reaches(search, fixed.values()):
            presets = [each for each in fixed.items() if is_published(each[0])]
            search.try_fixed(search.order_by_promise(presets), share=PRESET_SHARE)
            space, shapes = search.study.space, fixed.values()
            if not search.study.seeded:
                search.study.enqueue(
                    choose_first(space, self._spec, self.neighbours, shapes, **predicted)
                )
            search.explore()
            search.complete_raced()
            drawn = draw_controls(space, self._spec, seed=self.settings.seed, **predicted)
            search.try_controls(alternate(((RANDOM_ORIGIN, each) for each in drawn), fixed.items()))
        search.end()
        return search

    def _begun(self, evaluator: PolicyEvaluator, plan: TimePlan, forecast: Forecast) -> SearchLoop:
        """Return a search that knows the trials of earlier processes."""
        study = self.open_study(self.space.fitting(self._spec, **_abilities(self.model)))
        seconds = self.limits.seconds if plan.seconds is None else plan.end_of("search")
        search = SearchLoop(
            evaluator,
            study,
            self.folder,
            replace(self.limits, seconds=seconds),
            self.listener,
            forecast,
            self.settings.objective,
            began=plan.began,
            earlier_seconds=plan.earlier,
        )
        search.fetch_trials()
        study.reconcile(search.trials, search.estimate)
        return search

    def _sampler(self, study: StudyAdapter, forecast: Forecast, target_ratio: float) -> BaseSampler:
        """Return what proposes.

        forecast  as it was before anything was timed: the local sampler learns from the study
        """
        settings = self.settings
        if settings.sampler != "local":
            # Without the trials so far in the seed, a resumed search would draw them again.
            return optuna_sampler(
                settings.sampler, settings.seed + len(study.study.trials) + study.salt
            )
        return LocalSampler(
            study.space,
            self._spec,
            forecast=forecast,
            target_ratio=target_ratio,
            smallest_loss=smallest_loss(settings.objective),
            seed=settings.seed,
            companion=study.outside,
        )

    def _reaches(self, search: SearchLoop, fixed: Iterable[Policy]) -> bool:
        """Say what the space can reach at all, and whether the target is within it."""
        fastest = fastest_policies(search.study.space, self._spec, search.forecast.ratio)
        for line in describe_reach(fastest):
            self.listener.note(line)
        if any(map(search.may_meet_target, [*(one.policy for one in fastest), *fixed])):
            return True
        least = min(map(search.forecast.ratio, [*(one.policy for one in fastest), *fixed]))
        hint = launch_floor_hint(search.evaluator.timing.launching, search.target_ratio)
        self.listener.caution(
            describe_out_of_reach(str(self.settings.target), least, search.forecast) + hint
        )
        search.try_fixed((("fastest", one.policy) for one in fastest[:1]), always=True)
        return False

    def _baseline(self, evaluator: PolicyEvaluator) -> None:
        """Ask the baseline about the search split, and doubt it if it knows nothing."""
        self.listener.stage("the baseline on the search split", unit="images")
        scored = evaluator.score(Policy(self._spec), "search", on_batch=tell_images(self.listener))
        right = scored.accuracy.share
        if right < POOR_BASELINE and self.settings.objective not in EMBEDDING_OBJECTIVES:
            self.listener.caution(
                f"the baseline is right on {100 * right:.1f} % of the images: are the "
                f"folders of {self.splits.name} the classes it was trained on? (see --class-map)"
            )


def _asked_of(run: RunDocument) -> tuple[object, ...]:
    """What a finished run may be asked for more of."""
    return run.budget, run.smaller, run.other_settings


def _abilities(model: nn.Module) -> dict[str, bool]:
    """What the model's head and prefix allow a schedule to do."""
    return {"scored": has_class_token(model), "prefix_read": reads_prefix_only(model)}
