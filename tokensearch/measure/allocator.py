"""Memory between passes: kept by the process, or given back and asked for again.

glibc gives large blocks back to the system when they are freed, by thresholds that move with the
largest block freed so far. A pass that gets its activations anew pays for every page: DeiT-S at
batch 8 took 50,000 page faults a pass, a seventh of its time, and none after another model had
freed a larger block. So a latency would depend on what ran before, and the baseline, whose
activations are largest, would look slow beside any other. Timings are therefore taken with freed
memory kept, as the caching allocator of a GPU does, and serving processes are told to do. What one
stage of a run has freed is given back before the next: a warm-up pass pays for its own pages.
"""

import ctypes
from functools import cache

# mallopt's parameters and the most that it takes, from glibc's malloc.h and malloc.c: half a heap
# of 64 MB, and the largest int. Setting either also stops the thresholds from moving.
M_MMAP_THRESHOLD, MOST_MMAP = -3, 32 * 2**20
M_TRIM_THRESHOLD, MOST_TRIM = -1, 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed, from now on; False where it knows no such thing.

    Blocks above 32 MB are given back all the same.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: musl, macOS, Windows
        return False
    taken = mallopt(M_MMAP_THRESHOLD, MOST_MMAP), mallopt(M_TRIM_THRESHOLD, MOST_TRIM)
    return taken == (1, 1)


def give_back_freed_memory() -> bool:
    """Give what the C library keeps back to the system; False where that was nothing.

    Not between the passes of a timing: the next one would pay for its pages anew.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    return bool(trim(0))
