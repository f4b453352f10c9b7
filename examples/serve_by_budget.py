"""A web service that answers within the caller's budget: more time, more tokens.

    uvicorn --factory examples.serve_by_budget:demo_app
    curl --data-binary @cat.jpg 'localhost:8000/classify?budget=0.6x'

Policies are those of a finished run, timed on this machine (`tokensearch calibrate` times them
anew). Needs fastapi and uvicorn.
"""

import copy
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from fastapi import FastAPI, HTTPException, Request
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

import tokensearch
from tokensearch.errors import TokensearchError
from tokensearch.policy import Policy


def make_app(model: nn.Module, front: Path, transform: Callable[[Image.Image], Tensor]) -> FastAPI:
    """Return a service of one model under the policies of a front."""
    policies = tokensearch.load_set(front)

    @cache
    def under(policy: Policy) -> nn.Module:
        """Return a model that follows a policy for good."""
        weights = {id(value): value for value in model.parameters()}  # which all copies share
        return tokensearch.apply(copy.deepcopy(model, weights), policy)

    app = FastAPI()

    @app.post("/classify")
    async def classify(request: Request, budget: str) -> dict[str, object]:
        try:
            policy = policies.best(latency=budget)
        except TokensearchError as error:  # no budget, or one that no policy keeps
            raise HTTPException(422, str(error)) from error
        image = transform(Image.open(io.BytesIO(await request.body())).convert("RGB"))
        with torch.inference_mode():
            logits = under(policy)(image[None])
        return {"class": int(logits.argmax()), "tokens": policy.patch_tokens_per_block}

    return app


def demo_app() -> FastAPI:
    """Serve the bundled model under the policies of `tokensearch run`."""
    from tokensearch.demo.model import demo_model

    model = demo_model()
    transform = create_transform(**resolve_data_config(model=model))
    return make_app(model, Path("runs/demo-cpu-0.5x/front.json"), transform)
