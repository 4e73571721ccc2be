"""Every bound of the code has its row in the one table."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy
from proxy.bounds import BOUNDS

_OF_A_BOUND = re.compile(r"(?:^|_)(?:MAX|BYTES|LIMIT|MOST|CHARS|ENTRIES|ITEMS|DEPTH)(?:_|$)")
_OF_THE_ENGINES = {"_K_MAX", "DEFAULT_MAX_RESULT_WINDOW"}
"""Not the proxy's to choose."""
ROOT = Path(proxy.__file__).parent


def numbers_of(tree: ast.Module) -> Iterator[str]:
    """Name the constants of a module that are plain numbers, be it several in one line."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if not any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node.value)):
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A_MAX = 5", ["A_MAX"]),
        ("_A, B_BYTES = 2, 2**4", ["_A", "B_BYTES"]),
        ("A: int = 5 * 2", ["A"]),
        ("A = f(5)", []),
    ],
)
def test_a_number_in_code_is_found_however_it_is_written(text: str, found: list[str]) -> None:
    assert found == list(numbers_of(ast.parse(text)))


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_bound_is_in_the_table(path: Path) -> None:
    found = list(numbers_of(ast.parse(path.read_text(encoding="utf-8"))))
    assert [] == [name for name in found if _OF_A_BOUND.search(name) and name not in _OF_THE_ENGINES]


def test_a_bound_is_used_where_the_table_says() -> None:
    """A row whose bound is not used would promise a limit that does not exist."""
    tree = ast.parse((ROOT / "bounds.py").read_text(encoding="utf-8"))
    named = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and "_bound" in ast.dump(node.value.func)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py") if path.name != "bounds.py"]
    read = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set() == named - read
    assert named


def test_every_row_says_what_happens_above_the_limit() -> None:
    assert [] == [row for row in BOUNDS if not (row.what and row.most and row.beyond)]
    assert len({(row.of, row.what) for row in BOUNDS}) == len(BOUNDS)
