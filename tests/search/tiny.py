"""A ViT of 16 patch tokens and 6 blocks, and images for it: a search takes seconds."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tests.short import few_candidates, short_profiles
from tokensearch.costs.forecast import Forecast
from tokensearch.data.photos import photo_splits
from tokensearch.data.splits import Sizes, Splits
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.evaluation.latency import OtherModel
from tokensearch.measure import TimingBudget
from tokensearch.policy import Policy, block_macs, mac_share, parse_target
from tokensearch.records.measurements import Comparison, Latency
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.records.run_settings import SearchBudget, SearchSettings
from tokensearch.runtime import describe, policy_of
from tokensearch.search import SearchRun, load_space
from tokensearch.search.time_plan import TimePlan

CONFIG = {
    "input_size": (3, 32, 32),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
}


def model(**changes: object) -> nn.Module:
    """The factory that `--model tests.search.tiny:model` calls."""
    torch.manual_seed(0)
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 6}
    return VisionTransformer(**{**shape, "num_classes": 5, **changes}).eval()


def headless(**changes: object) -> nn.Module:
    """A model that returns embeddings."""
    return model(num_classes=0, **changes)


def splits() -> Splits:
    return photo_splits(data_config=CONFIG, sizes=Sizes(40, 30, 50), seed=0)


def by_macs(
    evaluator: PolicyEvaluator, policy: Policy, budget: TimingBudget, **_: object
) -> Comparison:
    """Stands in for a clock: a policy is as fast as its multiply-accumulates promise."""
    return promised(mac_share(policy))


def promised(ratio: float) -> Comparison:
    """A comparison without noise."""
    baseline, candidate = Latency((10.0,) * 12, warmup=1), Latency((10.0 * ratio,) * 12, warmup=1)
    verdict = "faster" if ratio < 1 else "same"
    return Comparison(baseline, candidate, ratio, ratio, ratio, 0.95, verdict)


class Unclocked(PolicyEvaluator):
    """Times other models by their multiply-accumulates as well."""

    def time_model(self, other: OtherModel, budget: TimingBudget) -> Comparison:
        whole, own = (
            sum(block_macs(policy_of(each) or Policy(describe(each))))
            for each in (self.model, other.module)
        )
        return promised(own / whole)

    def time_together(
        self,
        policies: Sequence[Policy],
        budget: TimingBudget,
        *,
        others: Sequence[OtherModel] = (),
        tell: Callable[[int, float], None] = lambda *_: None,
    ) -> tuple[Comparison, ...]:
        timed = (self.time(policy, budget) for policy in policies)
        return (*timed, *(self.time_model(one, budget) for one in others))


class ByMacs(SearchRun):
    """A session that knows what `by_macs` will say, short in what takes time for precision."""

    def run(self) -> RunDocument:
        with short_profiles(), few_candidates():
            return super().run()

    def evaluator(self) -> PolicyEvaluator:
        one = super().evaluator()
        return Unclocked(**{item.name: getattr(one, item.name) for item in fields(one)})

    def forecast(self, evaluator: PolicyEvaluator, plan: TimePlan) -> Forecast:
        return Forecast(mac_share, 0.01)


class Quiet:
    """Watches a search and remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.cautions: list[str] = []

    def stage(self, title: str, *, unit: str = "") -> None:
        self.stages.append(title)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, *, done: int, total: int, seconds_left: float | None, text: str) -> None:
        assert 0 <= done <= total

    def caution(self, text: str) -> None:
        self.cautions.append(text)


def session(folder: Path, *, trials: int, target: str = "1000s", seed: int = 0) -> SearchRun:
    space = load_space("default")
    settings = SearchSettings(
        model="tiny",
        checkpoint=None,
        data=None,
        target=parse_target(target),
        device="cpu",
        dtype="float32",
        batch=2,
        resolution=32,
        space=space.name,
        space_digest=space.digest,
        sampler="local",
        seed=seed,
    )
    limits = SearchBudget(trials=trials, seconds=600.0)
    return ByMacs(
        model(), splits(), space, settings, limits, RunFolder(folder), Quiet(), "tokensearch run"
    )
