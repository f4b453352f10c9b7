"""Whatever a file holds, its reader takes it or says in one sentence why not."""

import subprocess
import sys

import pytest

from tests.fuzz.harness import outcomes, summary
from tests.fuzz.kinds import KINDS

FILES = 400  # of each kind
MANY = 50_000  # of each kind, in `make soak`
SEED = 20_261_127


@pytest.mark.parametrize("name", KINDS)
def test_a_valid_file_is_read_and_used(name: str) -> None:
    kind = KINDS[name]

    kind.use(kind.read(kind.written()))


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused_in_one_sentence(name: str) -> None:
    counts, faults = summary(outcomes(KINDS[name], FILES, SEED))

    assert counts.total() == FILES
    assert not faults, "\n\n".join(faults[:3])
    assert counts["read"] > 0 < counts["refused"]  # damage of both kinds was seen


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_files_are_read_or_refused_within_a_gigabyte(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, str(MANY), str(SEED + 1)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{name}: {MANY} of {MANY}" in done.stderr
