"""Dockerfile and docker-compose.yml agree with the settings, the code and each other; no Docker is needed to see it."""

import ast
import fnmatch
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from demo.engines import DEFAULT
from proxy.app import GRACE_S
from proxy.cli import build_parser
from proxy.cli.arguments import CONFIG_VARIABLE
from proxy.settings.config import Config, Listen
from proxy.settings.config_file import load
from proxy.settings.credentials import needs_token, token_of
from tests.readme import variables_in

ROOT = Path(__file__).parent.parent
OURS = ("models", "proxy")
"""Services that the Dockerfile builds, each by the stage of its name."""


@dataclass(slots=True)
class Stage:
    """A stage of the Dockerfile: what it stands on, and its instructions."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def read_dockerfile(text: str) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, said = line.partition(" ")
        if instruction == "FROM":
            base, _, name = said.partition(" AS ")
            stages[name] = Stage(name, base)
        else:
            list(stages.values())[-1].instructions.append((instruction, said))
    return stages


STAGES = read_dockerfile((ROOT / "Dockerfile").read_text())
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]


def of_image(name: str) -> list[tuple[str, str]]:
    """The instructions that make an image: those of the stages it stands on, then its own."""
    stage = STAGES[name]
    return [*(of_image(stage.base) if stage.base in STAGES else []), *stage.instructions]


def last(name: str, instruction: str) -> str:
    return [said for kind, said in of_image(name) if kind == instruction][-1]


def environment_of_image(name: str) -> dict[str, str]:
    return dict(said.split("=", 1) for kind, said in of_image(name) if kind == "ENV")


def environment_of_service(name: str, host: Mapping[str, str]) -> dict[str, str]:
    """What a container's process sees, with these variables set where `docker compose` is called."""

    def expanded(value: str) -> str:
        return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: host.get(found[1]) or found[2], value)

    return {key: expanded(value) for key, value in SERVICES[name].get("environment", {}).items()}


def settings_in_compose(host: Mapping[str, str]) -> tuple[Config, Mapping[str, str]]:
    environment = environment_of_image("proxy") | environment_of_service("proxy", host)
    return load(ROOT / "config.yaml", environment), environment


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def listening_ports() -> dict[str, int]:
    """The port of each service; Elasticsearch's and Kibana's are those of their images."""
    return {"elasticsearch": 9200, "kibana": 5601} | {name: int(last(name, "EXPOSE")) for name in OURS}


def test_the_compose_file_follows_the_specification() -> None:
    """Its JSON schema is compose-spec/compose-spec at 170098b (Apache-2.0)."""
    schema = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [] == [f"{error.json_path}: {error.message}" for error in validator.iter_errors(COMPOSE)]
    assert next(validator.iter_errors({"services": {"proxy": {"port": []}}}), None)


def test_the_compose_file_has_four_services() -> None:
    assert {"elasticsearch", "kibana", "models", "proxy"} == set(SERVICES)


def test_the_default_build_target_is_the_proxy() -> None:
    assert "proxy" == list(STAGES)[-1]


