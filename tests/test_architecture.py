"""The house keeps its shape: floors, modules that stand alone, a test for each, tasks that somebody holds."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROXY = ROOT / "proxy"
TESTS = ROOT / "tests"
COVERAGE_FLOOR = 98
FILES = sorted(path for path in PROXY.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_of(path) for path in FILES]
_NAMED_BY_THE_MODULE_ALONE = {
    "app",
    "catalog",
    "commands",
    "http1",
    "parsing",
    "ranking",
    "settings",
    "telemetry",
    "upstream",
}
_COVERED_ELSEWHERE: Mapping[str, str] = {
    "proxy.app": "test_app.py",
    "proxy.app.control": "test_admin.py",
    "proxy.app.gauges": "test_metrics.py",
    "proxy.app.generation": "test_reload.py",
    "proxy.app.process": "test_reload.py",
    "proxy.catalog": "test_indices.py",
    "proxy.cli.arguments": "test_cli.py",
    "proxy.cli.loading": "test_cli.py",
    "proxy.cli.sending": "test_cli.py",
    "proxy.commands": "test_cli.py",
    "proxy.commands.checking.command": "test_cli.py",
    "proxy.commands.console": "test_cli.py",
    "proxy.commands.evaluation.running": "test_evaluation_command.py",
    "proxy.commands.loading.running": "test_cli.py",
    "proxy.commands.mapping": "test_cli.py",
    "proxy.commands.warming.command": "test_warming.py",
    "proxy.commands.serving": "test_process_bounds.py",
    "proxy.parsing": "test_search_request.py",
    "proxy.settings": "test_config.py",
    "proxy.settings.config_file": "test_config.py",
    "proxy.settings.contradictions": "test_config.py",
    "proxy.store": "test_store_contract.py",
    "proxy.telemetry": "test_log.py",
    "proxy": "test_docs.py",
    "proxy.__main__": "integration/test_process.py",
    "proxy.commands.advice": "test_loading_patience.py",
    "proxy.bounds": "test_cost.py",
    "proxy.outcomes": "test_log.py",
    "proxy.commands.checking.findings": "test_checking.py",
    "proxy.commands.checking.routes": "test_checking.py",
    "proxy.commands.checking.run": "test_checking.py",
    "proxy.commands.checking.services": "test_checking.py",
    "proxy.endpoints": "test_endpoints_search.py",
    "proxy.endpoints.planner": "test_endpoints_answering.py",
    "proxy.endpoints.routing": "test_endpoints_answering.py",
    "proxy.errors": "test_transport.py",
    "proxy.commands.evaluation": "test_evaluation_command.py",
    "proxy.commands.evaluation.addresses": "test_evaluation_command.py",
    "proxy.commands.evaluation.errors": "test_evaluation_command.py",
    "proxy.http1": "test_http1.py",
    "proxy.http1.exchange": "test_listener.py",
    "proxy.http1.flow": "test_endpoints_passthrough.py",
    "proxy.http1.inbound": "test_listener.py",
    "proxy.http1.framing": "test_http1.py",
    "proxy.http1.messages": "test_http1.py",
    "proxy.http1.rejections": "test_turned_away.py",
    "proxy.http1.relay": "test_endpoints_passthrough.py",
    "proxy.commands.loading": "test_loading_index.py",
    "proxy.commands.loading.arrays": "test_loading_documents.py",
    "proxy.commands.loading.commands": "test_loading_target.py",
    "proxy.commands.loading.errors": "test_loading_target.py",
    "proxy.commands.loading.passages": "test_loading_backfill.py",
    "proxy.parsing.combining": "test_evidence.py",
    "proxy.parsing.compound_queries": "test_clauses.py",
    "proxy.parsing.leaf_queries": "test_clauses.py",
    "proxy.parsing.query_reader": "test_query_text.py",
    "proxy.parsing.query_string": "test_query_string.py",
    "proxy.parsing.readings": "test_evidence.py",
    "proxy.parsing.relaxing": "test_query_text.py",
    "proxy.parsing.query_syntax": "test_query_string.py",
    "proxy.parsing.search_edits": "test_search_request.py",
    "proxy.ranking": "test_pipeline.py",
    "proxy.parsing.search_keys": "test_decoding.py",
    "proxy.ranking.rendering": "test_ordering.py",
    "proxy.ranking.reranking": "test_ordering.py",
    "proxy.upstream": "test_transport.py",
    "proxy.upstream.live_queries": "test_score_cache.py",
    "proxy.upstream.pool": "test_engine.py",
    "proxy.upstream.spending": "test_spending_meter.py",
}
"""Modules without a test file of their own name, and where they are tested."""


def files_that_test(module: str) -> Iterator[Path]:
    """Name where the tests of a module may stand."""
    packages = [name for name in module.split(".")[1:] if name not in _NAMED_BY_THE_MODULE_ALONE]
    yield TESTS / f"test_{'_'.join(packages)}.py"
    if module in _COVERED_ELSEWHERE:
        yield TESTS / _COVERED_ELSEWHERE[module]
    if packages[:1] == ["local_models"]:
        yield TESTS / "test_local_models.py"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_test_file(module: str) -> None:
    looked_at = list(files_that_test(module))
    assert any(path.exists() for path in looked_at), f"none of {[path.name for path in looked_at]}"


def test_the_table_of_exceptions_names_existing_modules() -> None:
    assert set(_COVERED_ELSEWHERE) <= set(MODULES)


def test_no_two_classes_have_the_same_name() -> None:
    """Except the sections of the settings, which are named after the file's, and classes that one module alone uses."""
    found: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and path.stem != "config":
                found.setdefault(node.name, []).append(module_of(path))
    assert {} == {name: modules for name, modules in found.items() if len(modules) > 1}


