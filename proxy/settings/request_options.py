"""Per-request options: a fixed, typed set, in headers or in `ext.rerank_proxy` of the body.

No option can name a host, a model, a field or code. Invalid options are rejected with an error in the engine's format;
searches outside every route are not checked.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Literal, get_args

import msgspec
import msgspec.inspect
from msgspec import Meta

from proxy.bounds import BUDGET_MS_MAX, SHOWN_VALUE
from proxy.http1.callers import STEERING, Field
from proxy.settings.profiles import PROFILES
from proxy.settings.yaml_file import did_you_mean

Option = Literal["enabled", "query", "budget_ms", "window", "profile", "instruction", "explain", "cost", "background"]
OPTIONS: tuple[Option, ...] = get_args(Option)
ALLOWED: tuple[Option, ...] = ("enabled", "budget_ms", "window", "explain")
"""The options that requests may set by default.

None of these changes the text sent to a model, shows what a search cost, or lets it take minutes.
"""


MEMBER = "rerank_proxy"


class Steering(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options of one request; None for those that it does not set."""

    enabled: bool | None = None
    query: Annotated[str, Meta(min_length=1, max_length=2000)] | None = None
    """The query text, instead of the text found in the query."""
    budget_ms: Annotated[int, Meta(ge=1)] | None = None
    """Milliseconds that the proxy may add to the engine's own time."""
    window: Annotated[int, Meta(ge=1)] | None = None
    """Hits from each retriever and candidates to rerank, if fewer than the route's."""
    profile: str | None = None
    """The profile whose instruction is sent to the models."""
    instruction: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    explain: bool | None = None
    """Return an explanation with each hit."""
    cost: bool | None = None
    """Return what the model calls of the search cost, in a response header."""
    background: bool | None = None
    """Nobody waits for the response: the model calls may be slow and cheap."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """An option is invalid, or not allowed in requests."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Said:
    """The value of an option, and where it was set."""

    place: str
    value: Any


def read_steering(fields: Sequence[Field], member: Any, allowed: Sequence[Option]) -> Steering | Wrong:
    """Read headers and `ext.rerank_proxy` (None if missing); options in the body override headers."""
    by_header = _of_headers(fields)
    if isinstance(by_header, Wrong):
        return by_header
    if member is not None and not isinstance(member, dict):
        return Wrong(f"[ext.{MEMBER}] takes an object, not {_shown(member)}")
    in_body = {name: _Said(f"ext.{MEMBER}.{_short(name)}", value) for name, value in _some(member or {})}
    together = {**by_header, **in_body}
    for name, said in together.items():
        if problem := _problem(name, said, allowed):
            return Wrong(f"[{said.place}] {problem}")
    steering = msgspec.convert({name: said.value for name, said in together.items()}, Steering)
    return msgspec.structs.replace(steering, budget_ms=steering.budget_ms and min(steering.budget_ms, BUDGET_MS_MAX))


def _some(member: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Read no more members than necessary to find one that is not an option."""
    return islice(member.items(), len(OPTIONS) + 1)


def _short(name: str) -> str:
    return name if len(name) <= SHOWN_VALUE else f"{name[:SHOWN_VALUE]}..."


def _problem(option: str, said: _Said, allowed: Sequence[Option]) -> str:
    """Return the error message for a value; empty if it is valid."""
    if option not in OPTIONS:
        return f"is not a per-request option{did_you_mean(_short(option), OPTIONS)}"
    if option not in allowed:
        return f"is not allowed: remove it, or add {option} to `steering` in the settings of the proxy"
    try:
        msgspec.convert({option: said.value}, Steering)
    except msgspec.ValidationError:
        return f"takes {takes(option)}, not {_shown(said.value)}: correct or remove it"
    if option == "profile" and said.value is not None and said.value not in PROFILES:
        suggestion = did_you_mean(_short(said.value), tuple(PROFILES))
        return f"expects the name of a profile, not {_shown(said.value)}{suggestion}"
    return ""


def takes(option: str) -> str:
    """Describe the values of an option by its type."""
    (kind,) = (field.type for field in _FIELDS if field.name == option)
    match next(each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)):
        case msgspec.inspect.IntType(ge=least):
            return f"a whole number of {least} or more"
        case msgspec.inspect.StrType(max_length=int(most)):
            return f"a text of 1 to {most} characters"
        case msgspec.inspect.BoolType():
            return "`on` or `off`, in the body `true` or `false`"
        case _:
            return "the name of a profile"


_FIELDS = msgspec.inspect.type_info(Steering).fields  # type: ignore[attr-defined]


def _shown(value: Any) -> str:
    """Return a value for an error message: itself if it is short, otherwise its type."""
    match value:
        case str() if len(value) > SHOWN_VALUE:
            return f"a text of {len(value)} characters"
        case str():
            return f"the text [{value}]"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"{msgspec.json.encode(value).decode()}"


_FLAGS: Mapping[str, bool] = {"on": True, "true": True, "off": False, "false": False}
_NUMBERS = frozenset({"budget_ms", "window"})
_SWITCHES = frozenset({"enabled", "explain", "cost", "background"})


def _of_headers(fields: Sequence[Field]) -> dict[str, _Said] | Wrong:
    """Read `X-Rerank-Budget-Ms: 200` as `budget_ms`, and so on."""
    found: dict[str, _Said] = {}
    for name, value in fields:
        if not name.lower().startswith(STEERING):
            continue
        place = _short(name.decode("ascii", "replace"))
        option = place.lower().removeprefix(STEERING.decode()).replace("-", "_")
        try:
            text = value.decode().strip()
        except UnicodeDecodeError:
            return Wrong(
                f"[{place}] is not UTF-8: encode it as UTF-8, or send it in the body as [ext.{MEMBER}.{option}]"
            )
        if option in found:
            return Wrong(f"[{place}] is sent more than once: send it once")
        found[option] = _Said(place, _typed(option, text))
    return found


def _typed(option: str, text: str) -> Any:
    """Convert a header's text to the option's type; the type check rejects text that cannot be converted."""
    if option in _SWITCHES:
        return _FLAGS.get(text.lower(), text)
    if option in _NUMBERS and re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    return text
