"""The geometry of a model by name, without its weights."""

from tokensearch.policy import ModelSpec


def spec_of(name: str) -> ModelSpec:
    """Return what policies must know of a model that the user typed; nothing is downloaded."""
    from tokensearch.models import resolve, skeleton
    from tokensearch.runtime import describe

    full = resolve(name)
    return describe(skeleton(full), name=full)
