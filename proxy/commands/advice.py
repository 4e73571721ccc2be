"""What an error of the models or the engine means to the user of a command, and what to do."""

from collections.abc import Mapping

from proxy.errors import CapReached, OtherModel, Refused, TimedOut, Unreachable, UpstreamError

_ABOUT_TLS: Mapping[str, str] = {
    "WRONG_VERSION_NUMBER": "The port does not serve https: write http:// in the URL",
    "CERTIFICATE_VERIFY_FAILED": "Set engine.ca_file to the PEM file of the authority that issued the certificate, and "
    "use a host name that the certificate contains",
    "closed before the response": "If it serves https, write https:// in the URL",
    "CERTIFICATE_REQUIRED": "The engine asks for a client certificate: set engine.certificate_file",
}
"""What to do about errors of a connection that may be due to TLS, by a part of their message."""


def connection_advice(detail: str) -> str:
    """Return what to do about an engine that cannot be reached."""
    advice = next((advice for name, advice in _ABOUT_TLS.items() if name in detail), None)
    return advice or "Start it, or correct its URL: engine.url or --engine"


def models_advice(error: UpstreamError, model: str) -> str:  # noqa: PLR0911  one for each error
    match error:
        case Refused(status=401 | 403):
            return f"the models' provider rejects the token ({error}): set a valid one"
        case Refused(status=402):
            return f"the models' provider requires payment ({error}): top up the account"
        case Refused(status=404):
            said = f"the models' provider has no {model}, or no such API ({error}): correct models.url or the model"
            return f"{said}; it says: {_start_of(error)}"
        case Refused():
            return f"the models' provider rejects {model} ({error}): {_start_of(error)}"
        case CapReached():
            return f"a cap on spend is reached: {error}. What was done is kept: run it again later, or raise the cap"
        case Unreachable() | TimedOut():
            return (
                f"the models cannot be reached: {error}. Correct models.url, or start local ones: `rerank-proxy models`"
            )
        case OtherModel():
            return (
                f"the models' response cannot be used: {error}. Point models.url to a server that has this model, or "
                'change the model of the index: see "Changing the embedding model" in docs/loading.md'
            )
        case _:
            return f"the models' response cannot be used: {error}"


def _start_of(error: Refused) -> str:
    """Return the start of a response, as one line that no terminal takes for a command."""
    return "".join(letter if letter.isprintable() else " " for letter in error.body[:300].decode(errors="replace"))
