"""The files of a run in its study, so that a run folder can be made of the study alone."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from tokensearch.errors import RunError
from tokensearch.files import make_folder, write_whole
from tokensearch.policy.file import to_text
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.search.workers.study import RECORD, names_of, read_record

# User attributes of the study.
RUN, COSTS = "run", "costs"  # as the files of these names hold them
OPTIONS = "options"  # that the run was given for its model and images
SPACE = "space"  # in TOML
READY = "ready"  # whether the baseline was timed: workers may begin
SETUP_S, POLL_S = 900.0, 0.5
RESULTS = "results"  # the files that the end of a run leaves, by their names in the folder
_RESULT_FILES = ("front.json", "policy.json", "policies/*.json", "profiles/*.json")


@dataclass(frozen=True)
class Publication:
    """What a run has published in its study."""

    storage: BaseStorage
    name: str

    def open(self) -> None:
        """Require the study; RunError if there is none of that name."""
        known = optuna.get_all_study_names(self.storage)
        if self.name not in known:
            raise RunError(
                f"there is no study {self.name!r} in this storage; give one of "
                f"{', '.join(sorted(known)) or 'none: it is empty'}"
            )

    @cached_property
    def _study(self) -> optuna.Study:
        self.open()
        return optuna.load_study(study_name=self.name, storage=self.storage)

    def _get(self, key: str) -> Any:
        return self._study.user_attrs.get(key)

    def set(self, key: str, value: object) -> None:
        """Publish something under a key."""
        self._study.set_user_attr(key, value)

    @property
    def exists(self) -> bool:
        """Whether a run has published in this study."""
        return self.name in optuna.get_all_study_names(self.storage) and bool(self._get(RUN))

    @property
    def ready(self) -> bool:
        """Whether workers may begin."""
        return self.exists and bool(self._get(READY))

    def run(self) -> RunDocument:
        """Return run.json; RunError where no run has published any."""
        written = self._get(RUN)
        if not isinstance(written, Mapping):
            raise RunError(f"study {self.name!r} holds no run of tokensearch")
        return RunDocument.from_json(written)

    def options(self) -> Mapping[str, Any]:
        """Return the options of model and images that the run was given."""
        written = self._get(OPTIONS)
        return written if isinstance(written, Mapping) else {}

    def space(self) -> bytes:
        """Return the search space, as its file spells it."""
        return str(self._get(SPACE)).encode()

    def wait_until_ready(self, say: Callable[[str], object]) -> None:
        """Return once workers may begin; RunError if that takes too long."""
        end = monotonic() + SETUP_S
        if not self.ready:
            say(f"waiting for the run of study {self.name!r} to time the baseline")
        while not self.ready:
            if monotonic() > end:
                raise RunError(
                    f"study {self.name!r} was not set up within {SETUP_S / 60:.0f} minutes; give "
                    f"`tokensearch run --storage ... --study {self.name}` first"
                )
            sleep(POLL_S)

    def publish(self, folder: RunFolder) -> None:
        """Publish what a run folder holds by now."""
        for key, file in ((RUN, folder.run), (COSTS, folder.costs)):
            if file.exists():
                self.set(key, json.loads(file.read_text()))
        names = (path for kind in _RESULT_FILES for path in sorted(folder.path.glob(kind)))
        files = {str(path.relative_to(folder.path)): path.read_text() for path in names}
        if files:
            self.set(RESULTS, files)

    def fetch(self, folder: RunFolder) -> None:
        """Write run.json and the cost table into a folder."""
        folder.write_run(self.run())
        if costs := self._get(COSTS):
            write_whole(folder.costs, to_text(costs))

    def write_folder(self, folder: RunFolder) -> tuple[Trial, ...]:
        """Make a run folder of the study alone, and return its trials."""
        trials = self.trials()
        folder.create()
        with folder.locked():
            folder.write_trials(trials)
            for name, text in (self._get(RESULTS) or {}).items():
                path = _inside(folder.path, name)
                make_folder(path.parent)
                write_whole(path, str(text))
            self.fetch(folder)  # last: a folder with a run.json is not written again
        return trials

    def trials(self) -> tuple[Trial, ...]:
        """Return every finished trial, in the order they ended."""
        states = (TrialState.COMPLETE,)
        known = set(optuna.get_all_study_names(self.storage))
        finished = [
            trial
            for name in names_of(self.name)
            if name in known
            for trial in optuna.load_study(study_name=name, storage=self.storage).get_trials(
                deepcopy=False, states=states
            )
            if RECORD in trial.user_attrs
        ]
        finished.sort(key=lambda trial: (trial.datetime_complete, trial._trial_id))
        return tuple(read_record(trial) for trial in finished)


def _inside(folder: Path, name: str) -> Path:
    """Return a file's path in a folder; RunError for a name that is none of a run's results."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not any(map(path.match, _RESULT_FILES)):
        raise RunError(f"the study names a file {name!r:.80}, which no run leaves")
    return folder / path
