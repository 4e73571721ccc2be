"""Certificates: whom the engine must prove to be, and whom the proxy says it is on either side.

A file that cannot be used is refused with the key that names it, before anything is asked or listened to.
"""

import ssl
from pathlib import Path

from proxy.settings.config import Engine, Listen, Models
from proxy.settings.yaml_file import ConfigError


def towards_engine(settings: Engine) -> ssl.SSLContext | None:
    """Read whom to trust and who we are, where a node is reached by https; raises ConfigError."""
    if not settings.by_https:
        return None
    if settings.ca_file:
        _demand_certificates("engine.ca_file", settings.ca_file)
    context = ssl.create_default_context(cafile=settings.ca_file)
    _show(context, "engine", settings)
    return context


def towards_models(settings: Models) -> ssl.SSLContext:
    """Read which certificate authority to trust for the models; raises ConfigError."""
    if settings.ca_file:
        _demand_certificates("models.ca_file", settings.ca_file)
    return ssl.create_default_context(cafile=settings.ca_file)


def towards_clients(settings: Listen) -> ssl.SSLContext | None:
    """Read the certificate that clients are shown, where they come by https; raises ConfigError."""
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
        # The empty password keeps OpenSSL from asking at the terminal for that of a locked key.
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
