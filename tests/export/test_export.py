import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tokensearch
from tests.runtime.operators import POLICIES, everything, host
from tests.test_files import largest_file
from tokensearch import ops
from tokensearch.errors import ExportError
from tokensearch.export import ExportCheck, Format, check_target, export, file, onnx, pt2
from tokensearch.export.file import quiet
from tokensearch.policy import Policy, Pool, Prune, PruneOrPool, Step
from tokensearch.runtime import describe

FORMATS: tuple[Format, ...] = ("onnx", "pt2")
NOTES = {"tokensearch.policy": json.dumps({"format": "tokensearch.policy"})}


def small(**changes: object) -> nn.Module:
    return tokensearch.apply(host(), Policy(describe(host()), (Prune(0, 8),)), **changes)


# What is ours in ONNX, sorting, is tried on smaller models below.
@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_operator_is_exported(format: Format, tmp_path: Path) -> None:
    path = tmp_path / f"model.{format}"

    check = export(everything(), (2, 3, 64, 64), path, format=format)

    assert check.max_abs_difference < 1e-5 < check.tolerance
    assert check.file_bytes == path.stat().st_size
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_every_operator_is_exported_for_any_number_of_images(
    format: Format, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{format}"

    check = export(everything(), (2, 3, 64, 64), path, format=format, dynamic_batch=True)

    assert check.max_abs_difference < 1e-5 < check.tolerance


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.long), "pt2"])
def test_a_file_for_any_number_of_images_is_run_on_several_numbers(
    format: Format, tmp_path: Path
) -> None:
    path = tmp_path / f"model.{format}"

    check = export(small(), (1, 3, 32, 32), path, format=format, dynamic_batch=True, notes=NOTES)

    assert check.batches == (2, 3, 1)
    assert check.max_abs_difference < 1e-5
    if format == "onnx":
        _says_its_names(path)


@pytest.mark.slow
def test_a_pt2_file_takes_torch_alone_and_holds_the_policy(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    export(small(), (2, 3, 32, 32), path, format="pt2", notes=NOTES)
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["tokensearch", "timm", "numpy", "onnx"]))
import torch
notes = {{"tokensearch.policy": ""}}
run = torch.export.load({str(path)!r}, extra_files=notes).module()
print(tuple(run(torch.zeros(2, 3, 32, 32)).shape), notes["tokensearch.policy"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"(2, 5) {NOTES['tokensearch.policy']}"


def _says_its_names(path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken, given = session.get_inputs()[0], session.get_outputs()[0]
    assert (taken.name, taken.shape) == ("images", ["batch", 3, 32, 32])
    assert (given.name, given.shape) == ("logits", ["batch", 5])
    assert session.get_modelmeta().custom_metadata_map == NOTES


@pytest.mark.slow
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", ["onnx float32", "onnx float16", "pt2 float32", "pt2 bfloat16"])
@pytest.mark.parametrize("name", POLICIES)
def test_each_operator_is_exported_by_itself(
    name: str, kind: str, *, dense: bool, tmp_path: Path
) -> None:
    policy, (format, dtype) = POLICIES[name], kind.split()
    if dense and policy.last_block == "prefix_only":
        pytest.skip("there are no patches to be dense")
    model = tokensearch.apply(host().to(getattr(torch, dtype)), policy, dense=dense)

    check = export(model, (2, 3, 32, 32), tmp_path / f"a.{format}", format=format, dense=dense)

    assert check.passed
    if dtype == "float32":
        assert check.max_abs_difference < 1e-5


class Ordering(nn.Module):
    """Everything that goes by an order of scores or similarities."""

    def forward(self, score: Tensor, metric: Tensor) -> tuple[Tensor, ...]:
        ranked = ops.rank(score, keep=20, prefix=1)
        best_first = ops.rank(score, keep=20, prefix=1, by_score=True)
        return *ranked, *best_first, *ops.match_bipartite(metric, removed=12, prefix=1)


@pytest.mark.slow
def test_clusters_by_distance_are_exported_to_onnx(tmp_path: Path) -> None:
    model = tokensearch.apply(host(), POLICIES["pool kmedoids"])

    check = export(model, (2, 3, 32, 32), tmp_path / "a.onnx", format="onnx")

    assert check.max_abs_difference < 1e-5 < check.tolerance


def test_ties_fall_alike_in_onnx(tmp_path: Path) -> None:
    import onnxruntime

    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 4, (3, 49), generator=generator).float()
    # One of few directions each, of length 1: products are exact, and most are equal.
    metric = torch.eye(4)[torch.randint(0, 4, (3, 50), generator=generator)]
    program = torch.export.export(Ordering(), (score, metric))

    with file.quiet():
        whole = torch.onnx.export(
            program, (), dynamo=True, custom_translation_table=onnx._translations()
        )
        whole.save(tmp_path / "ties.onnx")

    session = onnxruntime.InferenceSession(
        tmp_path / "ties.onnx", providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in session.get_inputs()]
    found = session.run(None, dict(zip(names, (score.numpy(), metric.numpy()), strict=True)))
    for one, other in zip(found, Ordering()(score, metric), strict=True):
        assert one.tolist() == other.tolist()


def test_dense_features_are_exported(tmp_path: Path) -> None:
    model = small(dense=True)

    export(model, (2, 3, 32, 32), tmp_path / "a.pt2", format="pt2", dense=True)

    images = torch.randn(2, 3, 32, 32)
    features = pt2.load(tmp_path / "a.pt2")(images)
    torch.testing.assert_close(features, model.forward_features(images))
    assert features.shape == (2, 17, 24)


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt2"
    path.write_bytes(b"of before")
    load = pt2.load
    broken = file._FORMATS["pt2"]._replace(load=lambda path: lambda images: load(path)(images) + 1)
    monkeypatch.setitem(file._FORMATS, "pt2", broken)

    with pytest.raises(ExportError) as raised:
        export(small(), (1, 3, 32, 32), path, format="pt2")

    assert str(raised.value).startswith(
        "the pt2 file gives other outputs than the model: they differ by up to 1, allowed is 0.0"
    )
    assert path.read_bytes() == b"of before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_finds_no_room_is_one_sentence_and_the_one_of_before_stays(
    format: Format, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{format}"
    path.write_bytes(b"of before")
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 100)).eval()

    with largest_file(10_000), pytest.raises(ExportError) as raised:
        export(model, (2, 3, 8, 8), path, format=format)

    assert str(raised.value) == f"{path} cannot be written: File too large"
    assert path.read_bytes() == b"of before"
    assert list(tmp_path.iterdir()) == [path]


