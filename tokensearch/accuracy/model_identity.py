"""Which model it is, by what it computes: weights, architecture, code, and the versions beneath."""

import hashlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tokensearch.records.run_result import ModelIdentity

# What a version number stands for; the code of anything else is read.
_RELEASED = {
    *("torch", "timm", "tokensearch", "numpy", "torchvision", "huggingface_hub", "transformers"),
}
_PACKAGES = ("torch", "timm", "tokensearch")
_PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
_SHOWN = (torch.dtype, torch.device, torch.Size, Enum, PurePath, slice, range)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# Of every module, and handled by name; or told of where weights came from, which are hashed.
_INTERNAL = {*vars(nn.Module()), "pretrained_cfg", "default_cfg"}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
# What transformers leaves on `torch.nn.Module` once it has drawn the weights of a model. Torch and
# timm call nothing of that name, and models made beside that one would be others than before.
_LEFT_BEHIND = {"smart_apply"}
# Loggers, locks and threads hold the whole process; these two are records of settings.
_OUTER = sys.stdlib_module_names - {"types", "argparse"}
_DEPTH = 8  # of values within values; what lies deeper does not say how a model computes


def model_identity(model: nn.Module) -> ModelIdentity:
    """Say which model it is, alike in every process.

    weights       every parameter and buffer by name, those that no state dict holds as well:
                  number type, shape, bits
    architecture  the tree of modules: classes, `extra_repr`, train or eval mode, and every
                  attribute of an instance: numbers (`num_heads`, `scale`, `eps`, `fused_attn`),
                  functions and objects put on it, forward hooks. Not `pretrained_cfg`
    code          of classes and functions among these that are not torch's, timm's or ours: the
                  source files, byte code, defaults, closures, and the plain values and functions of
                  their module that they use; functions of others put on classes of timm; functions
                  of torch and torch.nn.functional that stand under the name of another
    versions      torch, timm, tokensearch, and transformers where the model is of theirs

    Preprocessing, images, number type and device decide predictions as well. They are stored beside
    the identity. It is taken of a model that follows no policy.

    It does not see what stands outside the model and the modules of its code: state of a process
    (environment, random generators, flags of torch), files that code reads, compiled extensions,
    globals of torch or timm but for the above, what lies deeper than eight values within another,
    and fields of objects whose class is the standard library's. Stored predictions are therefore
    compared with a fresh pass over some images before they are used.
    """
    reader = _Reader()
    architecture = _sha(reader.module(model))
    for module in (torch, functional):
        reader.code += [f"{name}: {reader.value(value)}" for name, value in _replaced(module)]
    return ModelIdentity(
        _weights(model), architecture, _sha("\n".join(reader.code)), _versions(model)
    )


def _weights(model: nn.Module) -> str:
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    named = sorted(tensors, key=lambda pair: pair[0])
    parts = [f"{name} {_tensor(value)}" for name, value in named]
    known = {name for name, _ in named}
    for name, value in sorted(model.state_dict().items()):  # packed weights of quantised layers
        if name not in known:
            parts.append(f"{name} {_packed(value)}")
    return _sha("\n".join(parts))


