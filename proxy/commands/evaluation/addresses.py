"""The addresses that searches are sent to, with their credentials, from the options of the command line."""

from argparse import Namespace
from collections.abc import Mapping

from proxy.bounds import EVALUATED_AT_ONCE
from proxy.commands.evaluation.client import Address
from proxy.settings.config import Engine
from proxy.settings.contradictions import url_problems
from proxy.settings.credentials import authorization_in
from proxy.settings.tls import towards_engine
from proxy.settings.yaml_file import ConfigError

_EXAMPLES = {"baseline": "http://127.0.0.1:9200", "proxy": "http://127.0.0.1:9201"}


def concurrency_of(said: Namespace) -> int:
    """Read how many searches run at a time; raises ConfigError beyond the limit."""
    if said.concurrency > EVALUATED_AT_ONCE:
        raise ConfigError(f"--concurrency: at most {EVALUATED_AT_ONCE} queries at a time, not {said.concurrency}")
    concurrency: int = said.concurrency
    return concurrency


def address_of(name: str, said: Namespace, environment: Mapping[str, str]) -> Address:
    """Read an address and its credentials; the option for one address overrides the one for both."""
    url = getattr(said, name)
    advice = "name the variable that holds them with --authorization-env"
    for _, problem in url_problems(f"--{name}", url, example=_EXAMPLES[name], credentials=advice):
        raise ConfigError(f"--{name}: {problem}")
    own = getattr(said, f"{name}_authorization_env", None)
    option, variable = (f"--{name}-authorization-env", own) if own else ("--authorization-env", said.authorization_env)
    authorization = authorization_in(variable, option, environment) if variable else None
    try:
        tls = towards_engine(Engine(url=url, ca_file=said.ca_file))
    except ConfigError as error:
        raise ConfigError(str(error).replace("engine.ca_file", "--ca-file")) from None
    return Address(name, url, authorization, tls)
