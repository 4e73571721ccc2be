"""The documentation says what the code does: its tables row by row, its commands, numbers, links and file names."""

import ast
import importlib.util
import json
import re
import shlex
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

import proxy
from demo import shop
from demo.comparing import PAGE
from demo.engines import ENGINES
from proxy.app import GRACE_S
from proxy.app.admin import ROUTES
from proxy.bounds import (
    DOCUMENT_BYTES,
    DOCUMENT_DEPTH,
    EMBEDDED_CHARACTERS,
    LOCAL_TOKENS,
    OUTCOME_LIST_BYTES,
    SEARCH_BODY_BYTES,
    SEARCH_RESPONSE_BYTES,
)
from proxy.cli import build_parser
from proxy.commands.local_models.minilm import DIMENSIONS
from proxy.context import Charge, SearchRecord, Shadow, Usage
from proxy.errors import Failure
from proxy.http1.flow import PROBED_AFTER_S
from proxy.outcomes import BYPASS_REASONS, Bypass, answered, in_order
from proxy.parsing.compound_queries import COMPOUNDS
from proxy.parsing.leaf_queries import LEAVES
from proxy.parsing.query_text import UNRELAXED, UserQuery, find_user_query
from proxy.parsing.search_keys import BODY_KEYS, PARAMETERS
from proxy.parsing.search_request import parse
from proxy.ranking.boosts import PROBLEMS
from proxy.ranking.explaining import MEMBER as EXPLANATION
from proxy.ranking.explaining import Boost, Explanation, Kept, Origin
from proxy.ranking.kept import EXACT
from proxy.ranking.paging import TOP_SCORE
from proxy.ranking.planning import MIN_SIMILARITY
from proxy.settings.bypass_rules import text_bypass
from proxy.settings.config import BypassRules, Config
from proxy.settings.config_file import KNOWN_KEYS, REMOVED_KEYS, load, read
from proxy.settings.credentials import needs_token
from proxy.settings.profiles import PROFILES, TIERS
from proxy.settings.request_options import MEMBER, OPTIONS, Option, Steering, read_steering
from proxy.telemetry.log import log_search
from tests.readme import (
    _FAILURE_MEANINGS,
    _STAGES,
    _VARIABLES,
    BLOCK,
    DEMO,
    DEMO_QUERY,
    DIALECTS,
    LOG_FIELDS,
    NOT_RUN,
    PAGES,
    QUERY_FORMS,
    README,
    ROOT,
    STEERING_FORMS,
    TABLES,
    TEXTS,
    QueryForm,
    _title,
    command_meanings,
    config_comments,
    failures,
    header_of,
    known_dialects,
    made,
    setting_paths,
    syntax_trees,
    timed_stages,
    variables_in,
)

TEXTS_OF = {page: page.read_text(encoding="utf-8") for page in PAGES}
TEXT = "\n".join(TEXTS_OF.values())
BLOCKS = {found["name"]: found for found in BLOCK.finditer(TEXT)}
PROSE = BLOCK.sub("", TEXT)
README_LINES_MAX = 250
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [*TABLES, *TEXTS])
def test_generated_blocks_match_the_code(name: str) -> None:
    """No row is missing or left over; `python -m tests.readme` regenerates them."""
    block = BLOCKS[name]
    assert made(block["kind"], name).splitlines() == block["body"].splitlines()


def test_every_generated_block_is_on_one_page() -> None:
    named = Counter(found["name"] for found in BLOCK.finditer(TEXT))
    assert dict.fromkeys([*TABLES, *TEXTS], 1) == named


def test_the_readme_is_short() -> None:
    assert len(TEXTS_OF[README].splitlines()) <= README_LINES_MAX


def test_every_page_is_reached_from_the_readme() -> None:
    assert [] == [page.name for page in PAGES if page != README and page not in set(pages_linked_from(README))]


def cells(table: str, column: int = 0) -> list[str]:
    rows = BLOCKS[table]["body"].splitlines()[2:]
    return [re.split(r"(?<!\\)\|", row)[column + 1].strip().strip("`") for row in rows]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("bypass", BYPASS_REASONS),
        ("degraded", failures()),
        ("stages", timed_stages()),
        ("engines", {_title(engine) for engine in ENGINES}),
        ("tiers", TIERS),
        ("profiles", PROFILES),
        ("commands", command_meanings()),
    ],
)
def test_tables_list_each_item_once(table: str, named: Mapping[str, object] | set[str]) -> None:
    assert sorted(named) == sorted(cells(table))


