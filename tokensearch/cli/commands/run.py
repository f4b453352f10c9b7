"""`tokensearch run`: search a model for a policy that meets a target."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast, get_args

import typer
from typer import BadParameter, Option

from tokensearch.cli.console import check_writable, err, out
from tokensearch.cli.goal import GoalOptions
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import ConfirmOption
from tokensearch.cli.sharing import SharingOptions, shared_run
from tokensearch.errors import TokensearchError
from tokensearch.records.measurements import Backend
from tokensearch.redaction import redact_command

if TYPE_CHECKING:
    from tokensearch.accuracy.store import PredictionStore
    from tokensearch.policy import Policy
    from tokensearch.records.run_settings import SearchBudget

# On the bundled model and two CPU cores: a search of a minute and a half, some hundred images to
# choose and to quote on, and less than five minutes in all.
DEFAULT_MINUTES = 4.5
DEFAULT_TARGET = "0.5x"
DTYPES = ("float32", "float16", "bfloat16")
RUNS = "runs"  # holds the folders of runs without --out
MOST_SETTINGS = 6  # each is timed twice, for the baseline and the answer, beside the finalists


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Where, how and for how long to search: an option per field."""

    space: Annotated[
        str, Option("--space", metavar="NAME", help="search space: a TOML file or a name")
    ] = "default"
    sampler: Annotated[
        Literal["local", "tpe", "tpe-multivariate", "gp", "nsga2", "random"],
        Option("--sampler", help="what proposes policies: our local search, or Optuna's"),
    ] = "local"
    front: Annotated[
        Path | None,
        Option(
            "--from",
            metavar="FILE",
            help="front.json of another run, or a policy, whose schedules are tried first",
        ),
    ] = None
    trials: Annotated[
        int | None,
        Option(
            "--trials", min=1, metavar="N", help="policies to try, if that is to end the search"
        ),
    ] = None
    minutes: Annotated[
        float | None,
        Option(
            "--minutes",
            metavar="MINUTES",
            min=0.01,
            max=1e5,
            help=f"for the whole run, {DEFAULT_MINUTES} if neither this nor --trials is given; "
            "images and finalists are as many as there is time for",
        ),
    ] = None
    confirm_seconds: ConfirmOption = None
    cache_gb: Annotated[
        float,
        Option(
            "--cache-gb",
            min=0.0,
            max=1e4,
            metavar="GB",
            help="memory for activations that policies share",
        ),
    ] = 0.75
    remember: Annotated[
        bool,
        Option(
            "--remember/--no-remember",
            help="keep answers for later runs, and use those of earlier ones",
        ),
    ] = True

    resolutions: Annotated[
        str | None,
        Option("--resolutions", metavar="N,N ...", help="image sizes to try the answer at too"),
    ] = None
    dtypes: Annotated[
        str | None,
        Option("--dtypes", metavar="T,T ...", help="number types to try the answer in too"),
    ] = None
    backends: Annotated[
        str | None,
        Option("--backends", metavar="B,B ...", help="backends to try the answer on too"),
    ] = None
    fresh: Annotated[
        bool,
        Option(
            "--fresh",
            help="move what an earlier run left in the run folder to earlier-1, earlier-2 ... "
            "within, and begin anew",
        ),
    ] = False

    def __post_init__(self) -> None:
        """Refuse what is no number or no list of its kind, before anything heavy is imported."""
        for name, number in (("--minutes", self.minutes), ("--cache-gb", self.cache_gb)):
            if number is not None and not isfinite(number):
                raise BadParameter(f"{name} is {number}; it must be a number")
        self._lists()

    def limits(self) -> "SearchBudget":
        """When the search ends."""
        from tokensearch.records.run_settings import SearchBudget

        if self.minutes is None and self.trials is None:
            return SearchBudget(None, DEFAULT_MINUTES * 60)
        return SearchBudget(self.trials, None if self.minutes is None else self.minutes * 60)

    def neighbours(self) -> "tuple[Policy, ...]":
        """Return the schedules that won elsewhere; PolicyError if the file holds none."""
        from tokensearch.policy import load_policies

        return () if self.front is None else load_policies(self.front)

    def other_settings(self, cell: "Cell") -> "tuple[OtherSettings, ...]":
        """Return in which settings the answer is tried beside the cell of the run.

        Raises:
            BadParameter: There are too many combinations.
        """
        from tokensearch.search.finalists.other_settings import list_settings

        sizes, dtypes, backends = self._lists()
        wanted = list_settings(cell, resolutions=sizes, dtypes=dtypes, backends=backends)
        if len(wanted) > MOST_SETTINGS:
            raise BadParameter(
                f"--resolutions, --dtypes and --backends make {len(wanted)} combinations; give at "
                f"most {MOST_SETTINGS}"
            )
        return wanted

    def _lists(self) -> "tuple[list[int], list[str], list[Backend]]":
        """Read resolutions, number types and backends; BadParameter for what is none of a kind."""
        sizes = _words("--resolutions", self.resolutions)
        if bad := [word for word in sizes if not (word.isdecimal() and 0 < int(word) <= 4096)]:
            raise BadParameter(f"--resolutions has {bad[0]!r}; give sizes of 1 to 4096 px")
        backends = _words("--backends", self.backends, get_args(Backend))
        dtypes = _words("--dtypes", self.dtypes, DTYPES)
        return [int(word) for word in sizes], dtypes, cast("list[Backend]", backends)

    def store(self) -> "PredictionStore":
        """Return what remembers answers."""
        from tokensearch.accuracy.store import PredictionStore, default_store_path

        return PredictionStore(default_store_path() if self.remember else None)


