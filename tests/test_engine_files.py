"""Engines for demo and tests: the table, the way their files come from a repository, and the Java they get.

The repository is a real web server, and `mvn` a command on the PATH that answers as Maven does.
"""

import hashlib
import io
import re
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo import maven
from demo.engine import Running, Start, free_ports, variables
from demo.engine_files import engine_home, module_texts, scratch_folder, tree_sha256, unpack_remote, verify
from demo.engine_layout import Access, Layout, demand_entry, settings
from demo.engines import DEFAULT, ENGINES, Archive, Artifact, Engine, EngineError, Javas, Module, named
from demo.java import Java, choose, installed
from demo.remote_zip import NoRangesError, RangeFile, spans, write_members

NAMES = [engine.name for engine in ENGINES]
every_engine = pytest.mark.parametrize("engine", ENGINES, ids=NAMES)

TREE = {"tree/a.txt": b"a" * 500, "tree/lib/b.bin": bytes(range(256)) * 9, "tree/empty/": b"", "other/c": b"c" * 300}
UNPACKED = {"a.txt": TREE["tree/a.txt"], "lib/b.bin": TREE["tree/lib/b.bin"]}


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Repository:
    """A web server with some files, which answers ranges unless told not to, and can break off its first answers."""

    files: Mapping[str, bytes]
    ranges: bool = True
    breaks: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        content = self.files.get(handler.path)
        if content is None:
            handler.send_error(404)
            return
        total, status = len(content), 200
        if self.ranges and (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))):
            content, status = content[int(asked[1]) : int(asked[2]) + 1], 206
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        if status == 206:
            handler.send_header("Content-Range", f"bytes {handler.headers['Range'][6:]}/{total}")
        handler.end_headers()
        if self.breaks and len(content) > 1:
            self.breaks -= 1
            content = content[: len(content) // 2]
        handler.wfile.write(content)


@contextmanager
def serving(repository: Repository) -> Iterator[Repository]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            repository.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            repository.url = f"http://127.0.0.1:{server.server_port}"
            yield repository
        finally:
            server.shutdown()
            thread.join()


# The table


@every_engine
def test_an_engine_is_named_after_its_family_and_version(engine: Engine) -> None:
    assert f"{engine.family}-{engine.version}" == engine.name
    assert engine is named(engine.name)


def test_names_are_unique_and_the_default_comes_first() -> None:
    assert sorted(set(NAMES)) == sorted(NAMES)
    assert DEFAULT is ENGINES[0]


@every_engine
def test_an_engines_tree_is_recorded(engine: Engine) -> None:
    assert re.fullmatch("[0-9a-f]{64}", engine.sha256)


@every_engine
def test_the_tested_java_versions_are_accepted(engine: Engine) -> None:
    assert engine.javas.proven
    assert all(engine.javas.take(version) for version in engine.javas.proven)


@every_engine
def test_the_launcher_script_is_filled_in(engine: Engine) -> None:
    """No placeholder is left in the engine's start script."""
    values = {"java_home": "/java", "home": "/home", "heap": "1g"}
    for launcher in filter(None, (engine.launcher, engine.keystore)):
        said = " ".join([*launcher.command(**values), *launcher.variables(**values).values()])
        assert "/java" in said
        assert "-Xms1g" in said
        assert not set("{}") & set(said)


@every_engine
def test_archives_and_modules_have_separate_folders(engine: Engine) -> None:
    for folders in ([each.into for each in engine.archives], [each.name for each in engine.modules]):
        assert sorted(set(folders)) == sorted(folders)


@every_engine
def test_modules_extend_existing_modules(engine: Engine) -> None:
    extended = {module.extends for module in engine.modules if module.extends}
    assert extended <= {module.name for module in engine.modules}


def test_an_unknown_engine_is_an_error_listing_the_known_ones() -> None:
    with pytest.raises(EngineError, match=re.escape(", ".join(NAMES))):
        named("solr-9")


def test_an_artifact_has_its_maven_path() -> None:
    assert "org/a/b/1.0/b-1.0.zip" == Artifact("org.a", "b", "1.0", "zip").path


# Java


@pytest.mark.parametrize(
    ("javas", "versions", "chosen"),
    [
        (Javas(proven=(17, 25), minimum=17), (25, 17), 17),
        (Javas(proven=(17, 25), minimum=17), (21, 25), 25),
        (Javas(proven=(17,), minimum=17), (18, 21, 22), 21),
        (Javas(proven=(17,), minimum=17), (18,), 18),
        (Javas(proven=(17,), minimum=17), (11, 8), None),
        (Javas(proven=(17,), minimum=17, maximum=23), (25,), None),
        (Javas(proven=(25,), minimum=21), (), None),
    ],
)
def test_a_tested_java_is_preferred_then_lts_then_any(
    javas: Javas, versions: Sequence[int], chosen: int | None
) -> None:
    found = [Java(Path(f"/jvm/{version}"), version) for version in versions]
    best = choose(javas, found)
    assert chosen == (best and best.version)


def test_of_two_equal_javas_the_first_found_is_used() -> None:
    found = [Java(Path("/first"), 17), Java(Path("/second"), 17)]
    assert found[0] == choose(Javas(proven=(17,), minimum=17), found)


def test_the_java_of_java_home_is_found_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin/java"
    written(tmp_path, {"bin/java": b"""#!/bin/sh\necho 'openjdk version "21.0.4" 2024-07-16' >&2\n"""})
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert Java(tmp_path, 21) == next(installed())


# A zip in part


def test_adjacent_members_share_a_range() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped(TREE))) as archive:
        (only,) = spans(archive, "tree/")
        assert ["tree/a.txt", "tree/lib/b.bin", "tree/empty/"] == [member.filename for member in only.members]
        assert (0, archive.getinfo("other/c").header_offset) == (only.start, only.end)