def test_every_key_of_the_settings_has_its_row() -> None:
    assert sorted(setting_paths()) == sorted(cells("config"))
    assert all(cells("config", 2))


def test_the_shipped_file_explains_exactly_the_existing_keys() -> None:
    explained = {path for path in config_comments((ROOT / "config.yaml").read_text()) if "." in path}
    keys = {f"{section}.{key}" for section, keys in KNOWN_KEYS.items() if section for key in keys}
    assert keys == explained


def test_the_shipped_file_is_served_with_a_token() -> None:
    config = load(ROOT / "config.yaml", {})
    assert Config().models == config.models
    assert needs_token(config)


def test_every_reason_has_a_description() -> None:
    assert _FAILURE_MEANINGS.keys() <= failures().keys()
    assert _STAGES.keys() == timed_stages()


def test_every_key_and_parameter_of_a_search_is_in_one_of_the_tables() -> None:
    said = BLOCKS["understood"]["body"] + BLOCKS["bypass"]["body"]
    assert [] == [key for key in BODY_KEYS if f"`{key}`" not in said]
    assert [] == [name for name in PARAMETERS if f"`{name}`" not in said and f"`?{name}=`" not in said]


@pytest.mark.parametrize("form", QUERY_FORMS, ids=lambda form: form.name)
def test_query_text_is_found_in_each_documented_query(form: QueryForm) -> None:
    request = parse(form.url, json.dumps({"query": form.query}).encode() if form.query else b"")
    assert not isinstance(request, Bypass)
    found = find_user_query(request.query, ("title",), lambda _: True)
    assert found is not None
    assert "red shoes" == found.text
    assert (form.kept == "kNN is skipped") is (found.relaxed is None)


def test_every_query_type_has_a_row() -> None:
    assert sorted([*LEAVES, *COMPOUNDS, "?q="]) == sorted(form.name for form in QUERY_FORMS)


def test_unmarked_query_types_are_tested_on_a_real_engine() -> None:
    run = "".join(path.read_text() for path in (ROOT / "tests/integration").glob("test_*.py"))
    names = {form.name for form in QUERY_FORMS}
    assert NOT_RUN <= names
    assert [] == [name for name in names - NOT_RUN if f'"{name}"' not in run and f"/_search{name}" not in run]


def test_every_knn_dialect_has_a_row() -> None:
    assert known_dialects().keys() == DIALECTS.keys()


@pytest.mark.parametrize("option", OPTIONS)
def test_options_are_set_by_header_and_body_as_documented(option: Option) -> None:
    form = STEERING_FORMS[option]
    said = Steering(**{option: form.member})
    assert said == read_steering([(header_of(option).encode(), form.header.encode())], None, OPTIONS)
    assert said == read_steering([], {option: form.member}, OPTIONS)


def test_an_explanation_looks_as_documented() -> None:
    (shown,) = [block for block in code_blocks("json") if EXPLANATION in block]
    told = Explanation(
        Origin(2, 12.5), Origin(1, 0.85), 0.0318, 0.88, "79f7baff18e4a6c9", 105, Kept(2, EXACT), Boost(1.2, 1)
    )
    assert {EXPLANATION: json.loads(bytes(told.render(2.0)))} == json.loads("{" + shown + "}")


def test_every_environment_variable_has_a_row() -> None:
    assert variables_in("proxy", "demo") | {Config().models.token_env} == _VARIABLES.keys()


def test_the_log_line_has_these_fields() -> None:
    told = answered([Failure("semantic", "timeout", "no answer in 1 s")])
    with capture_logs() as lines:
        log_search(
            SearchRecord(
                "id", route="products*", query_text="red shoes", usage=Usage(Charge(1, 0.1)), shadow=Shadow(told)
            ),
            told,
            query_text=True,
        )
    assert lines[0].keys() - {"log_level"} <= LOG_FIELDS.keys()


def test_every_alert_is_in_the_runbook_once() -> None:
    rules = (ROOT / "ops/prometheus/alerts.yml").read_text(encoding="utf-8")
    rows = re.findall(r"`(RerankProxy\w+)`", TEXTS_OF[ROOT / "docs/runbook.md"])
    assert sorted(re.findall(r"- alert: (\w+)", rules)) == sorted(rows)


