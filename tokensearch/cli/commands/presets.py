"""`tokensearch presets`."""

from typing import Any

from tokensearch.cli.console import out, print_json
from tokensearch.cli.options import (
    DEMO,
    ImgSizeOption,
    JsonOption,
    ModelKwargsOption,
    ModelOption,
    RescaleOption,
    read_options,
)
from tokensearch.errors import PolicyError
from tokensearch.policy import PRESETS, ModelSpec, Policy, block_macs, mac_share, preset


def presets(
    model: ModelOption = DEMO,
    img_size: ImgSizeOption = None,
    model_kwargs: ModelKwargsOption = None,
    rescale: RescaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the published schedules, and what each leaves of a model's tokens and work."""
    from tokensearch.cli.inputs import spec_of_model

    spec = spec_of_model(model, read_options(img_size, model_kwargs))
    policies = {name: _built(name, spec, rescale=rescale) for name in PRESETS}
    if as_json:
        print_json([_document(name, policy) for name, policy in policies.items()])
        return
    _print(spec, policies, rescale=rescale)


def _built(name: str, spec: ModelSpec, *, rescale: bool) -> Policy | None:
    """The preset for this model, None if it cannot be had."""
    try:
        return preset(name, spec, rescale=rescale)
    except PolicyError:  # made for another model, or a grid that this one has not
        return None


def _document(name: str, policy: Policy | None) -> dict[str, Any]:
    chosen = PRESETS[name]
    facts: dict[str, Any] = {
        "name": name,
        "fits": policy is not None,
        "made_for": {"blocks": chosen.blocks, "patch_tokens": chosen.patch_tokens},
        "source": chosen.source,
        "summary": chosen.summary,
    }
    if policy is not None:
        facts["rescaled"] = "rescaled" in policy.provenance
        facts["patch_tokens_per_block"] = list(policy.patch_tokens_per_block)
        facts["macs"] = sum(block_macs(policy))
        facts["mac_share"] = mac_share(policy)
    return facts


def _print(spec: ModelSpec, policies: dict[str, Policy | None], *, rescale: bool) -> None:
    from tokensearch.report.presets import notes, preset_table
    from tokensearch.report.run.tables import model_line, random_note
    from tokensearch.report.table import table_to_rich

    out.print(model_line(spec))
    out.print(
        table_to_rich(preset_table({name: p for name, p in policies.items() if p is not None}))
    )
    for note in notes(policies, rescale=rescale):
        out.print(note)
    out.print(random_note())
    if spec.prefix_tokens == 0:
        out.print(_NO_CLASS_TOKEN)


_NO_CLASS_TOKEN = (
    "Without a class token, presets that score by class attention cannot be applied; "
    'tokensearch.preset(NAME, model, score="mean_attention") gives ones that can.'
)
