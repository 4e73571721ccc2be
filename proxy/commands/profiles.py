"""`rerank-proxy profiles`."""

import argparse
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from proxy.commands.console import print_json
from proxy.settings.profiles import CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS


def run(options: argparse.Namespace, _: Mapping[str, str]) -> int:
    if options.json:
        profiles = [{**asdict(profile), "mapping": profile.mapping} for profile in PROFILES.values()]
        priorities = {name: {"tier": tier, "when": PRIORITY_MEANINGS[name]} for name, tier in PRIORITIES.items()}
        print_json({"profiles": profiles, "priorities": priorities, "tiers": TIERS, "choices": CHOICES})
    else:
        width = shutil.get_terminal_size().columns
        sys.stdout.writelines(f"{line}\n" for line in _matrix(width, with_instructions=options.instructions))
    return 0


def _matrix(width: int, *, with_instructions: bool) -> Iterator[str]:
    """Describe profiles, priorities, tiers and set-ups as lines that fit into a terminal."""
    yield "profile: (its mapping is es_mappings/NAME.json)"
    for profile in PROFILES.values():
        settings = f"tier {profile.tier}, window {profile.rank_window_size}, passage: {', '.join(profile.passage)}"
        shown = (profile.use, settings, profile.instruction) if with_instructions else (profile.use, settings)
        yield from _entry(width, profile.name, *shown)
    yield "\npriority: (instead of tier)"
    for name, tier in PRIORITIES.items():
        yield from _entry(width, name, f"tier {tier}: {PRIORITY_MEANINGS[name]}")
    yield "\ntier: (of the profile, if the route has none)"
    for name, models in TIERS.items():
        embedding = f"{models.embedding}, {models.dimensions} dimensions"
        yield from _entry(width, name, embedding, models.rerank, models.when)
    yield "\nwith or without embeddings and reranker:"
    for choice in CHOICES:
        yield from _entry(width, choice.name, f"in the route: {choice.settings}", choice.when)


_NAME_WIDTH = 18


def _entry(width: int, name: str, *paragraphs: str) -> Iterator[str]:
    """Put a name in a column of its own, and paragraphs beside it."""
    indent = " " * (_NAME_WIDTH + 2)
    first = f"  {name:{_NAME_WIDTH}}"
    for paragraph in paragraphs:
        yield from textwrap.wrap(
            paragraph, width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        )
        first = indent
