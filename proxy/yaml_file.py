"""A YAML file whose complaints name the key and the line."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml


class ConfigError(Exception):
    """The settings cannot be used; the message says where, what, and what to do."""


_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]*)`")
_WRONG_WORD = re.compile(r"Invalid enum value '(?P<word>.*)'")


def _last(path: str) -> str:
    """Name the key at the end of a path, its list's for an item."""
    return path.rpartition(".")[2].partition("[")[0]


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says, and on which line it says it."""

    name: str
    value: Any
    lines: Mapping[str, int]
    """A key's path, as in `routes[0].tier`, to its line."""

    @classmethod
    def parse(cls, text: str, name: str) -> "YamlFile":
        """Read plain YAML: no duplicate keys, no tags; raises ConfigError."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            value = yaml.safe_load(text)
            places = list(_lines("", node))
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: not YAML: {error.problem}") from None
        except RecursionError:
            raise ConfigError(f"{name}: not YAML: nested too deep, or within itself") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, `!!int x`
            raise ConfigError(f"{name}: not YAML: {error}") from None
        lines: dict[str, int] = {}
        for path, line in places:
            if path in lines:
                raise ConfigError(f"{name}:{line}: {path}: stands here a second time, first on line {lines[path]}")
            lines[path] = line
        return cls(name, {} if value is None else value, lines)

    def error(self, path: str, problem: str) -> ConfigError:
        """Say what is wrong with a key, on its line or on that of what it would stand in."""
        return ConfigError(f"{self.where(path)}: {problem}")

    def where(self, path: str) -> str:
        """Name a key with its line, or with that of what it would stand in."""
        line = self._line(path)
        where = f"{self.name}:{line}" if line else self.name
        return f"{where}: {path}" if path else where

    def _line(self, path: str) -> int | None:
        while path and path not in self.lines:
            path = re.sub(r"(^|\.)[^.\[]*$|\[\d+\]$", "", path)
        return self.lines.get(path)

    def refusal(
        self,
        complaint: str,
        known: Mapping[str, tuple[str, ...]],
        words: Mapping[str, tuple[str, ...]],
        removed: Mapping[str, str],
    ) -> ConfigError:
        """Report msgspec's complaint with a line.

        `known` lists the keys of each section by its path, `words` the values of the keys that take only some,
        `removed` what to do about a key of an earlier version, by its path.
        """
        found = _PATH.search(complaint)
        path = found["path"].lstrip(".") if found else ""
        problem = _PATH.sub("", complaint)
        if unknown := _UNKNOWN.match(problem):
            key = unknown["key"]
            place, section = f"{path}.{key}" if path else key, re.sub(r"\[\d+\]", "[]", path)
            if instead := removed.get(f"{section}.{key}" if section else key):
                return self.error(place, instead)
            return self.error(place, f"unknown key{did_you_mean(key, known.get(section, ()))}")
        if wrong := _WRONG_WORD.match(problem):
            return self.error(path, f"no {wrong['word']!r}{did_you_mean(wrong['word'], words.get(_last(path), ()))}")
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
    """Name types as somebody who writes YAML knows them."""
    for word, said in _WORDS.items():
        problem = problem.replace(word, said)
    return problem[:1].lower() + problem[1:]


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """Propose the nearest of the known words, or all of them."""
    near = difflib.get_close_matches(word, known, 1)
    if near:
        return f", did you mean `{near[0]}`?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""