@pytest.mark.parametrize("name", OURS)
def test_an_image_does_not_run_as_root(name: str) -> None:
    user, _, group = last(name, "USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("name", OURS)
def test_images_contain_no_build_tools(name: str) -> None:
    """The final image installs nothing, copies only the finished environment, and removes the base image's pip."""
    steps = of_image(name)
    assert all(said.startswith("--from=") for kind, said in steps if kind == "COPY")
    assert ["pip uninstall --yes --root-user-action=ignore pip"] == [said for kind, said in steps if kind == "RUN"]
    assert ("RUN", "python -m venv --without-pip /opt/rerank-proxy") in STAGES["build"].instructions


@pytest.mark.parametrize("name", OURS)
def test_images_copy_from_existing_build_stages(name: str) -> None:
    (copied,) = [shlex.split(said) for kind, said in of_image(name) if kind == "COPY"]
    source = copied[0].removeprefix("--from=")
    assert source in STAGES
    assert copied[1] == copied[2]
    assert f"{copied[2]}/bin:$PATH" == environment_of_image(name)["PATH"]


def sent_to_the_builder(path: str) -> bool:
    """Read .dockerignore as Docker does: the last line that matches a path decides."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if pattern and not line.startswith("#") and fnmatch.fnmatch(path, pattern):
            sent = line.startswith("!")
    return sent


def test_only_the_copied_files_are_in_the_build_context() -> None:
    copied = {name for kind, said in STAGES["build"].instructions if kind == "COPY" for name in said.split()[:-1]}
    assert {name for name in copied if (ROOT / name).exists()} == copied
    assert copied == {path.name for path in ROOT.iterdir() if sent_to_the_builder(path.name)}


def test_the_tests_run_on_the_python_of_the_images_and_on_the_oldest_supported_one() -> None:
    run = dict(re.findall(r"^(newest|oldest)=\$\(python ([\d.]+)\)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))
    bases = {stage.base for stage in STAGES.values() if stage.base not in STAGES}
    assert {f"python:{run['newest']}-slim"} == bases
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={run['oldest']}"
    assert f"Programming Language :: Python :: {run['newest']}" in project["classifiers"]


@pytest.mark.parametrize("name", ["build", "build-models"])
def test_images_install_the_tested_versions(name: str) -> None:
    installs = [shlex.split(said) for kind, said in STAGES[name].instructions if kind == "RUN" and " install " in said]
    assert installs
    assert [words for words in installs if words[-3:-1] != ["-c", "constraints.txt"]] == []


def test_the_extra_of_the_local_models_exists() -> None:
    installed = [said.split()[-1] for kind, said in STAGES["build-models"].instructions if kind == "RUN"]
    assert ['".[local]"'] == installed
    assert re.search(r"^local = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_containers_run_existing_commands(name: str) -> None:
    program, *arguments = json.loads(last(name, "ENTRYPOINT")) + json.loads(last(name, "CMD"))
    assert "rerank-proxy" == program
    options = build_parser().parse_args(arguments)
    assert {"proxy": "serve", "models": "models"}[name] == options.command
    if name == "models":
        assert f"0.0.0.0:{listening_ports()['models']}" == options.listen


def own_variables() -> Iterator[str]:
    yield from environment_of_image("proxy")
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            yield key
            yield from re.findall(r"\$\{(\w+)", value)


def test_the_proxys_variables_are_those_it_reads() -> None:
    named = {name for name in own_variables() if name.startswith("RERANK_PROXY_")}
    assert variables_in("proxy") == named
    assert Config().models.token_env in SERVICES["proxy"]["environment"]


@pytest.mark.parametrize("name", OURS)
def test_health_checks_use_the_listening_port(name: str) -> None:
    check = last(name, "HEALTHCHECK")
    program, option, code = json.loads(check.partition("CMD ")[2])
    assert ("python", "-c") == (program, option)
    assert {listening_ports()[name]} == {int(port) for port in re.findall(r"\b\d{4}\b", ast.unparse(ast.parse(code)))}


@pytest.mark.parametrize("name", ["elasticsearch", "kibana"])
def test_engine_and_kibana_have_the_tested_version(name: str) -> None:
    assert f"{name}:{DEFAULT.version}" == SERVICES[name]["image"]


@pytest.mark.parametrize("name", ["elasticsearch", "kibana"])
def test_health_checks_of_images_use_their_port(name: str) -> None:
    assert listening_ports()[name] == port_of(SERVICES[name]["healthcheck"]["test"][-1])


@pytest.mark.parametrize("name", OURS)
def test_services_are_built_from_existing_stages(name: str) -> None:
    assert {"context": ".", "target": name} == SERVICES[name]["build"]
    assert name in STAGES


def test_services_wait_for_healthy_dependencies() -> None:
    """Kibana starts after the proxy, and the proxy after the engine and the models; each has a health check."""
    waits = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert {"elasticsearch": set(), "models": set(), "proxy": {"elasticsearch", "models"}, "kibana": {"proxy"}} == waits
    for service in SERVICES.values():
        for awaited, how in service.get("depends_on", {}).items():
            assert {"condition": "service_healthy"} == how
            assert awaited in OURS or "healthcheck" in SERVICES[awaited]


def test_kibana_is_connected_to_the_proxy() -> None:
    assert f"http://proxy:{listening_ports()['proxy']}" == SERVICES["kibana"]["environment"]["ELASTICSEARCH_HOSTS"]


def test_the_proxy_finds_engine_and_models_and_needs_no_token() -> None:
    config, environment = settings_in_compose({})
    ports = listening_ports()
    assert (f"http://elasticsearch:{ports['elasticsearch']}",) == config.engine.urls
    assert f"http://models:{ports['models']}" == config.models.url
    assert not needs_token(config)
    assert token_of(config, environment) is None


def test_the_proxy_can_be_switched_to_the_providers_models() -> None:
    told = {"RERANK_PROXY_MODELS_URL": "https://api.deepinfra.com", "DEEPINFRA_TOKEN": "a-token"}
    config, environment = settings_in_compose(told)
    assert Config().models.url == config.models.url
    assert "a-token" == token_of(config, environment)


def test_the_proxy_listens_where_its_port_is_published() -> None:
    config, _ = settings_in_compose({})
    assert Listen(host="0.0.0.0", port=Listen().port) == config.listen
    assert listening_ports()["proxy"] == config.listen.port


def published() -> Sequence[tuple[str, str]]:
    return [(name, port) for name, service in SERVICES.items() for port in service.get("ports", [])]


@pytest.mark.parametrize(("name", "port"), published())
def test_ports_are_published_on_the_loopback_address_only(name: str, port: str) -> None:
    number = listening_ports()[name]
    assert f"127.0.0.1:{number}:{number}" == port


def test_the_settings_are_mounted_where_the_image_reads_them() -> None:
    (mount,) = SERVICES["proxy"]["volumes"]
    source, target, mode = mount.split(":")
    assert (ROOT / source).is_file()
    assert environment_of_image("proxy")[CONFIG_VARIABLE] == target
    assert "ro" == mode


def test_named_volumes_are_declared() -> None:
    (mount,) = SERVICES["elasticsearch"]["volumes"]
    assert [mount.split(":")[0]] == list(COMPOSE["volumes"])


def test_dockers_stop_period_is_longer_than_the_proxys() -> None:
    assert float(SERVICES["proxy"]["stop_grace_period"].removesuffix("s")) > GRACE_S
