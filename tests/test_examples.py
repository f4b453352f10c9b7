"""The examples do what they say, each on a tiny model."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

import tokensearch
from tests.search import tiny
from tokensearch.policy import Evidence, Policy, PolicySet, Prune, save_set
from tokensearch.runtime import describe

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*unclosed file:ResourceWarning"),  # of timm's data sets
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def pictures(folder: Path) -> Path:
    """Two classes of four pictures."""
    generator = torch.Generator().manual_seed(0)
    for kind in range(2):
        (folder / f"class{kind}").mkdir(parents=True)
        for number in range(4):
            pixels = torch.randint(0, 255, (32, 32, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"class{kind}" / f"{number}.png")
    return folder


def timed(policy: Policy, *, ms: float, top1: float) -> Policy:
    evidence = Evidence(
        cell={"batch": 1},
        latency={"median_ms": ms},
        accuracy={"top1": top1},
        baseline={"median_ms": 10.0},
        confirmed=True,
    )
    return policy.with_evidence(evidence)


@pytest.mark.filterwarnings("ignore::tokensearch.errors.TokensearchWarning")
def test_a_service_takes_the_policy_that_the_budget_allows(tmp_path: Path) -> None:
    testclient = pytest.importorskip(
        "fastapi.testclient", reason="the service needs fastapi and httpx (group hosts)"
    )
    from examples.serve_by_budget import make_app

    model = tiny.model()
    whole, half = Policy(describe(model)), Policy(describe(model), (Prune(1, 8),))
    save_set(
        PolicySet((timed(whole, ms=10, top1=0.9), timed(half, ms=6, top1=0.8))),
        tmp_path / "front.json",
    )
    app = make_app(model, tmp_path / "front.json", lambda image: pil_to_tensor(image) / 255)
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(picture, "png")
    client = testclient.TestClient(app)

    def ask(budget: str) -> tuple[int, dict[str, object]]:
        answer = client.post("/classify", params={"budget": budget}, content=picture.getvalue())
        return answer.status_code, answer.json()

    assert [ask(budget)[1]["tokens"] for budget in ("20ms", "7ms")] == [
        [16] * 6,
        list(half.patch_tokens_per_block),
    ]
    status, said = ask("1ms")
    assert status == 422
    assert "no policy" in str(said["detail"])
    assert ask("soon")[0] == 422


def test_a_frozen_backbone_keeps_its_features_where_nothing_is_dropped(tmp_path: Path) -> None:
    from examples.frozen_backbone import main

    backbone = tiny.headless()
    backbone.pretrained_cfg = tiny.CONFIG
    folder = pictures(tmp_path / "images")

    assert main(backbone, folder, "none") == (pytest.approx(1), 1)
    cosine, _ = main(backbone, folder, "topk-0.5")
    assert 0.5 < cosine < 1 - 1e-6


def test_a_dataset_of_ones_own_is_judged_on_disjoint_images() -> None:
    from examples.own_dataset import judge, make_splits

    model = tiny.model(num_classes=2)
    policy = Policy(describe(model), (Prune(1, 8),))

    scored = judge(model, policy, 32)

    assert (scored.accuracy.images, scored.accuracy.split) == (16, "report")
    splits = make_splits(32)
    assert not torch.equal(splits.search.dataset[0][0], splits.report.dataset[0][0])
    assert len({splits.of(purpose).digest for purpose in ("search", "select", "report")}) == 3


def test_a_score_of_ones_own_keeps_what_stands_out() -> None:
    from examples.own_operator import contrast, make_policy

    tokensearch.add_score("contrast", contrast)
    model, images = tiny.model(), torch.randn(1, 3, 32, 32)
    model.patch_embed.proj.weight.data *= 10  # so that patches matter more than positions
    images[..., :8, :8] = 50.0
    policy = make_policy(model)

    kept = tokensearch.trace(tokensearch.apply(model, policy), images)[-1][0] >= 0

    assert (int(kept.sum()), bool(kept[0])) == (8, True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model under a policy, as a file."""
    pytest.importorskip("onnxscript", reason="exports need the extra export")
    from tokensearch.export import export

    model = tiny.model()
    tokensearch.apply(model, Policy(describe(model), (Prune(1, 8),)))
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    export(model, (2, 3, 32, 32), path, format="onnx")
    return path


@pytest.mark.long
@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
def test_an_exported_policy_runs_without_torch(exported: Path, library: str) -> None:
    pytest.importorskip(library, reason=f"inference in {library} needs its package")
    from examples import onnx_inference

    model, images = tiny.model(), torch.randn(2, 3, 32, 32)
    policy = Policy(describe(model), (Prune(1, 8),))
    with torch.inference_mode():
        expected = tokensearch.apply(model, policy)(images)

    found = getattr(onnx_inference, f"run_{library}")(exported, images.numpy())

    assert onnx_inference.shape_of(exported) == [2, 3, 32, 32]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)
