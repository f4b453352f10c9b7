"""The user's own model: a function that is imported and called, `package.module:function`."""

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import nn

from tokensearch.errors import ModelError, first_line

_FACTORY = re.compile(r"[\w.]+:\w+")


def is_factory(name: str) -> bool:
    """Whether a name has the form of a function of a module."""
    return _FACTORY.fullmatch(name) is not None


def call_factory(name: str, options: Mapping[str, object]) -> nn.Module:
    """Import `package.module:function` and return what it returns.

    Raises:
        ModelError: It cannot be imported, fails, or returns something else than a module.
    """
    with warnings.catch_warnings():  # one that silences all of them would silence our cautions too
        factory = _factory(name)
        module = _call(factory, name, options)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"model factory {name} returned a {type(module).__name__}, not a torch module"
        )
    return module


def _call(factory: Callable[..., object], name: str, options: Mapping[str, object]) -> object:
    try:
        return factory(**options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # that of a SystemExit would pass for our own exit code
        raise ModelError(f"model factory {name} failed: {first_line(error)}") from error


def _factory(name: str) -> Callable[..., object]:
    package, _, function = name.partition(":")
    # An installed command does not look where it is started, yet that is where a user's factory is.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(package)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ModelError(f"model factory {name} cannot be imported: {first_line(error)}") from error
    factory: Callable[..., object] | None = getattr(module, function, None)
    if not callable(factory):
        raise ModelError(f"module {package} has no function {function}")
    return factory