def test_every_log_event_has_a_row() -> None:
    rows = re.findall(
        r"^\| (`[a-z_`, ]+`) \| (?:info|warning|error|any)", TEXTS_OF[ROOT / "docs/operations.md"], re.MULTILINE
    )
    assert _EVENTS == {name for row in rows for name in re.findall(r"[a-z_]+", row)}


_EVENTS = {
    call.args[0].value
    for tree in syntax_trees()
    for call in ast.walk(tree)
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args
    if ast.unparse(call.func.value) == "_log" and isinstance(call.args[0], ast.Constant)
} - {"search", "access"} | {"library"}


def test_the_header_is_spelled_as_documented() -> None:
    both = answered([Failure("semantic", "timeout"), Failure("rerank", "timeout")])
    assert f"`X-Rerank: {both.header.decode()}`" in TEXT


def test_a_long_list_of_outcomes_is_truncated_as_documented() -> None:
    cut = in_order([b"reranked"] * 1000).rpartition(b", ")[2].decode()
    assert f"`{re.sub(r'[0-9]+', '12', cut)}` stands for the rest" in TEXT


def test_documented_reasons_exist() -> None:
    named = set(re.findall(r"reason=(\w+)", PROSE))
    assert named
    assert set() == named - BYPASS_REASONS.keys() - failures().keys() - UNRELAXED.keys() - PROBLEMS.keys()


def test_documented_settings_exist() -> None:
    """Such as `engine.url`, and `semantic.field` of a route."""
    sections = "|".join(filter(str.isalpha, [*KNOWN_KEYS, "semantic", "fusion", "bypass"]))
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)", PROSE))
    known = {path.removeprefix("routes[].") for path in setting_paths()}
    assert named
    assert set() == named - known


def changes(heading: str) -> list[str]:
    """The entries under a heading of the unreleased version."""
    found = re.search(
        rf"^### {heading}\n(.*?)^#", CHANGELOG.partition("## [0.1.0]")[0] + "\n#", re.DOTALL | re.MULTILINE
    )
    return re.findall(r"^- (.*?)(?=^- |\Z)", found[1] if found else "", re.DOTALL | re.MULTILINE)


def test_the_changelog_lists_removed_keys_and_their_replacements() -> None:
    """The same ones as the error for a removed key."""
    removed = {entry.split("`")[1]: set(entry.split("`")[3::2]) for entry in changes("Removed")}
    assert REMOVED_KEYS.keys() == removed.keys()
    known = setting_paths().keys()
    for key, advice in REMOVED_KEYS.items():
        assert removed[key] & known == {name for name in advice.split("`")[1::2] if name in known}
        assert removed[key] & known


def test_settings_added_in_the_changelog_exist() -> None:
    (entry,) = [entry for entry in changes("Added") if entry.startswith("Configuration:")]
    named = set(re.findall(r"`(\w+\.\w+)`", entry))
    assert named
    assert set() == named - setting_paths().keys()


def test_documented_local_ports_are_defaults() -> None:
    engine, local = urlsplit(Config().engine.urls[0]).port, build_parser().parse_args(["models"]).listen
    defaults = {str(Config().listen.port), str(Config().admin.port), str(engine), local.rpartition(":")[2]}
    assert defaults == set(re.findall(r"127\.0\.0\.1:(\d+)", TEXT))