def test_the_package_has_few_top_level_entries() -> None:
    entries = {path.stem for path in PROXY.iterdir() if path.suffix in {"", ".py"} and "__" not in path.stem}
    assert 16 >= len(entries), sorted(entries)


def test_serve_imports_no_other_command() -> None:
    """The bulk clients and local models would take memory that a proxy never uses."""
    code, said = run(sys.executable, "-c", "import sys, proxy.cli, proxy.commands.serving; print(*sys.modules)")
    unused = {"elasticsearch", "opensearchpy", "onnxruntime", "ir_measures", "pandas"}
    assert (0, set()) == (code, unused & set(said.split()))


WITHOUT_EXTRAS = """
import importlib, sys
for name in sys.argv[2:]:
    sys.modules[name] = None
importlib.import_module(f"proxy.commands.{sys.argv[1]}")
"""
COMMANDS = sorted(set(re.findall(r'later\("([a-z_.]+)"', "".join(path.read_text() for path in PROXY.glob("cli/*.py")))))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_imported_without_the_extras(command: str) -> None:
    """The command itself then says what to install, if it needs one."""
    extras = "ir_measures", "pandas", "onnxruntime", "tokenizers", "cryptography", "redis", "opentelemetry"
    assert (0, "") == run(sys.executable, "-c", WITHOUT_EXTRAS, command, *extras)


IMPORT_EACH_ALONE = """
import importlib, sys
before = set(sys.modules)
for module in sys.argv[1:]:
    importlib.import_module(module)
    for name in set(sys.modules) - before:
        if name == "proxy" or name.startswith("proxy."):
            del sys.modules[name]
"""


def run(*command: str) -> tuple[int, str]:
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603  our own
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.timeout(600)  # a process for each module
@pytest.mark.slow
def test_every_module_can_be_imported_first() -> None:
    """No import works only because another module was imported before."""
    modules = [module for module in MODULES if module != "proxy.__main__"]
    assert (0, "") == run(sys.executable, "-W", "error", "-c", IMPORT_EACH_ALONE, *modules)


def test_layers_import_only_lower_layers() -> None:
    code, said = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert 0 == code, said


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_created_tasks_are_referenced(path: Path) -> None:
    """The event loop keeps no reference: a task without one may be garbage-collected while it runs. Groups keep
    theirs.
    """
    makers, tree = {"create_task", "ensure_future"}, ast.parse(path.read_text())
    groups = {
        ast.unparse(item.optional_vars)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None and ast.unparse(item.context_expr) == "asyncio.TaskGroup()"
    }
    dropped = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Attribute)
        and node.value.func.attr in makers
        and ast.unparse(node.value.func.value) not in groups
    ]
    assert [] == dropped


def test_coverage_is_measured_for_the_core() -> None:
    """pyproject.toml lists the same modules for coverage and for the contract that the core does no I/O."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    (core,) = [each for each in settings["importlinter"]["contracts"] if each["name"] == "The core does no I/O"]
    paths = [module.replace(".", "/") for module in core["source_modules"]]
    files = [f"{path}/*" if (ROOT / path).is_dir() else f"{path}.py" for path in paths]
    assert sorted(files) == sorted(settings["coverage"]["run"]["include"])
    assert settings["coverage"]["run"]["branch"]
    assert settings["coverage"]["report"]["fail_under"] >= COVERAGE_FLOOR


def test_tests_use_no_mocks_and_no_sleeps() -> None:
    """Fakes really speak HTTP, and tests wait for events."""
    sources = {path.name: path.read_text() for path in TESTS.glob("*.py") if path != Path(__file__)}
    banned = ("unittest.mock", "monkeypatch.setattr", "time.sleep(", "asyncio.sleep(0.")
    assert [] == [(name, word) for name, source in sources.items() for word in banned if word in source]
