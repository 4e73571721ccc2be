"""Which scripts of a query read the score of its words."""

import re
from typing import Any

from proxy.parsing.compound_queries import listed
from proxy.parsing.words import Query


def functions_ignore_score(body: Query) -> bool:
    """Whether no script of a function reads the score of the query."""
    functions = [body, *listed(body.get("functions"))]
    scripts = [each["script_score"] for each in functions if isinstance(each, dict) and "script_score" in each]
    return all(ignores_score(script.get("script") if isinstance(script, dict) else None) for script in scripts)


_SCORE = re.compile(r"""(?<![\w.'"])_score\b""")
"""The variable, and not a field or a parameter whose name ends so."""


def ignores_score(script: Any) -> bool:
    """Whether the source of a script has no `_score`; false for a stored script, whose source is unknown."""
    source = script.get("source", script.get("inline")) if isinstance(script, dict) else script
    return isinstance(source, str) and _SCORE.search(source) is None
