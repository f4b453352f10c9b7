"""The geometry of a model by name, without its weights."""

from tokensearch.policy import ModelSpec


def spec_of(name: str) -> ModelSpec:
    """Return what policies must know of the model `name`; nothing is downloaded for it."""
    from tokensearch.models import resolve, skeleton
    from tokensearch.runtime import describe

    return describe(skeleton(name), name=resolve(name))