def _packed(value: Any) -> str:
    """Text of what a state dict holds beside tensors."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return f"[{', '.join(map(_packed, value))}]"
    if isinstance(value, nn.Parameter):
        value = value.detach()
    return _flat(value) or f"{type(value).__qualname__} {uuid4()}"  # unread: equal to nothing


def _versions(model: nn.Module) -> str:
    versions = []
    theirs = any(type(part).__module__.startswith("transformers.") for part in model.modules())
    for package in (*_PACKAGES, *(("transformers",) if theirs else ())):
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return ", ".join(versions)


class _Reader:
    """Turns what a model is made of into text; what is met again is named by its first place."""

    def __init__(self) -> None:
        self.code: list[str] = []
        self._met: dict[int, tuple[int, object]] = {}  # objects are held, or ids would come again
        self._files: set[str] = set()

    def module(self, module: nn.Module) -> str:
        """Text of a module and all below it."""
        if (reference := self._again(module)) is not None:
            return reference
        parts = [
            self._class(type(module)),
            _ADDRESS.sub("", module.extra_repr()),
            f"training={module.training}",
        ]
        own = {name: value for name, value in vars(module).items() if name not in _INTERNAL}
        parts += [f"{name}={self.value(own[name])}" for name in sorted(own)]
        for hooks in _HOOKS:
            parts += [f"{hooks}: {self.value(hook)}" for hook in getattr(module, hooks).values()]
        for name, child in module._modules.items():
            parts.append(f"{name}: {'None' if child is None else self.module(child)}")
        return "(" + "\n".join(parts) + ")"

    def value(self, value: object, depth: int = 0) -> str:
        """Text of anything that an attribute may hold."""
        if (text := _flat(value)) is not None:
            return text
        if isinstance(value, nn.Module):
            return self.module(value)
        if isinstance(value, ModuleType):
            return self._file_of(value.__name__)
        if isinstance(value, type):
            return self._class(value)
        if depth >= _DEPTH:
            return type(value).__qualname__
        # Equal constants may be one object here and two there: only what can change is named so.
        if not isinstance(value, tuple | frozenset) and (named := self._again(value)) is not None:
            return named
        return self._callable(value, depth + 1) or self._held(value, depth + 1)

    def _held(self, value: Any, depth: int) -> str:
        """Text of a collection, or of any other object by its fields."""
        kind = type(value).__qualname__
        if isinstance(value, Mapping):
            pairs = ((self.value(k, depth), self.value(v, depth)) for k, v in value.items())
            return f"{kind}{sorted(pairs)}"
        if isinstance(value, Set):
            return f"{kind}{[self.value(one, depth) for one in sorted(value, key=_place)]}"
        if isinstance(value, Sequence):
            return f"{kind}{[self.value(one, depth) for one in value]}"
        if type(value).__module__.partition(".")[0] in _OUTER:
            return kind
        fields = sorted({**getattr(value, "__dict__", {}), **_slots(value)}.items())
        return f"{self._class(type(value))}{[(n, self.value(v, depth)) for n, v in fields]}"

    def _callable(self, value: Any, depth: int) -> str | None:
        """Text of a function of whatever kind; None of what is none."""
        if isinstance(value, partial):
            return f"partial {self.value((value.func, value.args, value.keywords), depth)}"
        if isinstance(value, MethodType):
            return f"method {self.value((value.__func__, value.__self__), depth)}"
        if isinstance(value, staticmethod | classmethod):
            return self.value(value.__func__, depth)
        if isinstance(value, property):
            return f"property {self.value((value.fget,), depth)}"
        if isinstance(value, FunctionType):
            return self._function(value, depth)
        if inspect.isroutine(value):
            return (
                f"{value.__module__}.{value.__qualname__}"
                if value.__module__
                else repr(type(value))
            )
        return None

    def _function(self, function: FunctionType, depth: int) -> str:
        name = f"{function.__module__}.{function.__qualname__}"
        cells = [_cell(each) for each in function.__closure__ or ()]
        bound = self.value((cells, function.__defaults__, function.__kwdefaults__), depth)
        if _is_released(function.__module__):
            return f"{name} {bound}"
        self._file_of(function.__module__)
        self.code.append(f"{name} {bound} {_code(function.__code__)}")
        if not _is_installed(function.__code__.co_filename):
            used = {
                global_name for code in _codes(function.__code__) for global_name in code.co_names
            }
            for global_name in sorted(used & function.__globals__.keys()):
                self.code.append(
                    f"{global_name}={self._global(function.__globals__[global_name], depth)}"
                )
        return name

    def _global(self, value: object, depth: int) -> str:
        """Text of what a function finds in its module; of objects the class, for they live on."""
        kinds = (*_PLAIN, *_SHOWN, Tensor, np.ndarray, FunctionType, partial, type, ModuleType)
        if isinstance(value, (*kinds, tuple, list, dict, set, frozenset)):
            return self.value(value, depth)
        return type(value).__qualname__

    def _class(self, kind: type) -> str:
        """Name of a class, whose code and that of its bases is noted when it is first met."""
        name = f"{kind.__module__}.{kind.__qualname__}"
        if self._again(kind) is not None:
            return name
        for base in kind.__mro__:
            for member, value in sorted(vars(base).items()) if self._first(base, kind) else ():
                self._member(base, member, value)
        return name

    def _first(self, base: type, kind: type) -> bool:
        return base is kind or self._again(base) is None

    def _member(self, owner: type, name: str, value: Any) -> None:
        inner = getattr(value, "__func__", getattr(value, "fget", value))
        if _is_released(owner.__module__):  # then only what others put there
            others = isinstance(inner, FunctionType) and not _is_released(inner.__module__)
            if others and name not in _LEFT_BEHIND:
                self.code.append(f"{owner.__qualname__}.{name}: {self.value(inner)}")
            return
        self._file_of(owner.__module__)
        if isinstance(inner, (*_PLAIN, Tensor, FunctionType, partial, tuple)) and name != "__doc__":
            self.code.append(f"{owner.__qualname__}.{name}: {self.value(inner)}")

    def _file_of(self, module: str) -> str:
        """Name of a Python module, whose source is noted when it is first met."""
        if not _is_released(module) and module not in self._files:
            self._files.add(module)
            loaded = sys.modules.get(module)
            file = getattr(loaded, "__file__", None)
            with suppress(OSError, TypeError):
                self.code.append(f"{module} {_sha(Path(file).read_bytes())}")  # type: ignore[arg-type]
                if not _is_installed(file):  # type: ignore[arg-type]
                    for imported in _imported(loaded):
                        self._file_of(imported)
        return module

    def _again(self, value: object) -> str | None:
        """Where an object was met before; None when it is new."""
        if id(value) in self._met:
            return f"#{self._met[id(value)][0]}"
        self._met[id(value)] = len(self._met), value
        return None


def _tensor(value: Tensor) -> str:
    if type(value) not in {Tensor, nn.Parameter}:
        return _subclass(value)
    if value.is_meta:
        return f"{value.dtype} {tuple(value.shape)} {value.layout}"
    if value.is_quantized or value.layout != torch.strided:
        plain = value.detach().dequantize() if value.is_quantized else value.detach().to_dense()
        return f"{value.dtype} {value.layout} {_tensor(plain)}"
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{value.dtype} {tuple(value.shape)} {_sha(data.numpy())}"


def _subclass(value: Any) -> str:
    """Text of a tensor that is computed of others, or held elsewhere: of those that it has here."""
    kind = f"{type(value).__module__}.{type(value).__qualname__} {value.dtype} {tuple(value.shape)}"
    try:
        names, settings = value.__tensor_flatten__()
        inner = [f"{name} {_tensor(getattr(value, name))}" for name in names]
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        # A class of its own kind: whatever it holds, it is equal to nothing.
        return f"{kind} {uuid4()}"
    return f"{kind} {_ADDRESS.sub('', repr(settings))} {inner}"


def _flat(value: object) -> str | None:
    """Text of what holds nothing else; None of anything else."""
    if isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} " + _sha(value.tobytes())
    return _ADDRESS.sub("", repr(value)) if isinstance(value, _SHOWN) else None


def _place(value: object) -> str:
    """What a set is put in order by: alike in every process, as hashes are not."""
    name = f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    return f"{type(value).__qualname__} {name} {_ADDRESS.sub('', repr(value))}"


def _replaced(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Functions of torch that stand under another's name, or are somebody else's."""
    for name, value in sorted(vars(module).items()):
        if inspect.isroutine(value) and not name.startswith("_"):
            own = getattr(value, "__name__", name) == name
            if not own or not _is_released(getattr(value, "__module__", None)):
                yield name, value