def test_an_unwanted_member_splits_the_range() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped({"t/a": b"a", "x": b"x", "t/b": b"b"}))) as archive:
        assert [["t/a"], ["t/b"]] == [[member.filename for member in span.members] for span in spans(archive, "t/")]


@pytest.mark.parametrize("limit", [1, 700, 1300, 10_000])
def test_a_range_of_several_members_is_limited(limit: int) -> None:
    members = {f"t/{number}": bytes(500) for number in range(6)}
    with zipfile.ZipFile(io.BytesIO(zipped(members, zipfile.ZIP_STORED))) as archive:
        found = spans(archive, "t/", limit)
        assert list(members) == [member.filename for span in found for member in span.members]
        assert all(len(span.members) == 1 or span.end - span.start <= limit for span in found)


def test_a_part_of_a_zip_is_unpacked_without_its_prefix(tmp_path: Path) -> None:
    with serving(Repository({"/a.zip": zipped(TREE)})) as repository:
        unpack_remote("an engine", f"{repository.url}/a.zip", "tree/", tmp_path)
    assert UNPACKED == files_below(tmp_path)
    assert (tmp_path / "empty").is_dir()


def test_a_server_without_range_requests_is_not_used(tmp_path: Path) -> None:
    with (
        serving(Repository({"/a.zip": zipped(TREE)}, ranges=False)) as repository,
        pytest.raises(NoRangesError, match="status 200"),
    ):
        unpack_remote("an engine", f"{repository.url}/a.zip", "tree/", tmp_path)
    assert {} == files_below(tmp_path)


def test_an_interrupted_download_is_resumed(tmp_path: Path) -> None:
    with serving(Repository({"/a.zip": zipped(TREE)}, breaks=2)) as repository:
        unpack_remote("an engine", f"{repository.url}/a.zip", "tree/", tmp_path)
    assert UNPACKED == files_below(tmp_path)


def test_repeatedly_interrupted_downloads_fail() -> None:
    with (
        serving(Repository({"/a.zip": zipped(TREE)}, breaks=100)) as repository,
        RangeFile(f"{repository.url}/a.zip") as remote,
        pytest.raises(OSError, match="3 times"),
    ):
        remote.load(0, 100)


def test_progress_counts_each_byte_once() -> None:
    content, told = zipped(TREE), [0]
    with serving(Repository({"/a.zip": content}, breaks=1)) as repository:
        with RangeFile(f"{repository.url}/a.zip", told.append) as remote:
            remote.load(0, len(content))
        assert len(content) == sum(told)


def test_a_corrupt_member_is_rejected(tmp_path: Path) -> None:
    content = zipped({"tree/a": b"the very words"}, zipfile.ZIP_STORED).replace(b"very words", b"evil words")
    with (
        serving(Repository({"/a.zip": content})) as repository,
        pytest.raises(zipfile.BadZipFile, match="CRC"),
    ):
        unpack_remote("an engine", f"{repository.url}/a.zip", "tree/", tmp_path)


