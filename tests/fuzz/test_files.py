"""Whatever a file holds, its reader takes it or says in one sentence why not."""

import pytest

from tests.fuzz.harness import outcomes, summary
from tests.fuzz.kinds import KINDS

FILES = 2000
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
