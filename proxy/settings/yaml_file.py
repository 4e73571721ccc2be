"""Parses YAML, with error messages that name the key and the line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml


class ConfigError(Exception):
    """An error in the settings; the message says where it is, what is wrong, and what to do."""


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
            raise ConfigError(f"{name}:{line}: invalid YAML: {error.problem}") from None
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

    def refusal(
        self,
        complaint: str,
        known: Mapping[str, tuple[str, ...]],
        words: Mapping[str, tuple[str, ...]],
        removed: Mapping[str, str],
    ) -> ConfigError:
        """Convert an error message of msgspec into one with key and line.

        `known` lists the keys of each section by its path, `words` the allowed values of keys, `removed` what replaces
        a key of an earlier version, by its path.
        """
        found = _PATH.search(complaint)
        path = found["path"].lstrip(".") if found else ""
        problem = _PATH.sub("", complaint)
        if path.endswith(_SOME_KEY):
            return self.error(path.removesuffix(_SOME_KEY), f"one of its values: {_in_yaml(problem)}")
        if unknown := _UNKNOWN.match(problem):
            key = unknown["key"]
            place, section = f"{path}.{key}" if path else key, re.sub(r"\[\d+\]", "[]", path)
            if instead := removed.get(f"{section}.{key}" if section else key):
                return self.error(place, instead)
            return self.error(place, f"unknown key{did_you_mean(key, known.get(section, ()))}")
        if wrong := _WRONG_WORD.match(problem):
            return self.error(
                path, f"unknown value {wrong['word']!r}{did_you_mean(wrong['word'], words.get(_last(path), ()))}"
            )
        return self.error(path, _in_yaml(problem))


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


_WORDS = {"`object`": "a section with keys", "`array`": "a list", "`str`": "text", "`null`": "nothing"}


def _in_yaml(problem: str) -> str:
    """Replace type names with those of YAML."""
    for word, plain in _WORDS.items():
        problem = problem.replace(word, plain)
    return problem[:1].lower() + problem[1:]


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Suggest the most similar known word, or list all of them."""
    similar = difflib.get_close_matches(word, known, 1)
    if similar:
        return f", did you mean `{similar[0]}`?"
    return f"; expected one of: {', '.join(sorted(known))}" if known else ""