@pytest.mark.parametrize("name", ["t/../../out", "t//out", "t/a/../../out"])
def test_a_member_outside_the_folder_is_rejected(name: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with zipfile.ZipFile(io.BytesIO(zipped({name: b"evil"}))) as archive:
        members = tuple(archive.infolist())
        with pytest.raises(zipfile.BadZipFile, match="outside"):
            write_members(archive, members, "t/", target)
    assert {} == files_below(tmp_path)


# What was unpacked


def written(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def sha256_of(files: Mapping[str, bytes]) -> str:
    lines = [f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_trees_checksum_covers_names_and_contents(tmp_path: Path) -> None:
    assert sha256_of(UNPACKED) == tree_sha256(written(tmp_path, UNPACKED))


def test_empty_folders_do_not_change_the_checksum(tmp_path: Path) -> None:
    (written(tmp_path, UNPACKED) / "logs").mkdir()
    assert sha256_of(UNPACKED) == tree_sha256(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [{"a.txt": b""}, {"b.txt": UNPACKED["a.txt"], "lib/b.bin": UNPACKED["lib/b.bin"]}, {**UNPACKED, "more": b""}],
    ids=["content", "name", "one more"],
)
def test_a_tree_with_another_checksum_is_rejected(changed: Mapping[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="delete that folder and run again"):
        verify(written(tmp_path, changed), sha256_of(UNPACKED))


# A whole fetch

_MVN = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$*" in
  *project.repositories*) echo "<repository><url>{url}/</url></repository>" ;;
  *effective-settings*) echo "<settings><mirrors>{mirror}</mirrors></settings>" ;;
  *dependency:copy*) for last; do :; done; cp "{folder}"/whole/* "${{last#-DoutputDirectory=}}" ;;
esac
"""

ARCHIVE = Archive(Artifact("org.demo", "engine", "1", "zip"), "tree/")
MODULE = Module("m", "org.demo.Plugin", (Artifact("org.demo", "m", "1"),), "other", ('a.Permission "b"',))
Fetching = Callable[..., Engine]


@pytest.fixture
def fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetching:
    """Make a small engine, Maven's answers to it, and a cache of its own."""

    def prepared(repository: Repository, modules: tuple[Module, ...] = (), mirror: str = "") -> Engine:
        whole = tmp_path / "whole"
        written(whole, {ARCHIVE.artifact.file_name: zipped(TREE), "m-1.jar": b"a jar"})
        mvn = tmp_path / "bin/mvn"
        mvn.parent.mkdir()
        mvn.write_text(_MVN.format(folder=tmp_path, url=repository.url, mirror=mirror))
        mvn.chmod(0o755)
        monkeypatch.setenv("PATH", f"{mvn.parent}:/usr/bin:/bin")
        monkeypatch.setenv("RERANK_PROXY_CACHE", str(tmp_path / "cache"))
        of_modules = {f"modules/m/{name}": text.encode() for name, text in module_texts(MODULE, "1").items()}
        expected = {**UNPACKED, **({"modules/m/m-1.jar": b"a jar", **of_modules} if modules else {})}
        return replace(
            DEFAULT, name="engine-1", version="1", archives=(ARCHIVE,), modules=modules, sha256=sha256_of(expected)
        )

    return prepared


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_an_engine_is_fetched_once_in_part(fetching: Fetching, tmp_path: Path) -> None:
    with serving(Repository({f"/{ARCHIVE.artifact.path}": zipped(TREE)})) as repository:
        engine = fetching(repository)
        home = engine_home(engine)
        asked = len(repository.asked)
        assert home == engine_home(engine)
        assert asked == len(repository.asked)
    assert UNPACKED == files_below(home)
    assert not [call for call in calls(tmp_path) if "dependency:copy" in call]


def test_without_range_requests_maven_downloads_the_whole_archive(fetching: Fetching) -> None:
    with serving(Repository({f"/{ARCHIVE.artifact.path}": zipped(TREE)}, ranges=False)) as repository:
        assert UNPACKED == files_below(engine_home(fetching(repository)))


def test_modules_get_jars_descriptor_and_permissions(fetching: Fetching) -> None:
    with serving(Repository({f"/{ARCHIVE.artifact.path}": zipped(TREE)})) as repository:
        home = engine_home(fetching(repository, modules=(MODULE,)))
    files = files_below(home / "modules/m")
    assert b"a jar" == files["m-1.jar"]
    assert b"classname=org.demo.Plugin\n" in files["plugin-descriptor.properties"]
    assert b"extended.plugins=other\n" in files["plugin-descriptor.properties"]
    assert b'grant {\n  permission a.Permission "b";\n};\n' == files["plugin-security.policy"]


def test_a_wrong_checksum_leaves_no_files(fetching: Fetching, tmp_path: Path) -> None:
    with serving(Repository({f"/{ARCHIVE.artifact.path}": zipped(TREE)})) as repository:
        engine = replace(fetching(repository), sha256="0" * 64)
        with pytest.raises(EngineError, match="is not the engine-1 recorded here"):
            engine_home(engine)
    assert ["fetch.lock"] == [path.name for path in (tmp_path / "cache").iterdir()]


def test_leftovers_of_a_killed_fetch_are_removed(fetching: Fetching, tmp_path: Path) -> None:
    left_over = written(tmp_path / "cache/.unpacking-killed", {"engine-1/half": b""})
    with serving(Repository({f"/{ARCHIVE.artifact.path}": zipped(TREE)})) as repository:
        engine_home(fetching(repository))
    assert not left_over.exists()


def test_mirrors_of_the_users_maven_settings_are_preferred(fetching: Fetching) -> None:
    fetching(Repository({}, url="https://central"), mirror="<mirror><url>https://mirror/all</url></mirror>")
    assert ["https://mirror/all", "https://central"] == maven.repository_urls()


def test_without_maven_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="install Maven"):
        maven.repository_urls()


# Folders of running engines


def test_a_scratch_folder_in_use_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_PROXY_CACHE", str(tmp_path))
    with scratch_folder() as one, scratch_folder() as other:
        assert one != other
        assert one.is_dir()
    assert not one.exists()
    assert not other.exists()


def test_a_scratch_folder_of_a_killed_process_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_PROXY_CACHE", str(tmp_path))
    left_over = written(tmp_path / ".running-killed", {"logs/start.log": b""})
    with scratch_folder():
        assert not left_over.exists()


# What an engine and its users are told


def layout(engine: Engine, access: Access) -> Layout:
    return Layout(engine, Java(Path("/java"), 17), Path("/home"), Path("/data"), (1, 2), access, "512m")


@every_engine
def test_an_engine_listens_on_the_loopback_address_only(engine: Engine) -> None:
    said = settings(layout(engine, Access())).splitlines()
    assert {"network.host: 127.0.0.1", "http.port: 1", "transport.port: 2", "path.data: /data"} <= set(said)
    assert all(line.startswith("xpack.security.enabled: false") for line in said if line.startswith("xpack"))


def test_a_folder_the_engines_user_cannot_enter_is_an_error(tmp_path: Path) -> None:
    """Otherwise Java reports a missing class."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EngineError, match=f"may not look into {closed}: `chmod o\\+x {closed}`"):
        demand_entry(closed)
    demand_entry(Path("/none/there/yet"))


def test_a_password_turns_security_on_and_tls_names_its_files() -> None:
    secure = layout(DEFAULT, Access("a password", tls=True))
    said = settings(secure)
    assert "xpack.security.enabled: true\n" in said
    assert f"xpack.security.http.ssl.certificate: {secure.certificate}\n" in said
    assert "a password" not in said
    assert "https://127.0.0.1:1" == secure.url


def test_a_password_is_generated_only_for_security_or_tls() -> None:
    assert [False, True, True] == [
        start.access().password is not None for start in (Start(), Start(security=True), Start(tls=True))
    ]


def test_a_command_gets_the_addresses_of_all_engines() -> None:
    found = [Running(ENGINES[0], "http://a"), Running(ENGINES[2], "http://b")]
    secure = Running(ENGINES[0], "https://c", "a password", Path("/ca"))
    plain = {
        "REAL_ENGINE_URL": "http://a",
        "REAL_ENGINES": f'{{"{NAMES[0]}": "http://a", "{NAMES[2]}": "http://b"}}',
    }
    assert plain == variables(found)
    assert {
        **plain,
        "REAL_ENGINE_SECURE_URL": "https://c",
        "REAL_ENGINE_PASSWORD": "a password",
        "REAL_ENGINE_CA": "/ca",
    } == variables([*found, secure])


def test_free_ports_are_distinct() -> None:
    assert 8 == len(set(free_ports(8)))


def test_a_preferred_port_is_taken_if_it_is_free() -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        used = listening.getsockname()[1]
        first, second, third = free_ports(3, (used, free))
    assert free == second
    assert used not in {first, third}
