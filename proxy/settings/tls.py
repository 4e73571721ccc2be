"""TLS certificates of the engine, the models, Redis and the proxy itself.

A file that cannot be used is an error that names its key, raised before any connection is made or port opened.
"""

import ssl
from pathlib import Path

from proxy.settings.config import Cache, Engine, Listen, Models
from proxy.settings.yaml_file import ConfigError


def towards_engine(settings: Engine) -> ssl.SSLContext | None:
    """Load the authority and the client certificate for nodes with https URLs; raises ConfigError."""
    if not settings.by_https:
        return None
    if settings.ca_file:
        _demand_certificates("engine.ca_file", settings.ca_file)
    context = ssl.create_default_context(cafile=settings.ca_file)
    _show(context, "engine", settings)
    return context


def towards_models(settings: Models) -> ssl.SSLContext:
    """Load the certificate authority for the models; raises ConfigError."""
    if settings.ca_file:
        _demand_certificates("models.ca_file", settings.ca_file)
    return ssl.create_default_context(cafile=settings.ca_file)


def models_authority(settings: Models) -> bytes:
    """Read the certificate authority for the models, to notice its change; empty without one; raises ConfigError."""
    if not settings.ca_file:
        return b""
    _demand_certificates("models.ca_file", settings.ca_file)
    return Path(settings.ca_file).read_bytes()


def check_redis_ca(settings: Cache) -> None:
    """Check the certificate authority for Redis; raises ConfigError."""
    if settings.redis_ca_file:
        _demand_certificates("cache.redis_ca_file", settings.redis_ca_file)


def towards_clients(settings: Listen) -> ssl.SSLContext | None:
    """Load the server certificate if clients connect by https; raises ConfigError."""
    if not settings.certificate_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _show(context, "listen", settings)
    return context


def _show(context: ssl.SSLContext, section: str, settings: Engine | Listen) -> None:
    if not settings.certificate_file:
        return
    _demand_certificates(f"{section}.certificate_file", settings.certificate_file)
    place, file = f"{section}.certificate_file", settings.certificate_file
    if settings.key_file:
        place, file = f"{section}.key_file", settings.key_file
        _demand_readable(place, file)
    try:
        # The empty password prevents OpenSSL from prompting for that of an encrypted key.
        context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
    except (ssl.SSLError, ValueError):
        raise ConfigError(
            f"{place}: {file}: holds no key, without a password, that fits {section}.certificate_file. "
            "Name the PEM file of the certificate's own key"
        ) from None


def _demand_certificates(place: str, file: str) -> None:
    _demand_readable(place, file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        raise ConfigError(f"{place}: {file}: holds no certificate. Name a PEM file that does") from None


def _demand_readable(place: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{place}: {file}: cannot be read: {error.strerror}. Name another file") from None
