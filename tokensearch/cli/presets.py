"""`tokensearch presets`."""

from typing import Any

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import DEMO, JsonOption, ModelOption
from tokensearch.policy import PRESETS, ModelSpec, Policy, mac_share


def presets(model: ModelOption = DEMO, as_json: JsonOption = False) -> None:
    """List the published schedules, and what each leaves of a model's tokens and work."""
    from tokensearch.cli.geometry import spec_of

    spec = spec_of(model)
    if as_json:
        print_json([_document(name, policy) for name, policy in _policies(spec)])
        return
    _print(spec)


def _policies(spec: ModelSpec) -> list[tuple[str, Policy | None]]:
    """Every preset by name, None where it does not fit."""
    return [
        (name, chosen.build(spec) if chosen.fits(spec) else None)
        for name, chosen in PRESETS.items()
    ]


def _document(name: str, policy: Policy | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": name,
        "fits": policy is not None,
        "source": PRESETS[name].source,
        "summary": PRESETS[name].summary,
    }
    if policy is not None:
        facts["patch_tokens_per_block"] = list(policy.patch_tokens_per_block)
        facts["mac_share"] = mac_share(policy)
    return facts


def _print(spec: ModelSpec) -> None:
    from tokensearch.report import tables
    from tokensearch.report.grid import to_rich

    out.print(tables.model_line(spec))
    out.print(to_rich(tables.preset_table(_policies(spec))))
    out.print(tables.random_note())
