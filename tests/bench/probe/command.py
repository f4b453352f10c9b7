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

# The quickest first, and what may be cut short last.
SECTIONS: dict[str, Section] = {
    "machine": machine,
    "nvml": nvml,
    "launches": launches,
    "stamps": stamps,
    "ceilings": ceilings,
    "traces": traces,
    "first calls": first_calls,
    "passes": passes,
    "attention": attention,
}


def main(arguments: list[str]) -> None:
    """Print each section as it ends."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench probe", description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--within", type=float, default=60.0, help="seconds for all measurements")
    parser.add_argument("--out", type=Path, default=None, help="file, rewritten all along")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    options = parser.parse_args(arguments)
    notes, device = Notes(options.out, options.within), torch.device(options.device)
    torch.manual_seed(0)
    for name in options.sections:
        with torch.inference_mode():
            notes.take(name, SECTIONS[name], device)
        found = json.dumps(notes.document[name], indent=1, default=str)
        print(f"{name}: {found}", flush=True)
