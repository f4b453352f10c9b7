"""A run folder: what a search leaves behind, and what a stopped search goes on from.

    run.json       what was asked, on which machine and images; the result when there is one
    study.db       Optuna's study
    costs.json     what token counts and operators cost here
    trials.jsonl   one line per finished trial (`records.measurements.Trial`)
    front.json     the Pareto set; policies/ holds its members one by one
    policy.json    the answer
    profiles/      where the time goes, as records and as a TensorBoard folder
    report.md      all of it in words
    report.html    the same as one page to show, print and click; report_data/ holds its tables
    results.csv    the finalists in the columns of timm's scripts
    patches.json   a few images of the run, and where their patches go under the answer
    earlier-N/     all of this of a run that `--fresh` set aside

Files appear whole or not at all; `trials.jsonl` grows by whole lines, and a torn last line (the
power went) is cut off. A link among these names is refused: what it leads to is not the run's. So
is a second name (hard link) of a file that is changed in place.
"""

import fcntl
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokensearch.documents import bytes_of, parse_object, read_object, validate
from tokensearch.errors import RunError
from tokensearch.files import (
    make_folder,
    no_follow,
    refuse_link,
    refuse_unwritable,
    signals_held,
    sync_folder,
    write_whole,
    writing,
)
from tokensearch.policy.file import to_text
from tokensearch.records.checks import TRIAL
from tokensearch.records.measurements import Trial, from_json, to_json
from tokensearch.records.run_result import RunDocument
from tokensearch.redaction import redact

