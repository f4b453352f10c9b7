"""What makes a model another one, and what does not."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.search import tiny
from tokensearch.accuracy.model_identity import model_identity
from tokensearch.records.run_result import ModelIdentity

HOLDERS = """
import torch
from timm.models.vision_transformer import VisionTransformer

SCALE = 2.0


def doubled(x):
    return SCALE * x


class Own(VisionTransformer):
    def forward_head(self, x, pre_logits=False):
        return doubled(super().forward_head(x, pre_logits))


def model():
    torch.manual_seed(0)
    found = Own(img_size=32, patch_size=8, embed_dim=24, num_heads=3, depth=2, num_classes=5)
    found.twist = lambda x: x * 3.0
    return found.eval()
"""

# What a process finds: of a model, of the same after an edit of its code, and of a set of classes.
PRINTED = """
import sys
from pathlib import Path
from tests.search import tiny
from tokensearch.accuracy.model_identity import model_identity

file = Path("holders.py")
for source in (file.read_text(), file.read_text().replace("SCALE = 2.0", "SCALE = 2.5")):
    Path("{folder}", "holders.py").write_text(source)
    sys.modules.pop("holders", None)
    sys.path.insert(0, "{folder}")
    import holders
    print(model_identity(holders.model()))
kinds = [type(f"Kind{{i}}", (), {{"__module__": "made", "width": i}}) for i in range(20)]
model = tiny.model()
model.kinds = set(kinds[::{step}])
print(model_identity(model))
"""


def changed(change: Callable[[Any], object]) -> set[str]:
    """Which parts of the identity another model of the same weights differs in."""
    one, other = tiny.model(), tiny.model()
    change(other)
    return differing(model_identity(one), model_identity(other))


def differing(one: ModelIdentity, other: ModelIdentity) -> set[str]:
    found = {name for name in one.__slots__ if getattr(one, name) != getattr(other, name)}
    assert (one.digest != other.digest) == bool(found)
    return found


def set_heads(model: Any) -> None:
    for block in model.blocks:
        block.attn.num_heads, block.attn.head_dim = 12, 2
        block.attn.scale = 2**-0.5


def set_relu(model: Any) -> None:
    for block in model.blocks:
        block.mlp.act = nn.ReLU()


def scaled_head(model: Any, scale: float) -> None:
    def forward_head(x: Tensor, **_: Any) -> Tensor:
        return scale * VisionTransformer.forward_head(model, x)

    model.forward_head = forward_head


def test_two_models_made_alike_are_one() -> None:
    assert changed(lambda model: None) == set()


@dataclass(frozen=True, slots=True)
class Twist:
    times: float


def test_a_field_in_a_slot_counts() -> None:
    one, other = tiny.model(), tiny.model()
    one.twist, other.twist = Twist(1.0), Twist(2.0)

    assert differing(model_identity(one), model_identity(other)) == {"architecture"}


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (set_heads, "architecture"),
        (set_relu, "architecture"),
        (lambda model: setattr(model.blocks[2].norm1, "eps", 1e-3), "architecture"),
        (lambda model: setattr(model.blocks[2].attn, "fused_attn", False), "architecture"),
        (lambda model: model.blocks[2].train(), "architecture"),
        (lambda model: setattr(model, "global_pool", "avg"), "architecture"),
        (lambda model: setattr(model, "notes", [1, {"two": (3,)}]), "architecture"),
        (lambda model: model.head.weight.data.mul_(2), "weights"),
        (lambda model: model.register_buffer("mask", torch.ones(3), persistent=False), "weights"),
        (lambda model: model.double(), "weights"),
    ],
)
def test_what_changes_answers_changes_the_identity(
    change: Callable[[Any], object], part: str
) -> None:
    assert part in changed(change)


def test_a_value_that_no_state_dict_holds_counts() -> None:
    one, other = tiny.model(), tiny.model()
    for model, value in ((one, 1.0), (other, 2.0)):
        model.register_buffer("mask", torch.full((3,), value), persistent=False)

    assert differing(model_identity(one), model_identity(other)) == {"weights"}


@pytest.mark.parametrize(
    "patch",
    [
        scaled_head,
        lambda model, scale: setattr(model, "twist", lambda x: x * scale),
        lambda model, scale: setattr(model, "twist", partial(torch.mul, scale)),
        lambda model, scale: model.register_forward_hook(lambda *args: args[-1] * scale),
        lambda model, scale: model.head.register_forward_pre_hook(
            lambda _, args: (args[0] * scale,)
        ),
    ],
)
def test_a_function_put_on_a_model_counts_with_its_constants(
    patch: Callable[[Any, float], object],
) -> None:
    one, same, other = tiny.model(), tiny.model(), tiny.model()
    for model, scale in ((one, 2.0), (same, 2.0), (other, 3.0)):
        patch(model, scale)

    assert differing(model_identity(one), model_identity(same)) == set()
    assert differing(model_identity(one), model_identity(other))
    assert differing(model_identity(one), model_identity(tiny.model()))


def test_a_lambda_with_another_constant_is_another() -> None:
    one, other = tiny.model(), tiny.model()
    one.twist, other.twist = (lambda x: x * 2.0), (lambda x: x * 3.0)

    assert differing(model_identity(one), model_identity(other)) == {"code"}


def test_a_method_put_on_a_class_of_timm_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_identity(tiny.model())

    def forward_head(self: Any, x: Tensor, **_: Any) -> Tensor:
        return self.head(x.mean(dim=1))

    monkeypatch.setattr(VisionTransformer, "forward_head", forward_head)

    assert differing(before, model_identity(tiny.model())) == {"code"}


def test_where_weights_came_from_does_not_count() -> None:
    assert changed(lambda model: setattr(model, "pretrained_cfg", {"file": "a.pth"})) == set()


def test_what_is_held_twice_or_holds_itself_ends() -> None:
    model: Any = tiny.model()
    model.notes = {"model": model, "again": [model.blocks[0]]}
    model.notes["self"] = model.notes

    assert model_identity(model).digest


def printed(folder: Path, step: int) -> list[str]:
    """The identities that another process finds, with hashes of its own."""
    (folder / "holders.py").write_text(HOLDERS)
    edited = folder / str(abs(step - 1))
    edited.mkdir()
    done = subprocess.run(
        [sys.executable, "-B", "-c", PRINTED.format(folder=edited, step=step)],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONHASHSEED": str(step + 2)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
def test_every_process_finds_the_same_and_an_edit_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)

    first, again = printed(tmp_path, 1), printed(tmp_path, -1)

    assert len(first) == 3
    assert first == again
    before, edited = (set(found.split()) for found in first[:2])
    assert {word.partition("=")[0] for word in before ^ edited} == {"code"}


@pytest.mark.parametrize("cached", ["", "@functools.cache\n"])
def test_an_edit_is_seen_behind_two_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: str
) -> None:
    deep = tmp_path / "deep_of_two.py"
    deep.write_text(f"import functools\n{cached}def doubled(x):\n    return 2.0 * x\n")
    (tmp_path / "first_of_two.py").write_text("from deep_of_two import doubled\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("deep_of_two", "first_of_two"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    model = tiny.model()
    model.helpers = importlib.import_module("first_of_two")
    first = model_identity(model)
    deep.write_text(deep.read_text().replace("2.0", "2.5"))

    assert differing(first, model_identity(model)) == {"code"}


@pytest.mark.parametrize(
    "weights",
    [
        lambda scale: (scale * torch.eye(3)).to_sparse(),
        lambda scale: (scale * torch.eye(3)).to_sparse_csr(),
        lambda scale: torch.quantize_per_tensor(scale * torch.eye(3), 0.1, 0, torch.qint8),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of layouts to come and to go
def test_values_of_sparse_and_quantized_weights_count(weights: Callable[[float], Tensor]) -> None:
    found = []
    for scale in (1.0, 1.0, 2.0):
        model = tiny.model()
        model.register_buffer("more", weights(scale))
        found.append(model_identity(model))

    assert differing(found[0], found[1]) == set()
    assert differing(found[0], found[2]) == {"weights"}


def test_a_function_of_torch_in_the_place_of_another_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = model_identity(tiny.model())
    monkeypatch.setattr(nn.functional, "gelu", nn.functional.relu)

    assert differing(before, model_identity(tiny.model())) == {"code"}


def quantised(scale: float) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with torch.no_grad():
        layers[0].weight.mul_(scale)
    return torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_packed_weights_of_quantised_layers_count() -> None:
    assert model_identity(quantised(1.0)) == model_identity(quantised(1.0))
    assert model_identity(quantised(1.0)) != model_identity(quantised(2.0))