def _slots(value: object) -> dict[str, object]:
    """Return the fields that an object holds outside its dictionary."""
    named = [getattr(kind, "__slots__", ()) for kind in type(value).__mro__]
    slots = [one for names in named for one in ((names,) if isinstance(names, str) else names)]
    hidden = {"__dict__", "__weakref__"}
    return {one: getattr(value, one) for one in slots if one not in hidden and hasattr(value, one)}


def _imported(module: object) -> list[str]:
    """Names of the modules that a module took something from, whole or by name."""
    held = [
        value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        for value in vars(module).values()
    ]
    return sorted({name for name in held if isinstance(name, str)})


def _cell(cell: Any) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of all functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _code(code: CodeType) -> str:
    """What a function does, wherever it stands in whatever file."""
    parts = []
    for part in _codes(code):
        constants = [c for c in part.co_consts if not isinstance(c, CodeType)]
        sets = [sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c) for c in constants]
        parts.append(f"{part.co_code.hex()} {sets} {part.co_names} {part.co_varnames}")
    return " ".join(parts)


def _is_released(module: str | None) -> bool:
    package = (module or "builtins").partition(".")[0]
    return package in _RELEASED or (package in sys.stdlib_module_names and package != "__main__")


def _is_installed(file: str) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _sha(data: Any) -> str:
    return "sha256:" + hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
