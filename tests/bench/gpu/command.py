"""A GPU's word: everything that needs one, in one command of under nine minutes.

    python -m tests.bench gpu [--plan first] [--out reports/DATE-gpu] [--only PART ...]

Every part runs in its own process with its own time limit. After each, the folder holds
`summary.json` and `summary.md`, and all of it is in the archive beside it (OUT.tgz), so that a run
that is cut off leaves what it had. With `--device cpu` the same parts run on a CPU, small: they are
tried, and nothing is learned of speed.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter

from tests.bench.gpu.demo import DEMO
from tests.bench.gpu.first import FIRST
from tests.bench.gpu.parts import GRACE_S, End, Part, Setting, run
from tests.bench.gpu.second import SECOND
from tests.bench.gpu.summary import summary
from tokensearch.files import write_whole

PLANS: dict[str, tuple[Part, ...]] = {"first": FIRST, "second": SECOND, "demo": DEMO}
# Of a plan, all told: nine minutes, less what make and the start of the interpreter take.
TOTAL_S = 525.0
# Of a file that goes into the archive, which is to stay easy to send; the demo's weights do.
LARGEST_BYTES = 6 * 2**20
PACKAGES = ("torch", "timm", "optuna")
LOG_LINES = 30  # of a part's log that are printed as it ends; the whole is in the archive


def main(arguments: list[str]) -> None:
    """Run the parts of a plan, and write summary and archive after each."""
    start_s, options = perf_counter(), parsed(arguments)
    if options.device != "cpu" and not gpu_at_hand():
        print("no NVIDIA GPU is at hand; --device cpu tries the parts on the CPU")
        return
    archive = options.archive and options.archive.resolve()
    setting = Setting(options.out.resolve(), options.device, archive)
    for folder in (setting.out, setting.packed.parent):
        folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    parts = chosen(PLANS[options.plan], options.only, options.skip)
    parts += [one for one in FIRST if one.name in options.also and one not in parts]
    run_plan(parts, setting, plan=options.plan, start_s=start_s)


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench gpu", description=__doc__)
    names = list(dict.fromkeys(part.name for parts in PLANS.values() for part in parts))
    parser.add_argument("--plan", default="first", choices=PLANS)
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"), help="folder")
    parser.add_argument("--archive", type=Path, help="file of everything; OUT.tgz if not given")
    parser.add_argument("--device", default="cuda", help="cpu tries all parts, small")
    parser.add_argument("--only", nargs="+", default=names, choices=names, metavar="PART")
    parser.add_argument("--skip", nargs="+", default=[], choices=names, metavar="PART")
    known = [part.name for part in FIRST]
    parser.add_argument(
        "--also", nargs="+", default=[], choices=known, metavar="PART", help="of the first, at last"
    )
    return parser.parse_args(arguments)


def gpu_at_hand() -> bool:
    """Whether torch sees a GPU, without a CUDA context: parts should meet an empty one."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    try:
        return torch.cuda.is_available()
    finally:
        del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]


@cache
def machine() -> str:
    """Cards with their drivers, and versions: what every figure belongs to."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)
        found = [line.strip() for line in done.stdout.splitlines()]
    except (OSError, subprocess.SubprocessError):
        found = ["no nvidia-smi"]
    found.append(f"Python {platform.python_version()}")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join(found)


def stop(number: int, _: object) -> None:
    """End the run as its limit would: the part that runs is killed, and what there is is kept."""
    for known in (signal.SIGTERM, signal.SIGINT):  # a second one must not spoil the archive
        signal.signal(known, signal.SIG_IGN)
    raise SystemExit(128 + number)


def chosen(parts: Sequence[Part], only: Sequence[str], skip: Sequence[str]) -> list[Part]:
    return [part for part in parts if part.name in only and part.name not in skip]


def run_plan(
    parts: Sequence[Part], setting: Setting, *, plan: str, start_s: float, total_s: float = TOTAL_S
) -> None:
    """Run the parts in their order, none beyond what is left of the whole."""
    ends: dict[str, End | str] = {part.name: "did not run" for part in parts}

    def save() -> None:
        keep(parts, ends, setting, plan=plan, seconds=perf_counter() - start_s)

    for part in parts:
        left_s = total_s - (perf_counter() - start_s)
        if left_s <= GRACE_S:
            ends[part.name] = f"no time left of {total_s:.0f} s"
            continue
        limit_s = min(part.limit_s, left_s)
        print(f"{part.name}: at most {limit_s:.0f} s", flush=True)
        ends[part.name] = "stopped from outside"  # which is what is kept if it is
        try:
            ends[part.name] = end = run(part, setting, limit_s)
            print(f"{tail(setting.out / f'{part.name}.log')}\n{part.name}: {end.words}", flush=True)
        finally:
            save()
    save()
    print((setting.out / "summary.md").read_text())


def keep(
    parts: Sequence[Part],
    ends: Mapping[str, End | str],
    setting: Setting,
    *,
    plan: str,
    seconds: float,
) -> None:
    """Write the summaries of what there is so far, and the archive of everything."""
    document = {
        "plan": plan,
        "device": setting.device,
        "machine": machine(),
        "until": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "parts": {name: ended(end) for name, end in ends.items()},
        "left_out_of_the_archive": [
            str(path.relative_to(setting.out)) for path in files(setting.out) if too_large(path)
        ],
    }
    write_whole(setting.out / "summary.json", json.dumps(document, indent=2) + "\n")
    write_whole(setting.out / "summary.md", summary(parts, document, setting.out))
    pack(setting.out, setting.packed)


def ended(end: End | str) -> dict[str, object]:
    if isinstance(end, str):
        return {"ended": end, "code": None, "seconds": 0.0, "limit_s": 0.0}
    return {
        "ended": end.words,
        "code": end.code,
        "seconds": round(end.seconds, 1),
        "limit_s": round(end.limit_s, 1),
    }


def pack(folder: Path, path: Path) -> None:
    """Pack the folder in one step: at every moment there is a whole archive."""
    part = path.with_name(f".{path.name}.part")
    with tarfile.open(part, "w:gz") as packed:
        for file in files(folder):
            if not too_large(file):
                packed.add(file, f"{folder.name}/{file.relative_to(folder)}")
    part.replace(path)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def too_large(file: Path) -> bool:
    return file.stat().st_size > LARGEST_BYTES


def tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
