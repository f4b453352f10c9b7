"""Adapter of an Optuna study: ask, tell, and resume after a kill.

Trials are appended to `trials.jsonl` before Optuna is told, so that file decides. A study that was
killed in between is told on resuming, and a proposal that was under way is made again.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tokensearch.errors import RunError
from tokensearch.files import describe_refusal, in_place_of
from tokensearch.policy import ModelSpec, Objective, Policy, best_value, objective_value
from tokensearch.policy.file import policy_from_json
from tokensearch.records.measurements import Trial, to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SamplerName
from tokensearch.search.space.space import SearchSpace

_STUDY = "tokensearch"
_LINE = "line"  # user attribute: the trial's number in trials.jsonl
_ORIGIN = "origin"
_REPEAT = "repeated"  # user attribute: the schedule had been tried before
_REFUSAL = "refused"  # user attribute: predicted too slow and never run
_SEEDED = "seeded"  # study attribute: every starting point was enqueued
_FIXED = "fixed_params"  # system attribute of Optuna: the parameters that were enqueued
# SQLite's codes for a sound file that cannot be written now.
_NOT_WRITABLE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
# How far below the best value a policy is told to be that was never run: in nats or shares, worse
# than any policy that a sampler should return to.
_REFUSED_LOSS = 10.0


@dataclass(frozen=True, slots=True)
class Proposal:
    """One policy to be evaluated."""

    trial: optuna.Trial
    policy: Policy
    origin: str


class StudyAdapter:
    """The study of one run folder: it maximises the objective and minimises the latency ratio."""

    def __init__(
        self, folder: RunFolder, space: SearchSpace, model: ModelSpec, objective: Objective
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.model, self.objective = space, model, objective
        try:
            if not folder.study.exists():
                _make_study(folder.study)
            self.study = optuna.load_study(study_name=_STUDY, storage=_open_storage(folder.study))
        except RunError:
            raise
        except Exception as error:  # SQLAlchemy and Optuna each raise their own kinds
            raise study_failure(folder.study, error) from error

    def set_sampler(self, sampler: BaseSampler) -> None:
        """Use a sampler from now on."""
        self.study.sampler = sampler

    def reconcile(self, finished: Iterable[Trial]) -> None:
        """Bring the study to the state of `trials.jsonl`.

        A trial that was stopped early is told with the value on its first images: the file has no
        other.
        """
        lines = {trial.number: trial for trial in finished}
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
                self.study.tell(stale.number, self._values(line))
                told.add(line.number)
        for number in sorted(lines.keys() - told):
            self.add(lines[number])

    @property
    def seeded(self) -> bool:
        """Whether all starting points were enqueued before."""
        return bool(self.study.user_attrs.get(_SEEDED))

    @property
    def repeated(self) -> int:
        """Number of proposals of schedules that had been tried before."""
        return sum(_REPEAT in trial.user_attrs for trial in self._trials(TrialState.COMPLETE))

    @property
    def refused(self) -> int:
        """Number of proposals that were predicted too slow to be tried."""
        return sum(_REFUSAL in trial.user_attrs for trial in self._trials(TrialState.COMPLETE))

    def enqueue(self, starting_points: Iterable[Mapping[str, object]]) -> None:
        """Have schedules of the space proposed before the sampler's own."""
        for parameters in starting_points:
            self.study.enqueue_trial(dict(parameters), user_attrs={_ORIGIN: "seed"})
        self.study.set_user_attr(_SEEDED, value=True)

    def ask(self, line: int) -> Proposal:
        """Propose a policy, which becomes line `line` of the trials if it is new."""
        trial = self.study.ask()
        trial.set_user_attr(_LINE, line)
        policy = self.space.suggest(trial, self.model)
        return Proposal(trial, policy, _origin(trial))

    def tell(self, proposal: Proposal, finished: Trial, value: float) -> None:
        """Tell the result of a proposal, with its value of the objective on all images."""
        self.study.tell(proposal.trial, [value, finished.ratio])

    def repeat(self, proposal: Proposal, finished: Trial, value: float) -> None:
        """Tell that a proposal is of a schedule that was tried before."""
        proposal.trial.set_user_attr(_REPEAT, value=True)
        self.tell(proposal, finished, value)

    def refuse(self, proposal: Proposal, ratio: float) -> None:
        """Tell that a proposal is predicted too slow to be tried: `ratio` times the baseline."""
        proposal.trial.set_user_attr(_REFUSAL, value=True)
        self.study.tell(proposal.trial, [best_value(self.objective) - _REFUSED_LOSS, ratio])

    def add(self, finished: Trial, value: float | None = None) -> None:
        """Tell of a policy that the sampler did not propose, if it is one of the space.

        Samplers that choose all parameters together use those that every trial has. After one
        trial without parameters they would draw at random.
        """
        parameters = self.space.nearest(policy_from_json(finished.policy), self.model)
        if self.space.build(parameters, self.model).schedule_hash != finished.schedule_hash:
            return
        values = self._values(finished) if value is None else [value, finished.ratio]
        choices = self.space.dimensions(self.model)
        self.study.add_trial(
            create_trial(
                values=values,
                params=dict(parameters),
                distributions={
                    name: CategoricalDistribution(values) for name, values in choices.items()
                },
                user_attrs={_LINE: finished.number, _ORIGIN: finished.origin},
            )
        )

    def _values(self, finished: Trial) -> list[float]:
        """Objective on the images that ran, and latency as a share of the baseline's."""
        return [objective_value(to_json(finished.accuracy), self.objective), finished.ratio]

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(state,))