def test_required_versions_are_those_of_the_project() -> None:
    makefile = (ROOT / "Makefile").read_text()
    python = re.findall(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[0]
    java = min(engine.javas.minimum for engine in ENGINES)
    assert f"Python {python} or later, JDK {java} or later" in TEXTS_OF[README]
    for name in ("Node.js", "Go"):
        (version,) = set(re.findall(rf"{re.escape(name)} ([\d.]+) or newer", makefile))
        assert f"{name} {version} or later" in TEXT


def test_documented_engines_are_the_tested_ones() -> None:
    (tested,) = re.findall(r"Tested on (.*?)\n- ", TEXTS_OF[README], re.DOTALL)
    assert {engine.version for engine in ENGINES} == set(re.findall(r"\d+\.\d+\.\d+", tested))


def test_documented_identifiers_are_identifiers() -> None:
    rules = text_bypass(BypassRules(identifiers=True))
    assert "(`SM-G991B`)" in TEXT
    for text in ("SM-G991B", "1234", "abc12"):
        assert Bypass("identifier") == rules.bypass(UserQuery(text, None))
    for text in ("123", "ab12", "abcde", "SM-G991B case"):
        assert rules.bypass(UserQuery(text, None)) is None


@pytest.mark.parametrize(
    "number",
    [
        f"at most {GRACE_S:g} s",
        f"A search body is read up to {SEARCH_BODY_BYTES >> 20} MB",
        f"its response up to {SEARCH_RESPONSE_BYTES >> 20} MB",
        f"Beyond {OUTCOME_LIST_BYTES} bytes the list is cut",
        f"start after {PROBED_AFTER_S} s of silence",
        f"In the head they are between {TOP_SCORE - 1:g} and {TOP_SCORE:g}",
        f"the exit code is then {128 + signal.SIGINT} or {128 + signal.SIGTERM}",
        f"`semantic.min_similarity` (default {MIN_SIMILARITY:g})",
        f"up to {EMBEDDED_CHARACTERS} characters each",
        f"larger than {DOCUMENT_BYTES // 2**20} MB or nested deeper than {DOCUMENT_DEPTH}",
        f"its first document has {TOP_SCORE:g}",
        f"at most {DIMENSIONS} dimensions and {LOCAL_TOKENS} tokens",
    ],
)
def test_documented_numbers_are_those_of_the_code(number: str) -> None:
    assert number in " ".join(TEXT.split())


def test_the_documented_demo_search_is_one_of_its_catalogue() -> None:
    (shown,) = DEMO.findall(TEXT)
    titles = [product["title"] for product in map(json.loads, shop.PRODUCTS.read_text().splitlines())]
    rows = [line for line in shown.splitlines() if re.match(r" *\d+  ", line)]
    assert DEMO_QUERY in {query.text for query in shop.queries()}
    assert PAGE == len(rows)
    assert [] == [row for row in rows if sum(row.count(title[:30]) for title in titles) < 2]
    assert re.search(r"^better: \d+, worse: \d+$", shown, re.MULTILINE)


# What a reader types.


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def commands(block: str) -> Iterator[list[str]]:
    """Cut a block into simple commands, without variables set before them."""
    text = re.sub(r"\s+# .*", "", block).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|<>;&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if token.strip("|;&\n"):
            words.append(token)
        else:
            while words and re.match(r"[A-Z_]+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


COMMANDS = [command for block in code_blocks("sh") for command in commands(block)]


def our_program(arguments: Sequence[str]) -> None:
    if "<" in arguments:
        arguments, (source,) = arguments[: arguments.index("<")], arguments[arguments.index("<") + 1 :]
        assert (ROOT / source).is_file()
    build_parser().parse_args(arguments)


def make(arguments: Sequence[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {name for name in arguments if "=" not in name} <= set(targets)


def python(arguments: Sequence[str]) -> None:
    if arguments[0].endswith(".py"):
        assert (ROOT / arguments[0]).is_file()
        return
    assert arguments[0] == "-m"
    assert importlib.util.find_spec(arguments[1])


def pip(arguments: Sequence[str]) -> None:
    """The versions that were tested are installed, and what is named is an extra of this package."""
    extras = re.findall(r"^(\w+) = \[$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert arguments[:3] == ["install", "-c", "constraints.txt"]
    assert arguments[3] in {".", *(f".[{extra}]" for extra in extras)}


ADMIN_PATHS = {
    path
    for route in ROUTES
    for path in ([f"{route.path}/{last}" for last in route.last] if route.last else [route.path])
}


def curl(arguments: Sequence[str]) -> None:
    """A search that is asked for is one that is reranked; an index is made of what comes from the command before."""
    if [*arguments[:2]] == ["-X", "PUT"]:
        assert list(arguments[-2:]) == ["-d", "@-"]
        return
    url = urlsplit(next(word for word in arguments if word.startswith("http:")))
    if url.port == Config().admin.port:
        assert url.path in ADMIN_PATHS
        return
    fields = [word.encode().partition(b": ")[::2] for word in arguments if word.startswith("X-Rerank-")]
    body = json.loads(arguments[arguments.index("-d") + 1])
    member = body.get("ext", {}).pop(MEMBER, None)
    assert Config().listen.port == url.port
    assert url.path.endswith("/_search")
    assert isinstance(read_steering(fields, member, OPTIONS), Steering)
    request = parse(url.query, json.dumps(body).encode())
    assert not isinstance(request, Bypass)
    assert find_user_query(request.query, ("title", "description"), lambda _: True)


def docker(arguments: Sequence[str]) -> None:
    assert arguments[0] == "compose"
    match arguments[1:]:
        case ["up", "--build"]:
            pass
        case ["run", "--rm", "-T", "proxy", *rest]:
            our_program(rest)
        case other:
            pytest.fail(f"docker compose {other}")


def tool_of(distribution: str) -> Callable[[Sequence[str]], None]:
    def installed(_: Sequence[str]) -> None:
        assert f'    "{distribution}>=' in (ROOT / "pyproject.toml").read_text()

    return installed


def export(arguments: Sequence[str]) -> None:
    shown = {read(block, "config.yaml", {}).engine.authorization_env for block in code_blocks("yaml")}
    assert {word.partition("=")[0] for word in arguments} <= _VARIABLES.keys() | shown


def zcat(arguments: Sequence[str]) -> None:
    assert all(name.endswith(".gz") for name in arguments)


READERS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "rerank-proxy": our_program,
    "make": make,
    "python": python,
    "python3": python,
    "pip": pip,
    "curl": curl,
    "docker": docker,
    "export": export,
    "zcat": zcat,
    "ruff": tool_of("ruff"),
    "mypy": tool_of("mypy"),
    "lint-imports": tool_of("import-linter"),
    "pytest": tool_of("pytest"),
}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_documented_commands_exist(command: Sequence[str]) -> None:
    program, *arguments = command
    READERS[program.removeprefix(".venv/bin/")](arguments)


@pytest.mark.parametrize("block", code_blocks("yaml"))
def test_documented_settings_files_are_valid(block: str) -> None:
    assert read(block, "config.yaml", {}).routes


# What a reader looks up.

PLACES = sorted(set(re.findall(r"`((?:proxy|tests|demo|examples|es_mappings)/[\w/.-]*)`", PROSE)))


@pytest.mark.parametrize("place", PLACES)
def test_documented_paths_exist(place: str) -> None:
    assert (ROOT / place.replace("NAME", "e-commerce")).exists()


def test_every_example_is_documented() -> None:
    found = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__"}
    assert found == set(re.findall(r"`(examples/\w+\.py)` \|", TEXTS_OF[ROOT / "examples/README.md"]))


ROWS_OF_PLACES = re.findall(r"^\| [^|`]+ \| (.*`(?:proxy|tests)/.*) \|$", PROSE, re.MULTILINE)


@pytest.mark.parametrize("row", ROWS_OF_PLACES)
def test_documented_tables_of_the_code_exist(row: str) -> None:
    sources = "".join((ROOT / path).read_text() for path in re.findall(r"`([\w/-]+\.py)`", row))
    assert [] == [name for name in re.findall(r"`(_?[A-Z][\w]+)`", row) if name not in sources]


def test_modules_on_the_map_exist() -> None:
    named = re.findall(r"^ *(\w+(?:, \w+)*)  ", BLOCKS["map"]["body"], re.MULTILINE)
    modules = {module for names in named for module in names.split(", ")}
    assert modules
    assert [] == sorted(modules - {path.stem for path in (ROOT / "proxy").glob("**/*")})


def test_every_module_is_on_the_map() -> None:
    """The modules of commands have maps of their own."""
    found = [path for path in (ROOT / "proxy").glob("**/*") if path.suffix in {"", ".py"}]
    commands = {"checking", "evaluation", "loading", "local_models", "warming"}
    modules = {path.stem for path in found if path.parent.name not in commands}
    assert [] == [name for name in modules if "__" not in name and not re.search(rf"\b{name}\b", proxy.__doc__ or "")]


def anchors(page: Path) -> set[str]:
    """The fragments that lead to a heading, spelled as GitHub spells them."""
    headings = re.findall(r"^#+ (.*)$", outside_of_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in headings}


def outside_of_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", TEXTS_OF[page], flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """The files that a page links to, and the anchor in each."""
    found = re.findall(r"\]\(([^)\s]+)\)", outside_of_code(page))
    parts = [link.partition("#") for link in found if urlsplit(link).scheme == ""]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in parts]


def pages_linked_from(page: Path) -> list[Path]:
    return [path for path, _ in links(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_existing_files_and_headings(page: Path) -> None:
    assert [] == [str(path) for path, _ in links(page) if not path.exists()]
    assert [] == [(path.name, anchor) for path, anchor in links(page) if anchor and anchor not in anchors(path)]


def test_source_files_are_found() -> None:
    """The tests above search the source files for reasons and stages, so there must be some."""
    assert len(syntax_trees()) > 30
