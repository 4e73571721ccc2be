"""`rerank-proxy eval` from its arguments to its exit code, before an engine and a proxy that really speak HTTP."""

import asyncio
import io
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pytest
import trustme

from proxy.cli import build_parser, main
from proxy.commands.evaluation.command import evaluate, options_of
from proxy.commands.evaluation.errors import CannotEvaluate
from tests.fakes import FakeServer, Message, Stream, answer, closed_port, waits_for
from tests.integration.commands import Running, begun

QUERIES = 40
KIND = "/products/_search"


class Judged(FakeServer):
    """Finds the same documents for every query; the one that is judged perfect at the place said."""

    def __init__(self, place: int, outcome: str | None = None) -> None:
        super().__init__()
        self.place = place
        self.outcomes: dict[str, str | None] = {}
        self.usually = outcome

    def usual(self, request: Message) -> bytes:
        names = [f"d{number}" for number in range(1, 10)]
        names.insert(self.place - 1, "perfect")
        content = json.dumps({"hits": {"hits": [{"_id": name} for name in names]}}).encode()
        text = request.json()["query"]["match"]["title"]
        outcome = self.outcomes.get(text, self.usually)
        return answer(200, content, *([("X-Rerank", outcome)] if outcome else []))


@dataclass(frozen=True)
class Setting:
    """Files, and the two servers."""

    folder: Path
    engine: Judged
    proxy: Judged

    def arguments(self, *more: str, **instead: str) -> list[str]:
        given = {
            "queries": str(self.folder / "queries.tsv"),
            "judgments": str(self.folder / "qrels.txt"),
            "template": str(self.folder / "search.json"),
            "index": "products",
            "baseline": self.engine.url,
            "proxy": self.proxy.url,
        } | instead
        return ["eval", *(word for name, value in given.items() for word in (f"--{name}", value)), *more]

    async def measured(self, *more: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run it within the test's own process, which starts faster."""
        said, out = build_parser().parse_args(self.arguments(*more)), io.StringIO()
        return await evaluate(options_of(said, KIND, environment or {}), out), out.getvalue()

    async def runs(
        self, *more: str, environment: Mapping[str, str] | None = None, **instead: str
    ) -> tuple[int, str, str]:
        command = await begun(*self.arguments(*more, **instead), environment=environment)
        out, err = await command.process.communicate()
        assert command.process.returncode is not None
        return command.process.returncode, out.decode(), err.decode()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    (tmp_path / "queries.tsv").write_text("".join(f"q{number}\tshoes {number}\n" for number in range(QUERIES)))
    (tmp_path / "qrels.txt").write_text("".join(f"q{number} 0 perfect 3\n" for number in range(QUERIES)))
    (tmp_path / "search.json").write_text('{"query": {"match": {"title": "{{query}}"}}}')
    async with Judged(4) as engine, Judged(1, "reranked") as proxy:
        yield Setting(tmp_path, engine, proxy)


async def test_a_run_reports_the_gain(setting: Setting) -> None:
    code, out, err = await setting.runs("--show", "1")
    assert (0, "") == (code, err)
    assert "\nnDCG@10: better: +56.9 points, 95 % interval +56.9 to +56.9, 40 queries\n" in out
    assert "gained most:\n   +56.9  “shoes 0” (q0): perfect (grade 3) from rank 4 to 1\n" in out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert "MRR 0.250 1.000 +75.0 (+75.0 to +75.0)" in rows
    assert "recall@100 1.000 1.000 +0.0 (+0.0 to +0.0)" in rows


async def test_json_output_and_run_files_are_written(setting: Setting) -> None:
    code, out = await setting.measured("--json", "--runs", str(setting.folder / "made" / "runs"))
    said = json.loads(out)
    assert (0, "better", QUERIES) == (code, said["verdict"]["meaning"], said["compared"])
    lines = (setting.folder / "made/runs/proxy.run").read_text().splitlines()
    assert (QUERIES * 10, "q0 Q0 perfect 1 10 proxy") == (len(lines), lines[0])
    assert "q0 Q0 d1 1 10 baseline" == (setting.folder / "made/runs/baseline.run").read_text().splitlines()[0]


@pytest.mark.parametrize(("points", "code"), [("50", 0), ("60", 1), ("-1", 0)])
async def test_a_gain_below_the_minimum_fails(setting: Setting, points: str, code: int) -> None:
    ended, out = await setting.measured("--min-gain", points)
    assert code == ended
    assert f"--min-gain {points} is {'missed' if code else 'reached'} by nDCG@10: +56.9 points\n" in out


async def test_a_negative_minimum_allows_a_loss(setting: Setting) -> None:
    setting.engine.place, setting.proxy.place = 1, 2
    assert 1 == (await setting.measured("--min-gain", "-1"))[0]
    assert 0 == (await setting.measured("--min-gain", "-40"))[0]


async def test_without_a_verdict_the_exit_code_differs(setting: Setting) -> None:
    setting.proxy.outcomes["shoes 3"] = "bypassed;reason=identifier"
    setting.proxy.outcomes["shoes 5"] = 'degraded;stages="rerank";reason=timeout'
    code, out = await setting.measured("--min-gain", "1")
    assert 3 == code
    assert "38 reranked, 1 bypassed (identifier), 1 degraded (without rerank, timeout)" in out
    assert "no verdict: 2 of 40 searches of the proxy failed or were not reranked, more than 2%" in out


async def test_an_unreachable_address_has_its_own_exit_code(setting: Setting) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    code, out, err = await setting.runs(proxy=url)
    assert (2, "") == (code, out)
    assert err.startswith(f"rerank-proxy: {url} cannot be reached: ")
    assert "Start it, or correct --proxy" in err
    assert "Traceback" not in err


async def test_an_aborted_run_reports_partial_results(setting: Setting) -> None:
    async def leave(stream: Stream, request: Message) -> bytes | None:
        return answer(500, b"{}") if len(setting.proxy.requests) > 20 else None

    setting.proxy.faults[KIND] = leave
    code, out = await setting.measured("--concurrency", "1", "--json")
    said = json.loads(out)
    assert (1, 20) == (code, said["compared"])
    assert "11 searches failed, the last one by: status 500. Send the same search with curl" in said["no_verdict"]
    assert "(30 of 40 queries were asked)" in said["no_verdict"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_reports_partial_results(setting: Setting, number: signal.Signals) -> None:
    never = waits_for(asyncio.Event())

    async def hang_later(stream: Stream, request: Message) -> bytes | None:
        return await never(stream, request) if len(setting.proxy.requests) > 15 else None

    setting.proxy.faults[KIND] = hang_later
    command: Running = await begun(*setting.arguments("--concurrency", "1"))
    await setting.proxy.until_asked(KIND, 16)
    os.kill(command.process.pid, number)
    out, err = await command.process.communicate()
    assert (128 + number, b"") == (command.process.returncode, err)
    assert "no verdict: interrupted (15 of 40 queries were asked)\n" in out.decode()
    assert "15 of 40 queries compared" in out.decode()


async def test_credentials_are_per_address_or_shared(setting: Setting) -> None:
    rights = {"ONE": "ApiKey a1b2", "TWO": "Basic c3d4"}
    words = ("--authorization-env", "ONE", "--proxy-authorization-env", "TWO")
    code, out = await setting.measured(*words, environment=rights)
    assert 0 == code
    assert {"ApiKey a1b2"} == {request.header("authorization") for request in setting.engine.requests}
    assert {"Basic c3d4"} == {request.header("authorization") for request in setting.proxy.requests}
    assert not [word for word in ("a1b2", "c3d4") if word in out]


async def test_the_index_name_is_encoded_in_the_url(setting: Setting) -> None:
    await setting.runs(index="a b,<logs-{now/d}>?routing=x&preference=_local")
    assert {"/a%20b,<logs-%7Bnow%2Fd%7D>/_search?routing=x&preference=_local"} == {
        request.target for request in setting.engine.requests
    }


@pytest.mark.parametrize(
    ("more", "instead", "said"),
    [
        (
            ("--authorization-env", "NOT_SET"),
            {},
            "NOT_SET is not set, but --authorization-env names it: set the variable, or remove the option",
        ),
        ((), {"proxy": "http://me:secret@127.0.0.1:9201"}, "--proxy: remove the credentials: name the variable"),
        ((), {"baseline": "127.0.0.1:9200"}, "--baseline: expected a URL like http://127.0.0.1:9200"),
        (
            (),
            {"judgments": "missing.txt"},
            "missing.txt: No such file or directory. Name a file of queries or judgments",
        ),
        (
            (),
            {"template": "missing.json"},
            "missing.json: No such file or directory. Name a file with a search body that contains {{query}}",
        ),
        (("--concurrency", "65"), {}, "--concurrency: at most 64 queries at a time"),
        (("--runs", "/dev/null/runs"), {}, "--runs /dev/null/runs: "),
        (("--ca-file", "missing.pem"), {"proxy": "https://127.0.0.1:9201"}, "--ca-file: missing.pem: cannot be read"),
    ],
)
def test_invalid_arguments_are_reported_before_any_request(
    tmp_path: Path, more: tuple[str, ...], instead: Mapping[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queries.tsv").write_text("q\tshoes\n")
    (tmp_path / "qrels.txt").write_text("q 0 a 1\n")
    (tmp_path / "search.json").write_text('{"query": {"match": {"title": "{{query}}"}}}')
    url = f"http://127.0.0.1:{closed_port()}"
    given = {
        "queries": str(tmp_path / "queries.tsv"),
        "judgments": str(tmp_path / "qrels.txt"),
        "template": str(tmp_path / "search.json"),
        "index": "products",
        "baseline": url,
        "proxy": url,
    } | dict(instead)
    assert 1 == main(["eval", *(word for name, value in given.items() for word in (f"--{name}", value)), *more])
    shown = capsys.readouterr()
    assert "" == shown.out
    assert said in shown.err
    assert "secret" not in shown.err


def test_missing_packages_are_an_error_with_their_installation() -> None:
    script = "import sys; sys.modules['ir_measures'] = None; from proxy.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ("eval", "--judgments", "j", "--template", "t", "--index", "i")
    ended = subprocess.run(  # noqa: S603  our own
        [sys.executable, "-c", script, *words], check=False, capture_output=True, text=True
    )
    assert 1 == ended.returncode
    said = "rerank-proxy: the evaluation is not installed (ir_measures): pip install -c constraints.txt '.[eval]' in"
    assert said in ended.stderr


@pytest.mark.parametrize("points", ["nan", "inf", "much"])
def test_a_minimum_gain_that_is_not_a_number_is_rejected(points: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("eval", "--judgments", "j", "--template", "t", "--index", "i", "--min-gain", points)
    with pytest.raises(SystemExit):
        build_parser().parse_args(words)
    assert "argument --min-gain: " in capsys.readouterr().err


async def test_too_many_hits_are_rejected(setting: Setting) -> None:
    (setting.folder / "search.json").write_text('{"query": {"match": {"title": "{{query}}"}}, "size": 10000000}')
    with pytest.raises(CannotEvaluate, match=r"40 queries with 10,000,000 hits each are more than 5,000,000 hits: "):
        await setting.measured()
    assert [] == setting.engine.requests


class Secure(Judged):
    """The same by https."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(1, "reranked")
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self.tls)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


async def test_https_addresses_are_verified_with_the_named_certificates(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, file = trustme.CA(), setting.folder / "ca.pem"
    authority.cert_pem.write_to_path(file)
    async with Secure(authority) as proxy:
        reached = replace(setting, proxy=proxy)
        assert 0 == (await reached.measured("--ca-file", str(file)))[0]
        asked = len(proxy.requests)
        code, _ = await reached.measured()
    assert (QUERIES, 2) == (asked, code)
    assert QUERIES == len(proxy.requests)
    assert "cannot be trusted" in (said := capsys.readouterr().err)
    assert "Name the certificates to trust with --ca-file" in said
