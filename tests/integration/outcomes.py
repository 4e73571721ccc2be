"""The outcome of each kind of search on each real engine: `tests/outcomes.json` says which is expected.

The tests compare with it what they see, and the table of docs/reranking.md is generated from it. With UPDATE_OUTCOMES=1
it is written instead: look at the difference before you commit it.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).parents[1] / "outcomes.json"
REFUSED = "refused by the engine"
UPDATE = "UPDATE_OUTCOMES"

Record = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The expected outcomes by kind of search and engine, and those that were seen."""

    expected: Mapping[str, Mapping[str, str]]
    updating: bool = False
    seen: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> "Outcomes":
        return cls(json.loads(FILE.read_text()), updating=bool(os.environ.get(UPDATE)))

    def record(self, way: str, engine: str, outcome: str) -> None:
        """Note an outcome; raises AssertionError where another one is expected, or none."""
        self.seen.setdefault(way, {})[engine] = outcome
        expected = self.expected.get(way, {}).get(engine)
        if not self.updating and outcome != expected:
            raise AssertionError(f"{way} on {engine}: {outcome}, expected: {expected}. {UPDATE}=1 writes a new one.")

    def together(self) -> dict[str, dict[str, str]]:
        """Return what was seen beside what is expected of tests that were not run."""
        ways = sorted(self.expected.keys() | self.seen.keys())
        return {way: {**self.expected.get(way, {}), **self.seen.get(way, {})} for way in ways}

    def save(self) -> None:
        if self.updating:
            FILE.write_text(json.dumps(self.together(), indent=1, sort_keys=True) + "\n")
