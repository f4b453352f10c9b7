"""The probe's document as people read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.gpu.shown import read_json, table

KERNELS = ("default_us", "flash_us", "efficient_us", "cudnn_us", "math_us", "widened_us", "wide_us")


def show_probe(path: Path) -> list[str]:
    """Card and versions in a sentence, attention as a table, the rest as a list."""
    found = dict(read_json(path))
    lines = [card(found.pop("machine", {}), found.get("nvml", {})), ""]
    cells = found.pop("attention", {})
    for section, values in found.items():
        lines += [f"### {section}", "", *listed(values), ""]
    return [*lines, "### attention", "", *attention_table(cells)]


def card(machine: Mapping[str, Any], nvml: Mapping[str, Any]) -> str:
    gpu, host, packages = (machine.get(name, {}) for name in ("gpu", "host", "packages"))
    name = gpu.get("name", "no GPU") if isinstance(gpu, Mapping) else gpu
    known = [f"{package} {number}" for package, number in packages.items() if number]
    settings = machine.get("settings", {})
    return (
        f"**{name}**, driver {nvml.get('driver', 'unknown')}, CUDA {settings.get('cuda')}, "
        f"cuDNN {settings.get('cudnn')}; {host.get('processor')}, {host.get('cores')} cores; "
        f"Python {host.get('python')}, {', '.join(known)}."
    )


def listed(values: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {value(one)}" for name, one in values.items()] or ["- nothing"]


def value(found: Any) -> str:
    """A figure short, whatever it is made of."""
    match found:
        case float():
            return f"{found:.4g}"
        case dict():
            return ", ".join(f"{name} {value(one)}" for name, one in found.items())
        case list() if found and isinstance(found[0], dict):
            return "; ".join(value(one) for one in (found[0], found[-1]))
        case list():
            return " ".join(value(one) for one in found)
        case _:
            return str(found)


def attention_table(cells: Mapping[str, Any]) -> list[str]:
    """A row per cell, microseconds a call; a kernel that refuses is a dash."""
    whole = {name: found for name, found in cells.items() if isinstance(found, Mapping)}
    rows = [
        (
            name,
            found["choice"],
            *(short(found.get(kernel)) for kernel in KERNELS),
            found.get("choice_cudnn_last"),
        )
        for name, found in whole.items()
    ]
    lines = table(("cell", "takes", *KERNELS, "takes with cuDNN last"), rows)
    return [*lines, "", *listed({n: f for n, f in cells.items() if n not in whole})]


def short(found: Any) -> str:
    return f"{found:.1f}" if isinstance(found, float) else "-"