if TYPE_CHECKING:
    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.policy import Goal
    from tokensearch.progress import ProgressListener
    from tokensearch.records.measurements import Cell
    from tokensearch.records.run_folder import RunFolder
    from tokensearch.records.run_result import RunDocument
    from tokensearch.records.run_settings import SearchSettings
    from tokensearch.search import SearchSpace
    from tokensearch.search.finalists.other_settings import OtherSettings


def _words(option: str, given: str | None, known: tuple[str, ...] = ()) -> list[str]:
    """Return the words of a list between commas."""
    words = [] if given is None else [word.strip() for word in given.split(",")]
    if known and (unknown := [word for word in words if word not in known]):
        raise BadParameter(f"{option} has {unknown[0]!r}; give some of {', '.join(known)}")
    return words


@grouped
def run(
    *,
    wanted: ModelOptions,
    asked: GoalOptions,
    searching: SearchOptions,
    sharing: SharingOptions,
    smaller: Annotated[
        str | None,
        typer.Option(
            "--smaller", metavar="NAME", help="a smaller model of the same classes to compare with"
        ),
    ] = None,
    smaller_checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--smaller-checkpoint", metavar="FILE", help="its weights, as for --checkpoint"
        ),
    ] = None,
    out_folder: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="run folder; runs/MODEL-DEVICE-TARGET if not given"
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            "--tensorboard", metavar="DIR", help="draw every trial for TensorBoard as it ends"
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="print events on stdout as they come, a JSON object a line"),
    ] = False,
) -> None:
    """Search for the schedules worth having: front, policy and report, in one run folder.

    Stopped at any moment, it goes on with the same command. Exit codes: 0 the target is met, 3 no
    policy meets it, 4 too close to call.
    """
    from tokensearch.cli.event_stream import print_result
    from tokensearch.cli.inputs import load_inputs, resolve_name
    from tokensearch.cli.progress import progress_listener
    from tokensearch.cli.smaller_model import check_smaller_model, load_smaller_model
    from tokensearch.records.run_folder import WAYS_ON, RunFolder

    # What can be refused is refused before anything heavy is imported or loaded.
    limits, goal = searching.limits(), asked.goal(default=DEFAULT_TARGET)
    sharing.check(fresh=searching.fresh)
    neighbours = searching.neighbours()
    check_smaller_model(smaller, smaller_checkpoint)
    if out_folder is not None:
        RunFolder(out_folder).check(fresh=searching.fresh, ways_on=WAYS_ON)
    elif not Path(RUNS).is_dir():  # or a folder within may be writable all the same
        check_writable(Path(RUNS))
    name = resolve_name(wanted.model, wanted.options)
    if out_folder is not None and not searching.fresh:
        _refuse_other(RunFolder(out_folder), name, goal, wanted)
    from tokensearch.search import SearchRun, load_space

    space = load_space(searching.space)
    subject = load_inputs(wanted)
    others = searching.other_settings(subject.cell)  # refused before anything is written
    folder = _folder(wanted.model, subject.cell, goal, out_folder)
    folder.check(fresh=searching.fresh, ways_on=WAYS_ON)
    alternative = load_smaller_model(subject, smaller, smaller_checkpoint)
    with (
        progress_listener(err) as shown,
        _relayed(shown, folder, tensorboard, as_json=as_json) as watcher,
    ):
        session = SearchRun(
            subject.model,
            subject.splits,
            space,
            _settings(wanted, searching, subject, goal=goal, space=space),
            limits,
            folder,
            watcher,
            redact_command(["tokensearch", *sys.argv[1:]]),
            searching.store(),
            searching.cache_gb,
            neighbours,
            alternative,
            others,
            fresh=searching.fresh,
            dense=subject.dense,
            confirm_seconds=searching.confirm_seconds,
        )
        with shared_run(session, sharing, wanted, space_source=searching.space) as started:
            document = started.run()
        _keep_patches(subject, document, folder, watcher)
    hand_out(folder, document, print_document=print_result if as_json else None)


