"""Parses YAML, with error messages that name the key and the line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml


class ConfigError(Exception):
    """An error in the settings; the message says where it is, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What may be written in a file."""

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The keys of each section, by the section's path, as in `routes[]`."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The allowed values of keys that have a fixed list of them, by the last part of their path."""
    instead_of: Mapping[str, str] = field(default_factory=dict)
    """What to write instead of some unknown keys, by their path."""
    examples: Mapping[str, str] = field(default_factory=dict)
    """A key with a value, by its path."""


_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_SOME_KEY = "[...]"
"""How msgspec writes the key of a mapping with free keys, as in `$.spend.prices[...]`."""
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_WRONG_WORD = re.compile(r"Invalid enum value '(?P<word>.*)'")


def _last(path: str) -> str:
    """Return the last key of a path; for a list item, the key of the list."""
    return path.rpartition(".")[2].partition("[")[0]


@dataclass(frozen=True, slots=True)
class YamlFile:
    """The content of a file, and the line of each key."""

    name: str
    value: Any
    lines: Mapping[str, int]
    """Line numbers by the path of the key, as in `routes[0].tier`."""

    @classmethod
    def parse(cls, text: str, name: str) -> "YamlFile":
        """Parse YAML without duplicate keys and tags; raises ConfigError."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            value = yaml.safe_load(text)
            places = list(_lines("", node))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: invalid YAML: {_explained(error, line)}") from None
        except RecursionError:
            raise ConfigError(f"{name}: invalid YAML: nested too deeply, or an alias refers to itself") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: an invalid date, `!!int x`
            raise ConfigError(f"{name}: invalid YAML: {error}") from None
        lines: dict[str, int] = {}
        for path, line in places:
            if path in lines:
                raise ConfigError(f"{name}:{line}: {path}: duplicate key, first on line {lines[path]}")
            lines[path] = line
        return cls(name, {} if value is None else value, lines)

    def error(self, path: str, problem: str) -> ConfigError:
        """Return an error for a key, with its line, or the line of the section that lacks it."""
        return ConfigError(f"{self.where(path)}: {problem}")

    def where(self, path: str) -> str:
        """Return file, line and key; if the key is missing, the line of its section."""
        line = self._line(path)
        where = f"{self.name}:{line}" if line else self.name
        return f"{where}: {path}" if path else where

    def _line(self, path: str) -> int | None:
        while path and path not in self.lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.lines.get(path)

    def refusal(self, complaint: str, allowed: Vocabulary) -> ConfigError:
        """Convert an error message of msgspec into one with key and line."""
        found = _PATH.search(complaint)
        path = found["path"].lstrip(".") if found else ""
        problem = _PATH.sub("", complaint)
        general = re.sub(r"\[\d+\]", "[]", path)
        if missing := _MISSING.fullmatch(problem):
            example = allowed.examples.get(f"{general}.{missing['key']}")
            advice = f": add it, as in `{example}`" if example else ""
            return self.error(path, f"the key `{missing['key']}` is missing{advice}")
        if path.endswith(_SOME_KEY):
            path, general = path.removesuffix(_SOME_KEY), general.removesuffix(_SOME_KEY)
            return self.error(path, f"one of its values: {_in_yaml(problem, allowed.examples.get(general))}")
        if unknown := _UNKNOWN.match(problem):
            return self._unknown_key(path, general, unknown["key"], allowed)
        if wrong := _WRONG_WORD.match(problem):
            meant = did_you_mean(wrong["word"], allowed.words.get(_last(path), ()))
            return self.error(path, f"unknown value {wrong['word']!r}{meant}")
        return self.error(path, _in_yaml(problem, allowed.examples.get(general.removesuffix("[]"))))

    def _unknown_key(self, path: str, section: str, key: str, allowed: Vocabulary) -> ConfigError:
        place = f"{path}.{key}" if path else key
        instead = allowed.instead_of.get(f"{section}.{key}" if section else key)
        return self.error(place, instead or f"unknown key{_known_elsewhere(key, section, allowed.keys)}")


def _lines(path: str, node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    match node:
        case yaml.MappingNode():
            for key, value in node.value:
                inner = f"{path}.{key.value}" if path else str(key.value)
                yield inner, key.start_mark.line + 1
                yield from _lines(inner, value)
        case yaml.SequenceNode():
            for number, item in enumerate(node.value):
                yield f"{path}[{number}]", item.start_mark.line + 1
                yield from _lines(f"{path}[{number}]", item)
        case _:
            pass


_OPENED = re.compile(r"while (?:parsing a flow|scanning a quoted)")
_YAML_ADVICE = (
    (r"found character '\\t'", "indent with spaces, not with a tab"),
    (r"found character", "put a value that begins with this character in quotes"),
    (r"found undefined alias|alphabetic or numeric", "put a value that begins with `*` or `&` in quotes"),
    (r"mapping values are not allowed", "check the indentation, and put a value with a colon in quotes"),
    (r"expected <block end>", "check the indentation of this line and of those above it"),
    (r"expected ',' or", "close the bracket, or put a value with brackets in quotes"),
    (r"unexpected end of stream", "close the quote"),
    (r"another document", "remove the line `---`: a file has one document"),
    (r"could not determine a constructor", "tags are not supported: put a value that begins with `!` in quotes"),
)
"""What to do about errors of the YAML parser, by a pattern in its message; the first that matches is used."""


def _explained(error: yaml.MarkedYAMLError, line: int) -> str:
    """Return what the parser says, the line where an unclosed bracket or quote begins, and what to do."""
    problem = error.problem or "not readable"
    if error.context_mark and error.context and _OPENED.match(error.context) and error.context_mark.line + 1 < line:
        problem += f", in what begins on line {error.context_mark.line + 1}"
    advice = next((advice for pattern, advice in _YAML_ADVICE if re.search(pattern, problem)), None)
    return f"{problem}: {advice}" if advice else problem


_TYPES = {
    "object": "a section with keys",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "date": "a date",
    "datetime": "a date with a time",
}
_GOT = _TYPES | {"null": "nothing", "float": "a number with decimals"}
_EXPECTED = re.compile(r"Expected `(?P<expected>[^`]*)`(?P<limit>.*?)(?:, got `(?P<got>[^`]*)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]*)`")
_ANY = frozenset(_TYPES)
_TYPE_ADVICE = (
    ({"int", "float"}, {"str"}, "write it without quotes and without a unit"),
    ({"int"}, {"float"}, "write it without decimals"),
    ({"bool"}, {"str"}, "write it without quotes"),
    ({"array"}, {"str"}, "write it in brackets"),
    ({"str"}, {"object"}, "put a value with a colon in quotes"),
    ({"str"}, {"int", "float", "bool", "date", "datetime"}, "put it in quotes"),
    ({"object"}, {"null"}, "indent its keys below it, or remove it"),
    ({"object"}, _ANY, "write its keys in the lines below it, indented"),
    (_ANY, {"null"}, "remove the key, or write a value"),
)
"""What to do about a value of another type: expected types, the type that was written, and the advice."""


def _in_yaml(problem: str, example: str | None) -> str:
    """Replace the type names of msgspec with those of YAML, and say what to write instead."""
    if (found := _EXPECTED.fullmatch(problem)) is None:
        return problem[:1].lower() + problem[1:]
    types, got = found["expected"].split(" | "), found["got"]
    plain = [_TYPES.get(each, each) for each in types if each != "bool" or "str" not in types]
    said = f"expected {' or '.join(plain)}{found['limit'].removesuffix('.0')}"
    if got is None:
        return said
    said = f"{said}, got {_GOT.get(got, got)}"
    advice = next((advice for wanted, wrong, advice in _TYPE_ADVICE if wanted & set(types) and got in wrong), None)
    if example:
        return f"{said}: {f'{advice},' if advice else 'write it'} as in `{example}`"
    return f"{said}: {advice}" if advice else said


def _known_elsewhere(key: str, section: str, known: Mapping[str, tuple[str, ...]]) -> str:
    """Name the section that has this key, preferably one inside `section`; else suggest a key of `section`."""
    places = [place for place, keys in known.items() if key in keys]
    inside = [place for place in places if place.startswith(f"{section}.")]
    here = known.get(section, ())
    if not places or (not inside and _similar(key, here)):
        return did_you_mean(key, here)
    where = (inside or places)[0]
    return f"; it is a key of {f'`{where}`' if where else 'the top level'}: check the indentation"


def _similar(word: str, known: tuple[str, ...]) -> list[str]:
    """Return the known words with this part, as `window` in `rank_window_size`, or else the most similar one."""
    lower = word.lower()
    parts = [each for each in known if lower in each.split("_")]
    return parts or difflib.get_close_matches(lower, known, 1, cutoff=0.57)


_LISTED = 50


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Suggest the most similar known word, or list all of them unless they are too many to read."""
    if similar := _similar(word, known):
        return f", did you mean {' or '.join(f'`{each}`' for each in similar)}?"
    return f"; expected one of: {', '.join(sorted(known))}" if 0 < len(known) <= _LISTED else ""
