"""Optuna behind one small door: propose, learn, and survive a kill.

Trials are appended to `trials.jsonl` before Optuna is told, so that line is what counts: a study
that was killed in between is told on resuming, and a proposal that was under way is made again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Policy, merit
from tokensearch.run_folder import RunFolder
from tokensearch.search.space import Space

SAMPLERS = ("tpe", "nsga2", "random")
_STUDY = "tokensearch"
_LINE = "line"  # user attribute: the trial's number in trials.jsonl
_ORIGIN = "origin"
_SEEDED = "seeded"  # study attribute: every seed was enqueued
_FIXED = "fixed_params"  # where Optuna keeps what was enqueued
_RATIO_UNKNOWN = 1.0  # told for a policy that was ruled out: as slow as the un-reduced model


@dataclass(frozen=True, slots=True)
class Proposal:
    """One policy to be tried."""

    trial: optuna.Trial
    policy: Policy
    origin: str


class Proposals:
    """The study of one run folder: accuracy up, latency (ratio to the baseline) down."""

    def __init__(
        self, folder: RunFolder, space: Space, model: ModelSpec, *, sampler: str, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.model = space, model
        try:
            self.study = optuna.create_study(
                study_name=_STUDY,
                storage=f"sqlite:///{folder.study}",
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
        except Exception as error:  # SQLAlchemy and Optuna each raise their own kinds
            raise RunError(f"{folder.study} cannot be opened as an Optuna study") from error
        # Without the trials so far in the seed, a resumed search would draw the same ones again.
        self.study.sampler = _sampler(sampler, seed + len(self.study.trials))

    def reconcile(self, finished: Iterable[Mapping[str, Any]]) -> None:
        """Bring the study to what `trials.jsonl` says was finished."""
        lines = {trial["number"]: trial for trial in finished}
        told = {
            t.user_attrs[_LINE] for t in self._trials(TrialState.COMPLETE) if _LINE in t.user_attrs
        }
        for stale in self._trials(TrialState.RUNNING):
            line = lines.get(stale.user_attrs.get(_LINE, -1))
            if line is None:
                self.study.tell(stale.number, state=TrialState.FAIL)
                fixed = stale.system_attrs.get(_FIXED, stale.params)
                self.study.enqueue_trial(fixed, user_attrs={_ORIGIN: _origin(stale)})
            else:
                self.study.tell(stale.number, _values(line))
                told.add(line["number"])
        for number in sorted(lines.keys() - told):
            self.add(lines[number])

    @property
    def seeded(self) -> bool:
        """Whether seeds were enqueued before, all of them."""
        return bool(self.study.user_attrs.get(_SEEDED))

    @property
    def told(self) -> int:
        """Proposals that came to an end, those of schedules tried before counted in."""
        return len(self._trials(TrialState.COMPLETE))

    def enqueue(self, seeds: Iterable[Mapping[str, object]]) -> None:
        """Have schedules of the space proposed before the sampler's own."""
        for parameters in seeds:
            self.study.enqueue_trial(dict(parameters), user_attrs={_ORIGIN: "seed"})
        self.study.set_user_attr(_SEEDED, value=True)

    def ask(self, line: int) -> Proposal:
        """Propose a policy, which will be line `line` of the trials if it is new."""
        trial = self.study.ask()
        trial.set_user_attr(_LINE, line)
        policy = self.space.suggest(trial, self.model)
        return Proposal(trial, policy, _origin(trial))

    def tell(self, proposal: Proposal, finished: Mapping[str, Any]) -> None:
        """Say what became of a proposal."""
        self.study.tell(proposal.trial, _values(finished))

    def add(self, finished: Mapping[str, Any]) -> None:
        """Tell of a policy that the sampler did not propose, a preset for one."""
        self.study.add_trial(
            create_trial(
                values=_values(finished),
                user_attrs={_LINE: finished["number"], _ORIGIN: finished["origin"]},
            )
        )

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))


def _origin(trial: optuna.Trial | FrozenTrial) -> str:
    return str(trial.user_attrs.get(_ORIGIN, "sampler"))


def _values(finished: Mapping[str, Any]) -> list[float]:
    """Accuracy, and latency as a share of the baseline's."""
    comparison = finished["comparison"]
    ratio = _RATIO_UNKNOWN if comparison is None else comparison["ratio"]
    return [merit(finished["accuracy"]["top1"], finished["accuracy"]["kl"]), ratio]


def _sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "tpe":
            return TPESampler(seed=seed)
        case "nsga2":
            return NSGAIISampler(seed=seed)
        case _:
            return RandomSampler(seed=seed)