MAX_TRIALS_BYTES = 64 * 2**20  # twelve thousand trials; a search makes some hundred
# All that a run and its report keep beside folders; a test holds this against what they leave.
# SQLite adds endings of its own to the name of the study.
IN_PLACE = ("trials.jsonl", "study.db", "study.db-journal", "study.db-wal", "study.db-shm")
FILES = (
    *IN_PLACE,
    ".lock",
    ".probe",
    "run.json",
    "costs.json",
    "front.json",
    "policy.json",
    "report.md",
    "report.html",
    "front.png",
    "waterfall.png",
    "flame.svg",
    "patches.json",
    "patches.webp",
    "results.csv",
)
FOLDERS = ("policies", "profiles", "report_data")
# What a process may have left that was stopped before it wrote run.json; folders while empty.
FIRST_FILES = (".lock", ".probe", ".run.json.*.part")
EARLIER = "earlier-"
# What a search can do where it cannot go on in a folder.
WAYS_ON = "--fresh moves it to a folder within and begins anew, --out names another folder"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The names inside a run folder."""

    path: Path

    @property
    def run(self) -> Path:
        """What was asked, and the result."""
        return self.path / "run.json"

    @property
    def study(self) -> Path:
        """Optuna's SQLite file: one process only."""
        return self.path / "study.db"

    @property
    def costs(self) -> Path:
        """The cost table."""
        return self.path / "costs.json"

    @property
    def trials(self) -> Path:
        """One JSON line per finished trial."""
        return self.path / "trials.jsonl"

    @property
    def front(self) -> Path:
        """The policy set."""
        return self.path / "front.json"

    @property
    def policies(self) -> Path:
        """The set's members, a file each."""
        return self.path / "policies"

    def member(self, number: int) -> Path:
        """One of the set's members."""
        return self.policies / f"{number:02d}.json"

    def members(self) -> list[Path]:
        """The members that there are: files that are named as such."""
        numbered = [path for path in self.policies.glob("*.json") if path.stem.isdecimal()]
        members = [path for path in numbered if path == self.member(int(path.stem))]
        return sorted(members, key=lambda path: int(path.stem))

    @property
    def policy(self) -> Path:
        """The answer."""
        return self.path / "policy.json"

    @property
    def patches(self) -> Path:
        """Where the patches of a few images go under the answer."""
        return self.path / "patches.json"

    @property
    def profiles(self) -> Path:
        """Profile records, and the TensorBoard folder."""
        return self.path / "profiles"

    @property
    def lock(self) -> Path:
        """Held by the process that is at work."""
        return self.path / ".lock"

    @property
    def report(self) -> Path:
        """The report in Markdown."""
        return self.path / "report.md"

    @property
    def html(self) -> Path:
        """The report as one page for a browser."""
        return self.path / "report.html"

    def read_run(self) -> RunDocument | None:
        """Return run.json, or None in a folder that is new; RunError when it is another's."""
        self.refuse_links()
        return self._read_run()

    def _read_run(self) -> RunDocument | None:
        if not self.run.exists():
            return None
        with _naming(self.run):
            return RunDocument.from_json(read_object(self.run, what="a run", error=RunError))

    def require_run(self) -> RunDocument:
        """Return run.json; RunError where there is none."""
        document = self.read_run()
        if document is None:
            what = "holds no run.json, so it is no run folder"
            raise RunError(f"{self.path} {what if self.path.exists() else 'does not exist'}")
        return document

    def write_run(self, document: RunDocument) -> None:
        """Write run.json whole, without secrets that were typed."""
        write_whole(self.run, to_text(redact(document.to_json())))

    def write_profile(self, name: str, profile: Mapping[str, Any]) -> None:
        """Write profiles/NAME.json whole."""
        write_whole(self.profiles / f"{name}.json", to_text(profile))

    def refuse_links(self) -> None:
        """Refuse a folder in which a name of ours is a link: RunError."""
        try:
            for name in (*FILES, *FOLDERS):
                refuse_link(self.path / name)
            for name in FOLDERS:
                for inside, folders, files in os.walk(self.path / name):
                    for entry in (*folders, *files):
                        refuse_link(Path(inside, entry))
        except PermissionError as error:
            raise RunError(f"run folder {self.path} cannot be read: {error.strerror}") from error

    def check(
        self, *, fresh: bool = False, ways_on: str = "name another folder with --out"
    ) -> None:
        """See whether the folder could be written, and is nobody else's; leave nothing behind.

        fresh    what is there will be set aside, so that run.json may be damaged
        ways_on  what the user can do where it is damaged

        Raises:
            RunError: It is not so.
        """
        refuse_unwritable(self.path, f"run folder {self.path}")
        self.refuse_links()
        if not fresh:
            with _advising(ways_on):
                self._read_run()
            self._refuse_second_names()
        if foreign := self._foreign():
            raise RunError(
                f"{self.path} holds {foreign} but no run.json, so it is no run folder; name a new "
                f"or empty one with --out"
            )

    def _refuse_second_names(self) -> None:
        """Refuse to change in place what is also known by a name elsewhere, in a backup for one."""
        for name in IN_PLACE:
            path = self.path / name
            if path.is_file() and path.stat().st_nlink > 1:
                raise RunError(
                    f"{path} is a hard link, so that its other names would change with it; put a "
                    f"copy in its place, or name another folder with --out"
                )

    def _foreign(self) -> str | None:
        """Name something in a folder without run.json that no run can have begun with."""
        if self.run.exists() or not self.path.is_dir():
            return None
        return min(
            (one.name for one in self.path.iterdir() if not _may_be_begun(one)), default=None
        )

    def create(self, *, fresh: bool = False) -> None:
        """Make the folder, and find out now whether it can be written (see `check`)."""
        self.check(fresh=fresh)
        probe = self.path / ".probe"
        with writing(f"run folder {self.path}"):
            make_folder(self.policies)
            make_folder(self.profiles)
            probe.unlink(missing_ok=True)
            with open(probe, "xb", opener=no_follow) as file:
                file.write(bytes(4096))
            probe.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; a killed one lets go of it.

        Raises:
            RunError: Another process holds it.
        """
        with writing(self.lock):
            lock = no_follow(str(self.lock), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"run folder {self.path} is in use by another process; wait until that has "
                    f"ended"
                ) from error
            yield
        finally:
            os.close(lock)

    def refuse_other(self, what: str, before: object, now: object) -> None:
        """Refuse to go on with a run of which something was other than now; RunError."""
        if before != now:
            raise RunError(
                f"run folder {self.path} holds a run with {what} {before!r:.80}, this one has "
                f"{now!r:.80}; {WAYS_ON}"
            )

    def set_aside(self) -> Path | None:
        """Move what an earlier run left to a new folder within, and return that; None without one.

        By names of ours alone, whole folders as they are; nothing is read or deleted. Signals wait
        for it. `run.json` goes last: killed before that, the folder still says whose it is.
        """
        kept = {".lock", ".probe", "run.json"}
        names = [name for name in (*FOLDERS, *FILES) if name not in kept]
        if not self.run.exists():
            return None
        numbers = (self.path / f"{EARLIER}{number}" for number in itertools.count(1))
        aside = next(path for path in numbers if not os.path.lexists(path))
        with writing(aside), signals_held():
            aside.mkdir()
            for name in (*names, "run.json"):
                if (self.path / name).exists():
                    (self.path / name).rename(aside / name)
            for name in FOLDERS:
                make_folder(self.path / name)
            sync_folder(self.path)
        return aside

    def append_trial(self, trial: Trial) -> None:
        """Add one finished trial; it is on the disk when this returns."""
        line = _line_of(trial)
        with writing(self.trials), open(self.trials, "ab", opener=no_follow) as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())

    def write_trials(self, trials: Iterable[Trial]) -> None:
        """Write all trials whole, numbered in this order."""
        numbered = (replace(trial, number=number) for number, trial in enumerate(trials))
        write_whole(self.trials, "".join(map(_line_of, numbered)))

    def read_trials(self) -> tuple[Trial, ...]:
        """Return every finished trial, in the order they ended."""
        return tuple(self._lines()) if self.trials.exists() else ()

    def mend_trials(self) -> None:
        """Cut off a last line that was torn when the process was killed."""
        if not self.trials.exists():
            return
        data = self._trials()
        with writing(self.trials), open(self.trials, "r+b", opener=no_follow) as file:
            file.truncate(data.rfind(b"\n") + 1)

    def _trials(self) -> bytes:
        with _naming(self.trials):
            return bytes_of(
                self.trials, what="a list of trials", error=RunError, most=MAX_TRIALS_BYTES
            )

    def _lines(self) -> Iterator[Trial]:
        for number, line in enumerate(self._trials().splitlines(), 1):
            with _naming(f"{self.trials}, line {number}"):
                written = parse_object(line, error=RunError)
                validate(written, TRIAL, "the trial", RunError)
            yield from_json(Trial, written)


def _line_of(trial: Trial) -> str:
    return json.dumps(to_json(trial), allow_nan=False) + "\n"


@contextmanager
def _naming(file: Path | str) -> Iterator[None]:
    """Add the file, which only we know, to what its reader finds."""
    try:
        yield
    except RunError as error:
        error.add_note(f"in {file}")
        raise


@contextmanager
def _advising(remedy: str) -> Iterator[None]:
    """Add what can be done to what is wrong."""
    try:
        yield
    except RunError as error:
        error.add_note(remedy)
        raise


def _may_be_begun(path: Path) -> bool:
    """Whether a run leaves this before it writes run.json."""
    if path.name in FOLDERS:
        return path.is_dir() and not any(path.iterdir())
    if path.name.startswith(EARLIER):
        return path.is_dir() and not path.is_symlink()
    return any(path.match(name) for name in FIRST_FILES)