def _refuse_other(folder: "RunFolder", name: str, goal: "Goal", wanted: ModelOptions) -> None:
    """Refuse the folder of another run by what is known before a model is loaded; RunError."""
    from tokensearch.records.measurements import to_json

    before = folder.read_run()
    if before is None:
        return
    for what, now in (
        ("model", name),
        ("target", goal.target),
        ("max_drop", goal.max_drop),
        ("max_divergence", goal.max_divergence),
        ("batch", wanted.batch_size),
        ("seed", wanted.seed),
    ):
        was = getattr(before.settings, what)
        folder.refuse_other(f"settings.{what}", to_json(was), to_json(now))


@contextmanager
def _relayed(
    listener: "ProgressListener", folder: "RunFolder", board: Path | None, *, as_json: bool
) -> "Iterator[ProgressListener]":
    """Hand out a listener that also draws trials for TensorBoard or prints events, where wanted."""
    from tokensearch.cli.board import SearchBoard
    from tokensearch.cli.event_stream import EventStream

    with ExitStack() as stack:
        if board is not None:
            listener = stack.enter_context(closing(SearchBoard(listener, folder, board)))
        yield stack.enter_context(closing(EventStream(listener, folder))) if as_json else listener


def _keep_patches(
    subject: "EvaluationInputs",
    document: "RunDocument",
    folder: "RunFolder",
    listener: "ProgressListener",
) -> None:
    """Keep where the patches of a few images go under the answer, for the report.

    A picture is no reason to lose the report of a finished search, whatever the model does to it.
    """
    import torch

    from tokensearch.evaluation.patch_trace import write_answer_traces

    answer, split = document.finished.answer, subject.splits.report
    policy = None if answer is None else answer.policy
    try:
        write_answer_traces(subject.model, split, subject.data_config, policy, folder=folder)
    except (TokensearchError, torch.OutOfMemoryError) as error:
        listener.caution(f"the report shows no images: {error}")


def hand_out(
    folder: "RunFolder",
    document: "RunDocument",
    *,
    print_document: "Callable[[RunDocument], None] | None" = None,
) -> None:
    """Write the report, print the result, as JSON where a function does so, and exit."""
    from tokensearch.policy import load_set
    from tokensearch.report.run.console import summary
    from tokensearch.report.run.page import write_report

    write_report(folder)
    if print_document is not None:
        print_document(document)
    else:
        out.print(summary(document, load_set(folder.front), folder=folder))
    raise typer.Exit(document.finished.exit_code)


def _folder(model: str, cell: "Cell", goal: "Goal", out_folder: Path | None) -> "RunFolder":
    """Return the run folder, and say which it is."""
    from tokensearch.measure.resolve_cell import device_slug
    from tokensearch.records.run_folder import RunFolder

    way = device_slug(cell) if cell.backend == "eager" else f"{device_slug(cell)}-{cell.backend}"
    usual = Path(RUNS) / f"{model}-{way}-{goal.slug}".replace("/", "-")
    folder = RunFolder(out_folder or usual)
    err.print(f"run folder {folder.path}", soft_wrap=True)
    return folder


def _settings(
    wanted: ModelOptions,
    searching: SearchOptions,
    subject: "EvaluationInputs",
    *,
    goal: "Goal",
    space: "SearchSpace",
) -> "SearchSettings":
    from tokensearch.records.run_settings import SearchSettings

    return SearchSettings(
        model=subject.name,
        checkpoint=None if wanted.checkpoint is None else str(wanted.checkpoint),
        data=wanted.data if wanted.images_from is None else str(wanted.images_from),
        target=goal.target,
        device=subject.cell.device,
        dtype=subject.cell.dtype,
        batch=wanted.batch_size,
        resolution=subject.cell.resolution,
        columns=subject.cell.columns,
        space=space.name,
        space_digest=space.digest,
        sampler=searching.sampler,
        seed=wanted.seed,
        objective=subject.objective,
        backend=subject.cell.backend,
        max_drop=goal.max_drop,
        max_divergence=goal.max_divergence,
    )