class Branching(nn.Module):
    """Looks at a value, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2)) if images.mean() > 0 else images.sum((1, 2))


@pytest.mark.parametrize("format", FORMATS)
def test_what_cannot_be_exported_says_so_and_leaves_nothing(format: Format, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as raised:
        export(Branching(), (2, 3, 8, 8), tmp_path / f"a.{format}", format=format)

    message = str(raised.value)
    assert message.startswith(f"the model cannot be exported to {format}: ")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_exporters_are_quiet_and_leave_logging_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = logging.root.manager.disable

    export(small(), (1, 3, 32, 32), tmp_path / "a.pt2", format="pt2")

    assert logging.root.manager.disable == before
    assert capfd.readouterr() == ("", "")


def test_missing_packages_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None if name == "onnxruntime" else name)

    with pytest.raises(ExportError) as raised:
        check_target("onnx", torch.float32)

    assert str(raised.value) == (
        "--format onnx needs onnxruntime; pip install 'tokensearch[export]'"
    )


def test_weights_too_large_for_one_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "LIMIT_BYTES", 1000)
    program = pt2.program_of(nn.Linear(30, 30), torch.ones(1, 30), dynamic=False)

    with pytest.raises(ExportError, match="do not fit into an onnx file"):
        onnx.save(program, Path("none.onnx"), {}, output="logits", dynamic=False)


@pytest.mark.parametrize(
    ("difference", "passed"), [(0.1, True), (0.2, False), (float("nan"), False)]
)
def test_only_a_small_difference_passes(difference: float, *, passed: bool) -> None:
    check = ExportCheck("pt2", "torch", "float32", (1,), difference, 0.1, "so it is", 8)

    assert check.passed is passed


@pytest.mark.parametrize(
    "step",
    [
        Pool(0, 8),
        pytest.param(Pool(0, 8, "kmeans"), marks=pytest.mark.long),
        pytest.param(Pool(0, 8, "kmedoids"), marks=pytest.mark.long),
        pytest.param(PruneOrPool(0, 8, threshold=0.5), marks=pytest.mark.long),
    ],
    ids=str,
)
def test_an_export_of_the_users_own_computes_what_the_model_computes(
    step: Step, tmp_path: Path
) -> None:
    model, path = host(), tmp_path / "model.onnx"
    tokensearch.apply(model, Policy(describe(model), (step,)))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.no_grad(), quiet():
        torch.onnx.export(model, (images,), path, dynamo=True, input_names=["images"])
        torch.testing.assert_close(onnx.load(path)(images), model(images), rtol=1e-4, atol=1e-5)


QUICK = ("prune by random", "prune, rest fuse", "pool energy", "merger")


@pytest.mark.filterwarnings("ignore")  # torch says much about what it traces, and that it is old
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in POLICIES]
)
def test_the_older_onnx_exporter_takes_every_operator_for_batches_of_any_size(
    name: str, tmp_path: Path
) -> None:
    model, path = tokensearch.apply(host(), POLICIES[name]), tmp_path / "model.onnx"
    generator = torch.Generator().manual_seed(0)
    two, five = (torch.randn(images, 3, 32, 32, generator=generator) for images in (2, 5))
    axes, names = {"images": {0: "batch"}}, ["images"]

    with quiet():
        torch.onnx.export(model, (two,), path, dynamo=False, dynamic_axes=axes, input_names=names)

    torch.testing.assert_close(onnx.load(path)(five), model(five), rtol=1e-4, atol=1e-5)
