import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner, Result

import tokensearch
from tokensearch.cli import main
from tokensearch.cli.commands import show
from tokensearch.cli.main import app
from tokensearch.errors import PolicyError
from tokensearch.policy import ModelSpec, Policy, Prune, save

HEAVY = ("torch", "timm", "optuna", "matplotlib", "numpy", "scipy", "sklearn")


def called(*args: str) -> Result:
    return CliRunner().invoke(app, list(args))


ENTRY_POINT = Path(sys.executable).with_name("tokensearch")


def entry_point(*args: str) -> Sequence[str]:
    return (str(ENTRY_POINT), *args)


@pytest.mark.skipif(not ENTRY_POINT.exists(), reason="the package is not installed")
def test_the_installed_command_keeps_results_and_errors_apart() -> None:
    version = subprocess.run(entry_point("--version"), capture_output=True, text=True, check=True)
    failed = subprocess.run(entry_point("show", "no.json"), capture_output=True, text=True)

    assert (version.stdout, version.stderr) == (f"tokensearch {tokensearch.__version__}\n", "")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == (
        "error: no.json does not exist; give a policy, a front, the folder of a run, or the name "
        "of a preset\n"
    )


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, tokensearch.cli.main; print([m for m in {HEAVY} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_help_names_every_verb() -> None:
    said = called("--help").stdout

    for verb in main.VERBS:
        assert f"\n  {verb.__name__} " in said


def every_verb() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with the words that name it, those of groups too."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        yield from (((name, each), inner[each]) for each in inner)
        if not inner:
            yield (name,), command


@pytest.mark.parametrize(("words", "command"), [*every_verb()], ids=lambda each: str(each)[:40])
def test_help_is_in_words_and_ends_with_an_example_that_can_be_given(
    words: tuple[str, ...], command: Any
) -> None:
    said = called(*words, "-h").stdout

    options = said.partition("\nOptions:")[2]
    assert not re.search("<(str|path|(int|float)( range)?)>", options)
    assert not re.search(r"[{}]|<(str|path|list)\b", said)
    example = re.search(r"\n  Example: tokensearch (.+(?:\n  .+)*)\s*$", said)
    assert example is not None
    given = shlex.split(example[1])
    assert tuple(given[: len(words)]) == words
    command.make_context(words[-1], given[len(words) :])  # wrong usage raises


@pytest.mark.parametrize(
    ("verb", "usage"), [("retarget", "RUN"), ("evaluate", "POLICY..."), ("diff", "a b")]
)
def test_arguments_are_shown_by_their_names_alone(verb: str, usage: str) -> None:
    said = called(verb, "-h").stdout

    assert said.startswith(f"Usage: tokensearch {verb} [OPTIONS] {usage}\n")
    name = usage.removesuffix("...").split()[0]
    assert re.search(rf"\nArguments:\n  {name}  +\w", said)


def test_lines_of_verbs_are_not_cut() -> None:
    verbs = called("-h").stdout.partition("\nCommands:")[2]

    assert "tune " in verbs
    assert "..." not in verbs


@pytest.mark.parametrize("args", [("shw",), ("show",), ("show", "none", "--jso"), ("report",)])
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    result = called(*args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ")


def test_an_error_is_one_sentence_with_its_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        error = PolicyError("block 3 [of 2] does not exist")
        error.add_note("in here.json")
        error.add_note("of run 7")
        raise error

    monkeypatch.setattr(show, "read_policy", fail)
    result = called("show", "tome-r13")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: block 3 [of 2] does not exist (in here.json, of run 7)\n"


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 6e13 bytes"
        ),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
)
def test_too_little_memory_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        raise failure

    monkeypatch.setattr(show, "read_policy", fail)
    result = called("show", "tome-r13")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: the memory does not suffice; a smaller --batch-size or model may fit\n"
    )


def test_a_full_disk_is_one_sentence_whoever_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "cache/weights.bin")

    monkeypatch.setattr(show, "read_policy", fail)
    result = called("show", "tome-r13")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "error: no space is left on the disk that holds cache/weights.bin; free some and give the "
        "same command again\n"
    )


def test_a_failure_of_the_system_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        raise OSError(errno.EIO, "Input/output error", "policies/here.json")

    monkeypatch.setattr(show, "read_policy", fail)
    result = called("show", "tome-r13")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: policies/here.json: Input/output error\n"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_reader_that_has_enough_ends_a_command_in_silence(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    save(Policy(ModelSpec("tiny", 4, 16, 1, 24), (Prune(1, 8),)), tmp_path / "policy.json")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "tokensearch.cli", "show", str(tmp_path / "policy.json"), *more],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("run", "--latency-target", "soon"), "error: latency target 'soon' cannot be read; write"),
        (("retarget", "run", "--latency-target", "5"), "error: latency target '5' cannot be read"),
        (("run", "--space", "nowhere"), "error: search space 'nowhere' is unknown; known are"),
        (("export", "--dtype", "foo"), "error: Invalid value for '--dtype': 'foo' is not one of"),
        (("run", "--trials", "0"), "error: Invalid value for '--trials': "),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence_and_wrong_usage(
    args: tuple[str, ...], said: str
) -> None:
    result = called(*args)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(said)
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    assert called("report", str(tmp_path / "gone")).stderr == (
        f"error: {tmp_path / 'gone'} does not exist\n"
    )
    assert called("report", str(tmp_path)).stderr == (
        f"error: {tmp_path} holds no run.json, so it is no run folder\n"
    )


def test_another_failure_is_not_taken_for_one_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        raise RuntimeError("mat1 and mat2 cannot be multiplied")

    monkeypatch.setattr(show, "read_policy", fail)

    with pytest.raises(RuntimeError, match="mat1"):
        CliRunner().invoke(main.app, ["show", "tome-r13"], catch_exceptions=False)


def test_an_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, model: str, options: object, *, rescale: bool) -> None:
        error = PolicyError("no answer from postgresql://me:s3cret@host/studies")
        error.add_note("asked with token=s3cret")
        raise error

    monkeypatch.setattr(show, "read_policy", fail)

    assert called("show", "tome-r13").stderr == (
        "error: no answer from postgresql://me:***@host/studies (asked with token=***)\n"
    )


def test_a_traceback_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise LookupError("no answer from postgresql://me:s3cret@host/studies")
    except LookupError as failure:
        main._print_traceback(type(failure), failure, failure.__traceback__)

    said = capsys.readouterr().err
    assert "s3cret" not in said
    assert said.startswith("Traceback (most recent call last):\n")
    assert said.endswith("LookupError: no answer from postgresql://me:***@host/studies\n")


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str, model: str, options: object, *, rescale: bool) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(show, "read_policy", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        result = called("show", "tome-r13")
    finally:
        signal.signal(signal.SIGINT, before)

    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "stopped\n"  # nothing that could go on


def test_own_warnings_are_cautions_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "new.json"
    known = CliRunner().invoke(app, ["show", "none", "--json"]).stdout
    file.write_text(known, encoding="utf-8")  # has the derived fields, which no policy file knows

    result = called("show", str(file))

    assert result.exit_code == 0
    assert result.stderr == (
        "caution: the policy has fields that this version keeps but ignores: block_macs, "
        "mac_share, patch_tokens_per_block, schedule_hash\n"
    )


def test_warnings_of_others_are_left_alone() -> None:
    with (
        pytest.warns(UserWarning, match="from elsewhere") as caught,
        main._own_warnings_as_cautions(),
    ):
        warnings.warn("from elsewhere", stacklevel=1)

    assert len(caught) == 1
