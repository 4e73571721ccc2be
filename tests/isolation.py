"""Callers who recognise their own responses, and what must hold for them while others attack the same proxy."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.fakes import Client, Message

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] \d{3}\b")
PATIENCE_S = 10.0
"""How long a caller waits who must be answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """A request, and what only the response to it has."""

    request: bytes
    opaque_id: str
    mark: bytes

    def is_answered_by(self, response: Message) -> bool:
        return response.header("x-opaque-id") == self.opaque_id and self.mark in response.content


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with credentials of their own, who asks for what nobody else is shown."""

    name: str
    questions: Mapping[str, bytes]
    """Targets, and what only the responses to them have."""
    fields: Mapping[str, str] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def ask_next(self) -> Question:
        """Write the next request, which differs from all others by its X-Opaque-Id."""
        number = next(self._numbers)
        target, mark = list(self.questions.items())[number % len(self.questions)]
        opaque_id = f"{self.name}.{number}"
        fields = {"Host": "engine", **self.fields, "X-Opaque-Id": opaque_id}
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        return Question("\r\n".join(lines).encode(), opaque_id, mark)

    @property
    def marks(self) -> tuple[bytes, ...]:
        """What nobody else may ever be sent."""
        return f"{self.name}.".encode(), *self.questions.values()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    """Connect to the proxy, and close the connection at the end of the block."""
    client = await Client.to(port)
    try:
        yield client
    finally:
        client.close()


async def sent(client: Client, piece: bytes) -> None:
    """Send bytes; a proxy that has closed the connection is none the worse for them."""
    with suppress(ConnectionError):
        await client.send(piece)


async def response_to(client: Client, method: str, patience: float) -> Message | None:
    """Read one final response; None where the connection ends, is upgraded, or is silent for so long."""
    with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        async with asyncio.timeout(patience):
            while head := await client.head():
                response = Message(head, b"")
                if not _STATUS_LINE.match(head):
                    return None
                if response.status == 101 or (method == "CONNECT" and 200 <= response.status < 300):
                    return None
                if response.status >= 200:
                    bodiless = method == "HEAD" or response.status in {204, 304}
                    return Message(head, b"" if bodiless else await client.body(response, until_close=True))
    return None


async def everything_left(client: Client, patience: float) -> bytes:
    """Say that no more will be sent, and return what still comes."""
    received = b""
    if not client.writer.is_closing():
        with suppress(OSError):
            client.writer.write_eof()
    with suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(patience):
            while piece := await client.reader.read(65536):
                received += piece
    return received


async def assert_served(port: int, callers: Sequence[Caller], times: int = 2) -> None:
    """Each caller, on a connection of their own, gets their own responses."""
    for caller in callers:
        async with connected(port) as client:
            for _ in range(times):
                question = caller.ask_next()
                await client.send(question.request)
                response = await response_to(client, "GET", PATIENCE_S)
                assert response is not None, f"{question.request!r} was not answered"
                assert question.is_answered_by(response), _other(question, response)


async def assert_own_or_closed(client: Client, callers: Sequence[Caller]) -> None:
    """Callers who share a connection get their own responses on it, or it ends."""
    for caller in callers:
        question = caller.ask_next()
        await sent(client, question.request)
        response = await response_to(client, "GET", PATIENCE_S)
        if response is None:
            return
        assert question.is_answered_by(response) or _closes(response), _other(question, response)


def _closes(response: Message) -> bool:
    """Whether it is the proxy's own refusal, which ends the connection and shows nothing."""
    return response.header("connection") == "close" and b"bad_http_message" in response.body


def assert_nothing_of(callers: Sequence[Caller], received: bytes) -> None:
    """What one was sent has nothing of the others."""
    found = [mark for caller in callers for mark in caller.marks if mark in received]
    assert [] == found, received[:2000]


def _other(question: Question, response: Message) -> str:
    return f"{question.request!r} was answered with {response.head!r} {response.body[:500]!r}"
