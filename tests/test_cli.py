"""The command line says what each command does, and ends what goes wrong with a line that says what to do."""

import argparse
import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from proxy.cli import build_parser, main
from proxy.commands.loading.mappings import SPELLINGS, folder, index_for, shipped_embedding
from proxy.settings.profiles import CHOICES, PRIORITIES, PRIORITY_MEANINGS, PROFILES, TIERS
from tests.conftest import QUERY
from tests.fakes import FakeEngine, closed_port

COMMANDS = ("serve", "check", "profiles", "models", "mapping", "index", "backfill", "eval", "costs", "warm")
OPTIONS: Mapping[str, Sequence[str]] = {
    "serve": ("--config", "--engine", "--models", "--listen"),
    "check": ("--config", "--engine", "--models", "--offline", "--json", "--search", "--index"),
    "profiles": ("--instructions", "--json"),
    "models": ("--listen",),
    "mapping": ("--engine-kind", "--language", "--dimensions", "--no-vectors"),
    "index": (
        "--dry-run",
        "--name",
        "--profile",
        "--language",
        "--id-field",
        "--no-vectors",
        "--tier",
        "--dimensions",
        "--config",
    ),
    "backfill": (
        "--dry-run",
        "--profile",
        "--rate",
        "--watch",
        "--interval",
        "--tier",
        "--passage",
        "--field",
        "--config",
    ),
    "warm": (
        "--template",
        "--index",
        "--proxy",
        "--authorization-env",
        "--top",
        "--rate",
        "--max-cost",
        "--dry-run",
        "--config",
        "--background",
    ),
    "costs": ("--admin", "--days", "--json", "--config"),
    "eval": ("--judgments", "--template", "--baseline", "--proxy", "--authorization-env", "--min-gain", "--runs"),
}
REMOTE = "routes: [{index: a}]\n"


def write(folder: Path, text: str) -> str:
    file = folder / "config.yaml"
    file.write_text(text)
    return str(file)


def ends(*arguments: str) -> int | str | None:
    """Return the code of a command that argparse ends."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_version_prints_the_version_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--version") == 0
    assert capsys.readouterr().out == f"rerank-proxy {version('es-rerank-proxy')}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--help") == 0
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if not re.search(rf"^ +{name} +\S", said, re.MULTILINE)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_says_what_it_does_and_explains_every_option(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(command, "--help") == 0
    said = capsys.readouterr().out
    assert [option for option in OPTIONS[command] if option not in said] == []
    (commands,) = [action for action in build_parser()._actions if action.dest == "command"]  # noqa: SLF001
    parser: Any = (commands.choices or {})[command]  # type: ignore[index]
    assert parser.description
    assert [action.dest for action in parser._actions if not action.help] == []  # noqa: SLF001


def parsers(parser: argparse.ArgumentParser, *names: str) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Walk through a parser and all subcommands below it."""
    yield names, parser
    for action in parser._actions:  # noqa: SLF001  argparse names its commands nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for name, inner in action.choices.items():
                yield from parsers(inner, *names, name)


SUBCOMMANDS = [(" ".join(names), parser) for names, parser in parsers(build_parser()) if names]


def test_these_tests_cover_all_commands() -> None:
    assert set(COMMANDS) <= {name for name, _ in SUBCOMMANDS}


@pytest.mark.parametrize(("name", "parser"), SUBCOMMANDS, ids=[name for name, _ in SUBCOMMANDS])
def test_help_of_every_subcommand_ends_with_examples_that_parse(name: str, parser: argparse.ArgumentParser) -> None:
    heading, *examples = (parser.epilog or "").splitlines()
    assert heading == "examples:"
    assert examples
    for example in examples:
        program, *arguments = shlex.split(example.partition(" < ")[0])
        assert program == "rerank-proxy"
        assert arguments[: len(name.split())] == name.split()
        build_parser().parse_args(arguments)


