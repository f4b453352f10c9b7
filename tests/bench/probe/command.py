"""What a machine is, before anything of ours is run on it.

    python -m tests.bench probe [--device cuda] [--within 30] [--out FILE] [--sections NAME ...]

Versions, NVML's view, real ceilings, prices of launches and stamps, kernels that a trace sees, and
who attends and how fast. Each measurement stands alone: one that fails is its error, in a line.
"""

import argparse
import json
from pathlib import Path

import torch

from tests.bench.probe.attention import attention, first_calls
from tests.bench.probe.launches import launches, stamps
from tests.bench.probe.machine import machine, nvml
from tests.bench.probe.models import ceilings, passes
from tests.bench.probe.notes import Notes, Section
from tests.bench.probe.traces import traces

# The quickest first. A profiler slows down what comes after it, so it comes last, and the section
# before it, which may be cut short, leaves it its time.
RESERVED_S = 6.0
SECTIONS: dict[str, Section] = {
    "machine": machine,
    "nvml": nvml,
    "launches": launches,
    "stamps": stamps,
    "ceilings": ceilings,
    "first calls": first_calls,
    "passes": passes,
    "attention": attention,
    "traces": traces,
}


def main(arguments: list[str]) -> None:
    """Print each section as it ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench probe", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--within", type=float, default=60.0, help="seconds for all measurements")
    parser.add_argument("--out", type=Path, default=None, help="file, rewritten all along")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    options = parser.parse_args(arguments)
    notes, device = Notes(options.out), torch.device(options.device)
    torch.manual_seed(0)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # whose streams events are recorded on
    for name in options.sections:
        reserved_s = 0.0 if name == "traces" else RESERVED_S
        with torch.inference_mode():
            notes.take(name, SECTIONS[name], device, until_s=options.within - reserved_s)
        found = json.dumps(notes.document[name], indent=1, default=str)
        print(f"{name}: {found}", flush=True)
