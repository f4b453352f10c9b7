"""The command `tokensearch`: the verbs, and what happens when one fails."""

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from traceback import format_exception
from types import TracebackType
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

import tokensearch
from tokensearch.cli.commands.calibrate import calibrate
from tokensearch.cli.commands.diff import diff
from tokensearch.cli.commands.doctor import doctor
from tokensearch.cli.commands.evaluate import evaluate
from tokensearch.cli.commands.export import export
from tokensearch.cli.commands.presets import presets
from tokensearch.cli.commands.profile import profile
from tokensearch.cli.commands.report import report
from tokensearch.cli.commands.retarget import retarget
from tokensearch.cli.commands.run import run
from tokensearch.cli.commands.show import show
from tokensearch.cli.commands.tune import tune
from tokensearch.cli.commands.worker import worker
from tokensearch.cli.console import caution, err, error, out
from tokensearch.cli.option_groups import Verb
from tokensearch.cli.patches import PICTURES
from tokensearch.errors import SpaceError, TargetError, TokensearchError, TokensearchWarning
from tokensearch.files import FULL, describe_refusal
from tokensearch.redaction import hide_secrets

# The profiler's library writes its own log to stderr, between our lines; 6 is above its last level.
# Read when torch is loaded, which the verbs do later.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

FAILED, USAGE = 1, 2  # 3 and 4 are verdicts of `run`
# As shells say it: 128 and the signal's number.
INTERRUPTED, PIPE_CLOSED, TERMINATED = 130, 141, 143
TYPED = (SpaceError, TargetError)  # of what nothing but an option says
VERBS = (
    run,
    worker,
    retarget,
    calibrate,
    evaluate,
    profile,
    diff,
    show,
    presets,
    report,
    export,
    doctor,
)


# In every `--help`; a test holds that each can be given.
EXAMPLES = {
    "run": "run --model deit_s --data imagenet/val --latency-target 0.6x",
    "worker": "worker --storage postgresql+psycopg://me@host/studies --study demo",
    "retarget": "retarget runs/demo-cpu-0.5x --latency-target 5ms --out runs/5ms",
    "calibrate": "calibrate runs/demo-cpu-0.5x/front.json --out here.json",
    "evaluate": "evaluate tome-r13 evit-0.7 policy.json --csv",
    "profile": "profile --model demo --preset tome-r13 --out profile",
    "diff": "diff none tome-r13 --out diff",
    "show": "show runs/demo-cpu-0.5x",
    "presets": "presets --model vit_b",
    "report": "report runs/demo-cpu-0.5x --open",
    "export": "export policy.json --model demo --out demo.onnx",
    "doctor": "doctor",
}


def first_sentence(verb: Callable[..., Any]) -> str:
    """Return what a verb does, for the list of all."""
    return inspect.getdoc(verb).partition("\n")[0]  # type: ignore[union-attr]  # each has one


class Terminated(KeyboardInterrupt):
    """SIGTERM came: a batch system or a container wants its machine back."""


# Options that take several words, and which words go on with their list.
LISTS: Mapping[str, Callable[[str], bool]] = {
    "--model-kwargs": lambda word: "=" in word,
    "--image": lambda word: word.lower().endswith(PICTURES),
}


class Verbs(TyperGroup):
    """Runs a verb; the only place that turns errors into sentences and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was given."""
        try:
            with _own_warnings_as_cautions():
                return _with_output_written(super().invoke, ctx)
        except typer.BadParameter as failure:
            if type(failure) is not typer.BadParameter:  # a missing one is told with the usage
                raise
            error(failure.format_message().replace(": Value error, ", ": "))
            raise typer.Exit(USAGE) from failure
        except TokensearchError as failure:
            error(failure.sentence, failure.notes)
            raise typer.Exit(USAGE if isinstance(failure, TYPED) else FAILED) from failure
        except OSError as failure:
            raise typer.Exit(_refused_by_system(failure)) from failure
        except (MemoryError, RuntimeError) as failure:
            if not _out_of_memory(failure):
                raise
            error("the memory does not suffice; a smaller --batch-size or model may fit")
            raise typer.Exit(FAILED) from failure
        except KeyboardInterrupt as failure:
            searching = ctx.invoked_subcommand == "run"
            goes_on = "; a search goes on when the same command is given again"
            err.print(f"stopped{goes_on if searching else ''}")
            code = TERMINATED if isinstance(failure, Terminated) else INTERRUPTED
            raise typer.Exit(code) from failure


app = typer.Typer(
    name="tokensearch",
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _verb in VERBS:
    app.command(
        cls=Verb,
        short_help=first_sentence(_verb),
        epilog=f"Example: tokensearch {EXAMPLES[_verb.__name__]}",
    )(_verb)
app.add_typer(tune, short_help=str(tune.info.help))


def _refused_by_system(failure: OSError) -> int:
    """Say what the system refused, and return the exit code; raise what is not the system's."""
    if isinstance(failure, BrokenPipeError):  # whoever reads has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if failure.errno is None:
        raise failure
    if failure.errno in FULL:
        error(describe_refusal(failure.filename or "what was to be written", failure))
    else:
        error(f"{failure.filename or 'a file or device'}: {failure.strerror}")
    return FAILED


def _with_output_written(invoke: Callable[[Any], Any], ctx: Any) -> Any:
    """Run a verb; what it printed has gone out when this returns, or the error is raised here."""
    try:
        return invoke(ctx)
    finally:
        sys.stdout.flush()


def _out_of_memory(failure: Exception) -> bool:
    """Whether an allocation failed: torch says so in words on a CPU, by a class on a GPU."""
    named = type(failure).__name__ in {"MemoryError", "OutOfMemoryError"}
    return named or "can't allocate memory" in str(failure)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"tokensearch {tokensearch.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Find out which blocks of a Vision Transformer should prune, pool or keep their tokens."""


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.excepthook = _print_traceback
    app(spread_words(sys.argv[1:]), prog_name="tokensearch")


def spread_words(words: list[str]) -> list[str]:
    """Give each word of a list after an option of `LISTS` the option of its own that click wants.

    >>> spread_words(["show", "--image", "a.jpg", "b.png", "policy.json"])
    ['show', '--image', 'a.jpg', '--image', 'b.png', 'policy.json']
    """
    spread: list[str] = []
    option = ""  # whose list goes on
    for number, word in enumerate(words):
        first = number > 0 and words[number - 1] in LISTS
        if word in LISTS:
            option = word
        elif option and not first and (word.startswith("-") or not LISTS[option](word)):
            option = ""
        spread += [option, word] if option and not first and word not in LISTS else [word]
    return spread


def _terminate(*_: object) -> None:
    raise Terminated


def _print_traceback(
    kind: type[BaseException], failure: BaseException, trace: TracebackType | None
) -> None:
    """Print what nobody foresaw; libraries quote addresses in their errors, passwords and all."""
    sys.stderr.write(hide_secrets("".join(format_exception(kind, failure, trace))))


@contextmanager
def _own_warnings_as_cautions() -> Iterator[None]:
    """Show the package's own warnings in one line each; those of others stay as they are."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, TokensearchWarning):
                caution(str(message))
            else:
                shown(message, category, filename, lineno, file, line)

        warnings.simplefilter("default", TokensearchWarning)
        warnings.showwarning = show
        yield