@pytest.mark.parametrize(("name", "parser"), SUBCOMMANDS, ids=[name for name, _ in SUBCOMMANDS])
def test_help_of_every_subcommand_fits_into_80_columns(
    name: str, parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in parser.format_help().splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("serf",), "invalid choice: 'serf'"),
        (("index", "f"), "the following arguments are required: --name"),
        (("index", "f", "--name", "n", "--profile", "shop"), "invalid choice: 'shop'"),
        (("index", "f", "--name", "n", "--language", "klingon"), "invalid choice: 'klingon'"),
        (("index", "f", "--name", "n", "--dimensions", "0"), "expected a whole number of at least 1"),
        (("backfill", "n", "--rate", "0"), "expected a number greater than 0"),
        (("backfill", "n", "--rate", "fast"), "--rate: expected a number, not 'fast'"),
        (("backfill",), "the following arguments are required: index"),
        (("check", "mine.yaml"), "check: unknown arguments: mine.yaml; name the settings file with -c. Run"),
        (("serve", "--nope"), "serve: unknown arguments: --nope. Run `rerank-proxy serve --help` for the options"),
    ],
)
def test_invalid_arguments_are_an_error_with_the_usage(
    arguments: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(*arguments) == 2
    output = capsys.readouterr().err
    assert output.startswith("usage: rerank-proxy")
    assert said in output


@pytest.mark.parametrize("command", ["serve", "check"])
def test_invalid_settings_are_an_error_with_key_and_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, "listen:\n  prot: 1\n")
    assert main((command, "-c", file)) == 1
    assert capsys.readouterr().err == f"rerank-proxy: {file}:2: listen.prot: unknown key, did you mean `port`?\n"


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_missing_file_is_an_error_with_advice(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main((command, "-c", str(tmp_path / "none.yaml"))) == 1
    assert "Name another file with -c." in capsys.readouterr().err


def test_serve_without_the_token_is_an_error_naming_the_variable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("serve", "-c", write(tmp_path, REMOTE + "models: {token_env: MY_TOKEN}"))) == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "rerank-proxy: MY_TOKEN is not set, but the models at https://api.deepinfra.com need a token"
    )
    assert "export MY_TOKEN=" in said
    assert "`rerank-proxy models`" in said


def test_serve_without_the_configured_authorization_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("serve", "-c", write(tmp_path, "engine: {authorization_env: MY_AUTH}"))) == 1
    assert capsys.readouterr().err.startswith("rerank-proxy: MY_AUTH is not set")


def test_serve_names_the_address_it_cannot_listen_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """192.0.2.0/24 is reserved for documentation (RFC 5737), so no machine has the address."""
    assert main(("serve", "-c", write(tmp_path, ""), "--listen", "192.0.2.1:9201")) == 1
    said = capsys.readouterr().err
    assert said.startswith("rerank-proxy: cannot listen on 192.0.2.1:9201: ")
    assert "--listen HOST:PORT" in said


@pytest.mark.parametrize("address", ["9201", ":80", "a:b"])
def test_models_explains_the_format_of_an_address(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("models", "--listen", address)) == 1
    assert "--listen: expected host:port, as in 127.0.0.1:8080" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("index", "-", "--name", "n"), ("backfill", "n")])
def test_index_needs_the_token_whatever_the_routes(
    command: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main((*command, "-c", write(tmp_path, ""))) == 1
    assert "DEEPINFRA_TOKEN is not set" in capsys.readouterr().err


def test_index_names_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("index", str(tmp_path / "none"), "--name", "n", "--no-vectors", "-c", write(tmp_path, ""))
    assert main(arguments) == 1
    assert "Name a file of documents, or - for standard input." in capsys.readouterr().err


def test_index_reports_only_the_error_that_prevents_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And no counts of documents, because none was read."""
    engine, settings = f"http://127.0.0.1:{closed_port()}", write(tmp_path, "")
    assert main(("index", settings, "--name", "n", "--no-vectors", "--engine", engine, "-c", settings)) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("rerank-proxy: the engine cannot be reached: ")


def test_check_reports_each_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be reached is neither `ok` nor `wrong`."""
    away = f"http://127.0.0.1:{closed_port()}"
    file = write(tmp_path, REMOTE + f"engine: {{url: '{away}'}}\nmodels: {{url: '{away}'}}")
    assert main(("check", "-c", file)) == 2
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ok           file: 1 route"
    assert said[1] == "ok           token: DEEPINFRA_TOKEN is not needed"
    assert said[2].startswith(f"unreachable  engine: {away} cannot be reached: ")
    assert said[3].startswith("unreachable  reranker: ")


def test_check_fails_if_a_named_variable_is_not_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("check", "-c", write(tmp_path, "engine: {authorization_env: MY_AUTH}"))) == 1
    assert "wrong        engine: MY_AUTH is not set" in capsys.readouterr().out


def test_check_offline_sends_no_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, REMOTE + f"engine: {{url: 'http://127.0.0.1:{closed_port()}'}}")
    assert main(("check", "--offline", "-c", file)) == 0
    assert ["ok", "note"] == [line.split()[0] for line in capsys.readouterr().out.splitlines()]


def test_check_prints_json_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, "routes: [{index: a}, {index: a}]\nmodels: {url: 'http://127.0.0.1:1'}")
    assert main(("check", "--offline", "--json", "-c", file)) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["exit"] == 1
    assert {"kind": "wrong", "place": f"{file}:1: routes[1].index"}.items() <= said["findings"][1].items()


@pytest.mark.parametrize(
    "options", [("--search", "f"), ("--index", "i"), ("--search", "f", "--index", "i", "--offline")]
)
def test_check_search_needs_file_index_and_engine(
    options: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("check", *options, "-c", write(tmp_path, ""))) == 1
    assert "--search FILE and --index NAME go together" in capsys.readouterr().err


