"""The smaller model that a search is compared with, if one is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tokensearch.cli.inputs import EvaluationInputs, check_forward
from tokensearch.errors import ModelError
from tokensearch.policy import EMBEDDING_OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from tokensearch.search.finalists.alternatives import AlternativeModel


def check_smaller_model(name: str | None, checkpoint: Path | None) -> None:
    """Refuse weights that are of no model, or are not there."""
    if checkpoint is None:
        return
    if name is None:
        raise typer.BadParameter("--smaller-checkpoint needs --smaller, the model it is for")
    if not checkpoint.exists():
        raise ModelError(f"checkpoint {checkpoint} does not exist")


def load_smaller_model(
    subject: EvaluationInputs, name: str | None, checkpoint: Path | None
) -> "AlternativeModel | None":
    """Load the model of `--smaller`, with its weights, as `--model` is loaded.

    Raises:
        ModelError: It cannot be loaded or run, or knows other classes.
    """
    if name is None:
        return None
    if subject.objective in EMBEDDING_OBJECTIVES:
        raise typer.BadParameter(
            f"--smaller is {name}, whose embeddings are of a space of their own, so that nothing "
            f"compares them with those of {subject.name}; leave it out, or take weights with a head"
        )
    from tokensearch.data.pixels import Preprocessing
    from tokensearch.models import load_model, resolve_model
    from tokensearch.search.finalists.alternatives import smaller_model

    loaded = load_model(resolve_model(name), checkpoint=checkpoint)
    own = _data_config(loaded.module, loaded.data_config, subject.data_config)
    parameter = next(subject.model.parameters())
    module = loaded.module.to(device=parameter.device, dtype=parameter.dtype)
    smaller = smaller_model(
        name,
        module,
        given=Preprocessing.of(subject.data_config),
        own=Preprocessing.of(own),
    )
    _check_classes(subject, smaller)
    return smaller


def _data_config(
    module: "nn.Module", own: "Mapping[str, object]", given: "Mapping[str, object]"
) -> "Mapping[str, object]":
    """Return how the smaller model's images are prepared, `own` being timm's word for it.

    What has no configuration, as a factory's model, sees what the other model sees, in its size.
    """
    config = own if getattr(module, "pretrained_cfg", None) else given
    size: Any = getattr(getattr(module, "patch_embed", None), "img_size", None)
    return config if size is None else {**config, "input_size": (3, *size)}


def _check_classes(subject: EvaluationInputs, smaller: "AlternativeModel") -> None:
    """See on two images whether it is steady and knows as many classes; ModelError if not."""
    import torch

    from tokensearch.accuracy.determinism import check_deterministic

    parameter = next(subject.model.parameters())
    images, _ = next(subject.splits.search.batches(2))
    own = smaller.prepare(images).to(parameter.device, parameter.dtype)
    check_forward(smaller.name, smaller.module, own)
    check_deterministic(smaller.module, own, name=smaller.name)
    with torch.inference_mode():
        theirs, ours = (
            logits.shape[1]
            for logits in (
                smaller.module(own),
                subject.model(images.to(parameter.device, parameter.dtype)),
            )
        )
    if theirs != ours:
        raise ModelError(
            f"the smaller model {smaller.name} knows {theirs} classes and {subject.name} {ours}; "
            "it must know the same ones"
        )
