"""A pass finds its memory where the last one left it, whatever ran before."""

import os
import subprocess
import sys

import pytest

from tokensearch.measure.allocator import keep_freed_memory

# Page faults of the last of five passes that make and drop 24 blocks of 8 MB, before the process is
# told to keep them and after.
FAULTS = """
import resource, torch
from tokensearch.measure.allocator import keep_freed_memory
torch.set_num_threads(1)
def run():
    blocks = [torch.ones(2**21) for _ in range(24)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def last_of_five():
    for _ in range(5):
        before = faults()
        run()
    return faults() - before
print(last_of_five())
keep_freed_memory()
print(last_of_five())
"""


# Resident pages with 24 blocks of 8 MB, after they are dropped and after they are given back.
RESIDENT = """
from pathlib import Path
import torch
from tokensearch.measure.allocator import give_back_freed_memory, keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
blocks = [torch.ones(2**21) for _ in range(24)]
print(resident())
del blocks
print(resident())
give_back_freed_memory()
print(resident())
"""


# What glibc's moving threshold comes to now and then, pinned: blocks above 64 kB are given back.
RETURNING = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16)}


@pytest.mark.long
@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no such setting")
def test_freed_memory_that_is_kept_is_not_paid_for_again() -> None:
    pages = 24 * 2**23 // 4096
    command = [sys.executable, "-c", FAULTS]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env=RETURNING)

    returned, kept = map(int, done.stdout.split())
    assert returned > pages / 2  # what it is against
    assert kept < pages / 100


@pytest.mark.long
@pytest.mark.skipif(not keep_freed_memory(), reason="the C library has no such setting")
def test_freed_memory_that_was_kept_is_given_back_when_asked() -> None:
    pages = 24 * 2**23 // 4096

    done = subprocess.run(
        [sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True
    )

    full, dropped, given_back = map(int, done.stdout.split())
    assert full - dropped < pages / 10  # what it is against
    assert full - given_back > pages * 0.9


def test_saying_it_twice_changes_nothing() -> None:
    assert keep_freed_memory() == keep_freed_memory()