def test_check_search_names_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.json")
    assert main(("check", "--search", missing, "--index", "i", "-c", write(tmp_path, ""))) == 1
    assert capsys.readouterr().err == (f"rerank-proxy: {missing}: No such file or directory. Name another file.\n")


def test_check_search_without_the_engine_is_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, body = f"http://127.0.0.1:{closed_port()}", write(tmp_path, "{}")
    arguments = ("check", "--search", body, "--index", "i", "--engine", engine, "-c", write(tmp_path, ""))
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("rerank-proxy: the engine cannot be reached: ")


async def test_check_search_prints_json_or_text(
    engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    route = "routes: [{index: 'products*', passage: [title], semantic: {field: embedding, dimensions: 3}}]"
    body = tmp_path / "body.json"
    body.write_text(json.dumps(QUERY), encoding="utf-8")
    file = write(tmp_path, route)
    arguments = ("check", "-c", file, "--search", str(body), "--index", "products", "--engine", engine.url)
    assert 0 == await asyncio.to_thread(main, (*arguments, "--json"))
    said = json.loads(capsys.readouterr().out)
    assert ("reranked", "products*", "laptop") == (said["outcome"], said["route"], said["query_text"])
    assert 0 == await asyncio.to_thread(main, arguments)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("reranked", "products*", "laptop"))


@pytest.fixture(params=["80", "400"])
def profiles(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    """What `profiles` prints into a terminal of this width."""
    monkeypatch.setenv("COLUMNS", request.param)
    assert main(("profiles", "--instructions")) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= int(request.param)
    return printed


def entries(printed: str) -> Mapping[str, str]:
    """The entries of a list of names and texts, each unfolded."""
    found = re.split(r"\n  (?=\S)", printed)[1:]
    return {" ".join(entry.split()): entry.split("  ")[0] for entry in found}


def test_profiles_prints_every_profile_with_its_instruction(profiles: str) -> None:
    for profile in PROFILES.values():
        said = next(text for text, name in entries(profiles).items() if name == profile.name)
        assert profile.use in said
        assert f"tier {profile.tier}, window {profile.rank_window_size}, passage: {', '.join(profile.passage)}" in said
        assert profile.instruction in said


def test_profiles_prints_the_decision_matrix(profiles: str) -> None:
    said = entries(profiles)
    for priority, tier in PRIORITIES.items():
        assert any(text.startswith(f"{priority} tier {tier}: {PRIORITY_MEANINGS[priority]}") for text in said)
    for name, models in TIERS.items():
        assert any(text.startswith(name) and models.embedding in text and models.rerank in text for text in said)
    for choice in CHOICES:
        assert any(text.startswith(choice.name) and choice.settings in text and choice.when in text for text in said)


def test_profiles_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("profiles", "--json")) == 0
    said = json.loads(capsys.readouterr().out)
    assert [profile["name"] for profile in said["profiles"]] == list(PROFILES)
    assert [profile["instruction"] for profile in said["profiles"]] == [each.instruction for each in PROFILES.values()]
    assert [profile["mapping"] for profile in said["profiles"]] == [each.mapping for each in PROFILES.values()]
    assert {name: each["tier"] for name, each in said["priorities"].items()} == PRIORITIES
    assert said["tiers"].keys() == TIERS.keys()
    assert [choice["name"] for choice in said["choices"]] == [choice.name for choice in CHOICES]


@pytest.mark.parametrize("kind", SPELLINGS)
def test_mapping_prints_what_creates_an_index(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    embedding = replace(shipped_embedding("legal"), dimensions=7)
    asked = ("mapping", "legal", "--engine-kind", kind, "--language", "german", "--dimensions", "7")
    assert main(asked) == 0
    assert json.loads(capsys.readouterr().out) == index_for("legal", embedding, "german", SPELLINGS[kind])


def test_mapping_prints_the_elasticsearch_file_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("mapping", "rag")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder() / PROFILES["rag"].mapping).read_bytes())


def test_mapping_can_omit_vectors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(("mapping", "rag", "--no-vectors")) == 0
    assert "embedding" not in json.loads(capsys.readouterr().out)["mappings"]["properties"]


@pytest.mark.parametrize("value", ["x", "nan", "inf", "0", "-1"])
@pytest.mark.parametrize("option", ["--max-cost", "--rate", "--top"])
def test_an_invalid_number_is_an_error_with_what_is_expected(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["warm", "texts", "--index", "p", f"{option}={value}"])
    said = capsys.readouterr().err
    assert f"argument {option}: expected a" in said
    assert f"not '{value}'. Run `rerank-proxy warm --help`" in said


@pytest.mark.parametrize("command", [["profiles"], ["mapping", "code", "--no-vectors"]])
def test_a_command_whose_reader_leaves_ends_silently(command: Sequence[str]) -> None:
    """As with `rerank-proxy profiles | head -1`."""
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "proxy", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: PT018
        process.stdout.close()
        said = process.stderr.read()
    assert (b"", 141) == (said, process.returncode)
