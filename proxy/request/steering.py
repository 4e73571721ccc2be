"""What a request may say of its own reranking: a closed, typed set, in headers or in `ext.rerank_proxy`.

Nothing here can name a host, a model, a field or code. A wrong word is refused, in the engine's shape, rather than
guessed at; a search that no route covers is not looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from proxy.http1.callers import STEERING, Field
from proxy.profiles import PROFILES
from proxy.yaml_file import did_you_mean

Option = Literal["enabled", "query", "budget_ms", "window", "profile", "instruction", "explain"]
OPTIONS: tuple[Option, ...] = get_args(Option)

MEMBER = "rerank_proxy"


class Steering(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one request says; None where it says nothing."""

    enabled: bool | None = None
    query: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    """The user's words, where they are not to be looked for in the query."""
    budget_ms: Annotated[int, Meta(ge=1, le=60_000)] | None = None
    """Milliseconds that the proxy may add to the engine's own time."""
    window: Annotated[int, Meta(ge=1, le=1000)] | None = None
    profile: str | None = None
    """Whose instruction the models are given."""
    instruction: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    explain: bool | None = None
    """Say with each hit how it came to its place."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What a request says cannot be meant, or may not be said here."""

    reason: str


_FLAGS: Mapping[str, bool] = {"on": True, "true": True, "off": False, "false": False}
_NUMBERS = frozenset({"budget_ms", "window"})
_SWITCHES = frozenset({"enabled", "explain"})


def read_steering(fields: Sequence[Field], member: Any, allowed: Sequence[Option]) -> Steering | Wrong:
    """Read headers and `ext.rerank_proxy` (None where there is none); the body stands above the headers."""
    said = _of_headers(fields)
    if isinstance(said, Wrong):
        return said
    if member is not None and not isinstance(member, dict):
        return Wrong(f"[ext.{MEMBER}] must be an object")
    together = {**said, **(member or {})}
    if closed := [name for name in together if name in OPTIONS and name not in allowed]:
        return Wrong(f"[{closed[0]}] may not be set by a request: it is switched off in `steering` of the settings")
    try:
        steering = msgspec.convert(together, Steering)
    except msgspec.ValidationError as error:
        return Wrong(f"cannot steer the reranking: {error}; known are {', '.join(OPTIONS)}")
    if steering.profile is not None and steering.profile not in PROFILES:
        return Wrong(f"no profile [{steering.profile}]{did_you_mean(steering.profile, tuple(PROFILES))}")
    return steering


def _of_headers(fields: Sequence[Field]) -> dict[str, Any] | Wrong:
    """Read `X-Rerank-Budget-Ms: 200` as `budget_ms`, and so on."""
    said: dict[str, Any] = {}
    for name, value in fields:
        if not name.lower().startswith(STEERING):
            continue
        option = name.lower().removeprefix(STEERING).decode("ascii", "replace").replace("-", "_")
        try:
            text = value.decode().strip()
        except UnicodeDecodeError:
            return Wrong(f"the header [{name.decode('ascii', 'replace')}] is not UTF-8")
        if option in said:
            return Wrong(f"[{option}] stands in more than one header")
        said[option] = _typed(option, text)
    return said


def _typed(option: str, text: str) -> Any:
    """Turn a header's text into what the option takes; what does not fit is left for the type check to refuse."""
    if option in _SWITCHES:
        return _FLAGS.get(text.lower(), text)
    if option in _NUMBERS and text.isascii() and text.isdigit():
        return int(text[:9])
    return text
