"""Secrets in command lines and messages: what is kept or shown of them is three stars.

A command line is kept to be repeated, and storage addresses, tokens of a hub and signed links are
typed into it. Too much is hidden rather than too little.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

STARS = "***"

# `token` alone or with one of these before it: `patch_tokens` and `class_token` are no secrets.
_NAME = (
    r"(?:[\w-]*(?:passw(?:or)?d|passphrase|pwd|secret|credentials?|signature|"
    r"(?:access|account|api|private)[_-]?key)|"
    r"(?:[\w-]*(?:access|api|auth|hf|hub|id|refresh|secret|security|session|github)[_-])?token|"
    r"sig)"
)
_HIDDEN = tuple(
    (re.compile(pattern, re.IGNORECASE), rf"\1{STARS}\2")
    for pattern in (
        rf"(?<![\w-])(-{{0,2}}{_NAME}(?:\s?=|['\"]\s?:)\s?['\"]?)[^\s&'\"]+()",  # name=SECRET
        r"([?&;](?:key|pass|auth)=)[^\s&'\"]+()",  # in a link alone: elsewhere they are plain words
        r"(\b(?:https?|ftps?)://)[^\s/:@?#]+(@)",  # a token in the place of a user
        r"(\bBearer\s+)\S+()",
        r"(\b(?:hf|gh[opsu]|glpat|sk)[_-])\w{16,}()",  # as hubs begin theirs
    )
)
_OPTION = re.compile(rf"--?{_NAME}", re.IGNORECASE)
_USER = re.compile(r"://[^\s:/@]*:")


def hide_secrets(text: str) -> str:
    """Return a text without the passwords, tokens and keys in it.

    >>> hide_secrets("cannot reach postgresql://me:s3cret@host/studies?sslpassword=abc")
    'cannot reach postgresql://me:***@host/studies?sslpassword=***'
    """
    text = re.sub(r"\S+", _hide_password, text)
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return text


def _hide_password(word: re.Match[str]) -> str:
    """Hide that of user:SECRET@host, which may hold a colon, a slash or an @ itself."""
    before, at, host = word[0].rpartition("@")
    user = _USER.search(before) if at else None
    return word[0] if user is None else f"{before[: user.end()]}{STARS}{at}{host}"


def redact_command(arguments: Sequence[str]) -> str:
    """Return a command line as a shell takes it, without the secrets in it.

    >>> redact_command(["tokensearch", "run", "--token", "abc", "--out", "my run"])
    "tokensearch run --token '***' --out 'my run'"
    """
    before = ("", *arguments)
    return shlex.join(
        STARS if _OPTION.fullmatch(option) else _redact_argument(argument)
        for option, argument in zip(before, arguments, strict=False)
    )


def _redact_argument(argument: str) -> str:
    option, joint, _ = argument.partition("=")
    if joint and _OPTION.fullmatch(option):  # the shell ended the secret, not its first space
        return f"{option}={STARS}"
    return hide_secrets(argument)


def redact(document: Any) -> Any:
    """Return a JSON document without the secrets in its texts."""
    match document:
        case str():
            return hide_secrets(document)
        case Mapping():
            return {name: redact(value) for name, value in document.items()}
        case list() | tuple():
            return [redact(value) for value in document]
        case _:
            return document
