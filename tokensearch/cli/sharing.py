"""What `run`, `worker` and `report` say about a study that several processes share."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from typer import BadParameter, Option

from tokensearch.cli.console import err
from tokensearch.cli.inputs import ModelOptions
from tokensearch.errors import RunError

if TYPE_CHECKING:
    from tokensearch.records.run_folder import RunFolder
    from tokensearch.search import SearchRun

STORAGE = "TOKENSEARCH_STORAGE"
StorageOption = Annotated[
    str | None,
    Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE,
        show_envvar=False,
        help="database of a study that several processes share: "
        "postgresql+psycopg://USER@HOST/DATABASE, or grpc://HOST:PORT of Optuna's proxy",
    ),
]
StudyOption = Annotated[
    str | None, Option("--study", metavar="NAME", help="the study's name in the storage")
]
END_S = 60.0  # that workers get to end by themselves
# Options that name code to run or places to read. A database may have been written by others.
PLACES = ("checkpoint", "data", "images_from", "class_map", "data_config", "model_kwargs")


@dataclass(frozen=True, slots=True)
class SharingOptions:
    """Where a search is shared, and by how many workers of this machine."""

    storage: StorageOption = None
    study: StudyOption = None
    workers: Annotated[
        int,
        Option(
            "--workers",
            min=1,
            max=1024,
            metavar="N",
            help="processes of this machine that search, this one counted in; more than 1 need "
            "--storage",
        ),
    ] = 1

    def check(self, *, fresh: bool) -> None:
        """Refuse what needs a storage where there is none, and what a study cannot do."""
        if self.storage is not None:
            from tokensearch.search.workers.storage import check_address

            check_address(self.storage)
            if fresh:
                raise BadParameter("--fresh sets a folder's run aside; name a new --study instead")
        for name, given in (("--workers", self.workers > 1), ("--study", self.study is not None)):
            if given and self.storage is None:
                raise BadParameter(f"{name} needs --storage, where the processes find their study")


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """Which search a worker joins, and what for."""

    heard: ClassVar = tuple(item.name for item in fields(ModelOptions))
    storage: StorageOption = None
    study: StudyOption = None
    role: Annotated[
        Literal["accuracy", "latency", "both"],
        Option(
            "--role",
            help="what to measure: accuracy, on any machine; latency or both, on one of the same "
            "kind as the run's",
        ),
    ] = "both"
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to join nothing."""
        if self.storage is None or self.study is None:
            raise BadParameter("a worker needs --storage and --study, the search that it joins")


def publish_options(wanted: ModelOptions) -> dict[str, Any]:
    """Return options of model and images as JSON."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in asdict(wanted).items()
    }


def merge_options(
    published: Mapping[str, Any], wanted: ModelOptions, given: Sequence[str]
) -> ModelOptions:
    """Return the options of a worker: the run's, and those that were given here.

    Raises:
        RunError: The run's name code to run or places to read, and they were not given here.
    """
    own = {name for name in asdict(wanted) if _flag(name) in given}
    known = {name: published[name] for name in asdict(wanted) if name in published}
    taken = {name: value for name, value in known.items() if name not in own}
    for name in PLACES:
        if taken.get(name):
            raise RunError(
                f"the study was begun with {_flag(name)} {taken[name]!s:.200}, which is read only "
                f"if you name it yourself; give {_flag(name)}"
            )
    _check_kinds(taken)
    if "model" in taken:
        from tokensearch.models import resolve_stored

        resolve_stored(str(taken["model"]), what="the study")
    return replace(wanted, **taken)


def _check_kinds(published: Mapping[str, Any]) -> None:
    """Refuse options of a database that are not of the type of the command line's."""
    for item in fields(ModelOptions):
        value, usual = published.get(item.name), item.default
        kind = str if usual is None else type(usual)
        left_out = value is None and usual is None
        if item.name in published and not left_out and type(value) is not kind:
            raise RunError(
                f"the study's {_flag(item.name)} is {value!r:.60}, not of type {kind.__name__}; "
                f"give {_flag(item.name)}, or begin a new --study"
            )


@contextmanager
def shared_run(
    run: "SearchRun", sharing: SharingOptions, wanted: ModelOptions, *, space_source: str
) -> "Iterator[SearchRun]":
    """Make a run one whose study is in a database for workers to join, if a storage was given."""
    if sharing.storage is None:
        yield run
        return
    from tokensearch.search.space.toml import read_space
    from tokensearch.search.workers.answers import store_beside
    from tokensearch.search.workers.publish import OPTIONS, SPACE
    from tokensearch.search.workers.run import SharedRun, Sharing
    from tokensearch.search.workers.storage import shared_storage

    name, common = sharing.study or run.folder.path.name, dict(vars(run))
    with shared_storage(sharing.storage) as storage:
        yield SharedRun(
            **{**common, "store": store_beside(storage)},
            sharing=Sharing(storage, name),
            workers=_local_workers(sharing, name, wanted),
            published={
                OPTIONS: publish_options(wanted) | {"dtype": run.settings.dtype},
                SPACE: read_space(space_source).decode(),
            },
        )


def fetch_folder(folder: "RunFolder", storage: str | None, study: str) -> None:
    """Make a new run folder of a study; RunError where there is a run already."""
    from tokensearch.search.workers.publish import Publication
    from tokensearch.search.workers.storage import shared_storage

    if storage is None:
        raise BadParameter("--study needs --storage, where the processes find their study")
    if folder.read_run() is not None:
        raise RunError(
            f"{folder.path} holds a run already; name a new folder, or leave out --study"
        )
    with shared_storage(storage) as opened:
        trials = Publication(opened.studies, study).write_folder(folder)
    err.print(f"{len(trials)} trials of study {study} are in {folder.path}", soft_wrap=True)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _local_workers(
    sharing: SharingOptions, name: str, wanted: ModelOptions
) -> Callable[[], AbstractContextManager[None]]:
    """Return what starts the other workers of this machine, and ends them with its context."""
    return partial(_started, _worker_command(name, wanted), sharing)


def _worker_command(name: str, wanted: ModelOptions) -> list[str]:
    words = ["worker", "--study", name, "--role", "accuracy", "--device", wanted.device]
    for option in ("model", *PLACES):
        value = getattr(wanted, option)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [word for each in values for word in (_flag(option), str(each))]
    return [sys.executable, "-m", "tokensearch.cli", *words]


@contextmanager
def _started(command: list[str], sharing: SharingOptions) -> Iterator[None]:
    """Run workers; an address may hold a password, so it is no word of their command line."""
    assert sharing.storage is not None  # or there would be one process
    environment = {**os.environ, STORAGE: sharing.storage}
    processes = [
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)
        for _ in range(sharing.workers - 1)
    ]
    try:
        yield
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
