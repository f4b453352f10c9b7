"""Options that belong together, as one record: an option per field, in every verb that takes it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import wraps
from inspect import Parameter, signature
from typing import Any

from typer import Context
from typer.core import TyperCommand

GIVEN = "given"  # the field of a record that hears which options the user gave, as spelt

# What typer adds to the names of arguments: braces around one that is needed, and Python's types.
BRACES, TYPES = re.compile(r"\{([^{}]*)\}"), re.compile(r" <(?:str|path|list\[\w+\])>")


class Verb(TyperCommand):
    """A command whose help shows arguments as other programs do: by their names alone."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what stands in the line of usage."""
        return [BRACES.sub(r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def get_help(self, ctx: Any) -> str:
        """Return all of the help."""
        return TYPES.sub(lambda match: " " * len(match[0]), super().get_help(ctx))


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a verb the options of the records among its parameters, in the place of each.

    A record with a field `given` is told which of its options the user gave, and which of the
    verb's own that its `heard` names.
    """
    own = signature(verb)
    records = {
        name: parameter.annotation
        for name, parameter in own.parameters.items()
        if is_dataclass(parameter.annotation)
    }

    @wraps(verb)
    def run(ctx: Context, **values: Any) -> None:
        made = {name: _made(kind, values, ctx) for name, kind in records.items()}
        verb(**made, **values)

    shown: list[Parameter] = [Parameter("ctx", Parameter.KEYWORD_ONLY, annotation=Context)]
    for name, parameter in own.parameters.items():
        shown += _options(records[name]) if name in records else [parameter]
    keyword = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in shown]
    run.__signature__ = own.replace(parameters=keyword)  # type: ignore[attr-defined]  # read by typer
    return run


def _options(kind: Any) -> list[Parameter]:
    return [one for one in signature(kind).parameters.values() if one.name != GIVEN]


def _made(kind: Any, values: dict[str, Any], ctx: Context) -> Any:
    """Build a record from the options that are its fields, which are taken out of `values`."""
    names = [one.name for one in _options(kind)]
    fields: Mapping[str, Any] = {name: values.pop(name) for name in names}
    if GIVEN not in signature(kind).parameters:
        return kind(**fields)
    return kind(**fields, **{GIVEN: _given(ctx, {*names, *kind.heard})})


def _given(ctx: Context, names: Iterable[str]) -> tuple[str, ...]:
    """Options among `names` that the user gave."""
    return tuple(
        option.opts[0]
        for option in ctx.command.params
        if option.name in names and _source(ctx, option.name) == "COMMANDLINE"
    )


def _source(ctx: Context, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return "" if source is None else source.name
