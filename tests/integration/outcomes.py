"""What came of each way to search on each real engine, as the tests saw it: README's table is made of this."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).parents[1] / "outcomes.json"
REFUSED = "refused by the engine"

Record = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Outcomes by way and engine; those of tests that were not run stay as they were."""

    seen: dict[str, dict[str, str]] = field(default_factory=dict)

    def record(self, way: str, engine: str, outcome: str) -> None:
        self.seen.setdefault(way, {})[engine] = outcome

    def save(self) -> None:
        kept = json.loads(FILE.read_text()) if FILE.exists() else {}
        together = {way: kept.get(way, {}) | self.seen.get(way, {}) for way in sorted(kept.keys() | self.seen.keys())}
        FILE.write_text(json.dumps(together, indent=1, sort_keys=True) + "\n")
