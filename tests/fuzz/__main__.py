"""`python -m tests.fuzz KIND COUNT SEED`: damaged files of one kind, in one gigabyte at most."""

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.harness import outcomes, summary
from tests.fuzz.kinds import KINDS

GIGABYTE = 2**30
EVERY = 1000  # files between two lines of progress


def limit_memory() -> None:
    """Let this process allocate a gigabyte beyond what it has: what is more is a MemoryError."""
    status = Path("/proc/self/status").read_text()
    held = next(line for line in status.splitlines() if line.startswith("VmData"))
    most = int(held.split()[1]) * 1024 + GIGABYTE
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def counted(
    found: Iterator[tuple[bytes, str]], name: str, count: int
) -> Iterator[tuple[bytes, str]]:
    for done, one in enumerate(found, 1):
        if done % EVERY == 0:
            sys.stderr.write(f"{name}: {done} of {count}\n")
        yield one


def main(name: str, count: int, seed: int) -> Counter[str]:
    kind = KINDS[name]
    kind.use(kind.read(kind.written()))  # what is imported and kept on first use
    limit_memory()
    counts, faults = summary(counted(outcomes(kind, count, seed), name, count))
    sys.stdout.write(f"{name}: {', '.join(f'{many} {what}' for what, many in counts.items())}\n")
    sys.stdout.writelines(f"{fault}\n\n" for fault in faults)
    return counts


if __name__ == "__main__":
    outcome = main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(set(outcome) - {"read", "refused"} != set())