def _open_storage(file: Path) -> RDBStorage:
    """Open a study's file without waiting for the disk at every write, which Optuna makes many of.

    A killed process loses nothing by it. A machine that loses power may damage the file: once it is
    deleted it is made anew from `trials.jsonl`, which does wait. Measured on 62 proposals of a tiny
    model: 9 of 39 s.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, check_same_thread=False)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    return RDBStorage(f"sqlite:///{file}", engine_kwargs={"creator": connect})


def _make_study(study: Path) -> None:
    """Make the file completely or not at all.

    A disk that becomes full in between would leave tables without their constraints. A second study
    would then be made beside the first, and neither could be opened.
    """
    with in_place_of(study) as part:
        storage = _open_storage(part)
        try:
            optuna.create_study(
                study_name=_STUDY, storage=storage, directions=["maximize", "minimize"]
            )
        finally:
            storage.engine.dispose()


@contextmanager
def using_study(study: Path) -> Iterator[None]:
    """Turn errors of SQLite about the study, inside those of other packages, into a RunError."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if _find_sqlite_error(error) is None:
            raise
        raise study_failure(study, error) from error


def study_failure(study: Path, error: Exception) -> RunError:
    """Return the error that tells whether disk or file is at fault, and what to do."""
    cause = _find_sqlite_error(error)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the primary code
    if code == sqlite3.SQLITE_FULL:
        return RunError(describe_refusal(study, OSError(errno.ENOSPC, str(cause))))
    if code in _NOT_WRITABLE:
        return RunError(f"{study} cannot be written: {cause}")
    return RunError(
        f"{study} cannot be read as an Optuna study ({cause or error}); delete it and give the "
        f"same command again: it is made anew from trials.jsonl, which holds every trial"
    )


def _find_sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    while error is not None and not isinstance(error, sqlite3.Error):
        error = error.__cause__ or error.__context__
    return error


def _origin(trial: optuna.Trial | FrozenTrial) -> str:
    return str(trial.user_attrs.get(_ORIGIN, "sampler"))


def optuna_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return a sampler of Optuna by its name here."""
    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "tpe-multivariate": lambda: TPESampler(seed=seed, multivariate=True),
        "gp": lambda: GPSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
    }
    return made[name]()
