"""Eight processes of one search, some killed or stopped at random while their database fails."""

from pathlib import Path

import pytest

from tests.bench.soak import soak

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]


def test_no_finished_trial_is_lost_or_done_twice_whatever_is_killed(tmp_path: Path) -> None:
    soaked = soak(tmp_path)

    assert soaked.holds, (soaked, (tmp_path / "log.txt").read_text()[-5000:])
    assert soaked.faults["kill"]
