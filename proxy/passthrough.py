"""Hands a request on to the engine and its answer back: only what HTTP gives to each hop is changed."""

import asyncio
from collections.abc import Sequence
from typing import Any

from proxy.errors import Unreachable
from proxy.http1.headers import Field, binds_connection, end_to_end, own_error, request_lines, written
from proxy.http1.listener import Answer, Exchange
from proxy.http1.messages import MAY_BE_OUT_OF_STEP, BadMessage, ResponseHead, read_response_head
from proxy.http1.wire import Broken, TlsBroken
from proxy.upstream.origin import SERVICE, Connection, Origin

# RFC 9110, section 9.2.1: asked twice, these do nothing twice.
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
# Where Elasticsearch ends what a client had asked for by POST and then left (`RestCancellableNodeClient`), besides
# whatever is called a search.
_ENDING = frozenset((b"_field_caps", b"_query", b"_sql"))


class _Stale(Exception):
    """A connection broke before a byte of an answer came; one that had been waiting may just have grown old."""


async def pass_through(
    exchange: Exchange, origin: Origin, *, extra_fields: Sequence[Field] = (), repeatable: bool = False
) -> None:
    """Stream a request to the engine and the answer back, with `extra_fields` added to its head.

    `repeatable` says that the request changes nothing, whatever its method. An engine that is not there gives a
    502 in the engine's shape; one that breaks off without an answer, or in it, breaks off the client too.
    """
    relaying = asyncio.ensure_future(_with_retry(exchange, origin, extra_fields, repeatable=repeatable))
    try:
        if repeatable or _ends_with_its_client(exchange):
            await relaying
        else:
            await _to_its_end(relaying, origin)
    except _Stale:
        exchange.abort()  # as the engine did
    except Unreachable as error:
        if exchange.begun:
            exchange.abort()
        else:
            await exchange.answer(bad_gateway(error, origin.product, extra_fields))


def _ends_with_its_client(exchange: Exchange) -> bool:
    """Whether the engine, too, gives up a request like this when its client leaves: reads, and searches."""
    name = exchange.head.target.partition(b"?")[0].rpartition(b"/")[2]
    return exchange.head.method in _SAFE or name in _ENDING or b"search" in name


async def _to_its_end(relaying: "asyncio.Task[None]", origin: Origin) -> None:
    """Wait for a write; a client that leaves does not take it back, as it would not at the engine."""
    try:
        await asyncio.shield(relaying)
    except asyncio.CancelledError:
        origin.outliving.add(relaying)
        relaying.add_done_callback(origin.outlived)
        raise


def bad_gateway(error: Unreachable, product: bytes | None, extra_fields: Sequence[Field]) -> Answer:
    """Say in the engine's shape that the engine cannot be reached."""
    body = own_error(502, "engine_unreachable", str(error))
    return Answer(502, [*own_fields(product), *extra_fields], body)


def own_fields(product: bytes | None) -> list[Field]:
    """Return the headers of an answer made in the engine's place."""
    named: list[Field] = [(b"X-elastic-product", product)] if product else []
    return [*named, (b"content-type", b"application/json")]


async def _with_retry(exchange: Exchange, origin: Origin, extra_fields: Sequence[Field], *, repeatable: bool) -> None:
    repeatable = (repeatable or exchange.head.method in _SAFE) and exchange.replayable
    connection = await origin.connect()
    try:
        await _Relay(exchange, origin, connection, extra_fields).run()
    except _Stale:
        if not (repeatable and connection.reused):
            raise
        fresh = await origin.connect(fresh=True)
        await _Relay(exchange, origin, fresh, extra_fields).run()


class _Relay:
    """One request on one connection."""

    def __init__(
        self, exchange: Exchange, origin: Origin, connection: Connection, extra_fields: Sequence[Field]
    ) -> None:
        self._exchange = exchange
        self._origin = origin
        self._connection = connection
        self._extra_fields = extra_fields
        self._asked = exchange.was_read

    async def run(self) -> None:
        upload: asyncio.Future[bool] | None = None
        whole = False
        try:
            if self._exchange.replayable:
                await self._upload()
            else:
                upload = asyncio.ensure_future(self._upload())
            answer = await self._answer_head(upload)
            in_step = answer.keep_alive and (upload is None or upload.done() or self._reads_on(answer))
            self._exchange.reusable &= in_step
            await self._download(answer)
            if upload is not None and in_step:
                in_step = await _was_sent(upload)
                self._exchange.reusable &= in_step
            whole = in_step and self._may_be_shared(answer)
        finally:
            if upload is not None and not upload.cancel() and not upload.cancelled():
                upload.exception()  # who waited for it has it; otherwise the answer came first
            if whole and self._connection.usable:
                self._origin.release(self._connection)
            else:
                self._connection.abort()

    def _reads_on(self, answer: ResponseHead) -> bool:
        """Whether an engine that answers before it has the whole body reads the rest of it, to stay in step.

        A client that was not asked for its body may never send it.
        """
        asked = self._asked or not self._exchange.head.expects_continue
        return asked and answer.status not in MAY_BE_OUT_OF_STEP

    def _may_be_shared(self, answer: ResponseHead) -> bool:
        """Whether the connection is in step, and has not learned who this caller is."""
        told = binds_connection([*self._exchange.head.lines, *answer.lines])
        return answer.status not in MAY_BE_OUT_OF_STEP and not told

    async def _upload(self) -> bool:
        """Send the request; tell whether all of it was. An engine that no longer listens may have answered."""
        head, node, writer = self._exchange.head, self._connection.node, self._connection.writer
        exchange, authority = self._exchange, node.authority
        lines = b"".join(request_lines(head.lines, authority, replayed=exchange.was_read, length=exchange.new_length))
        if head.version == b"HTTP/1.0" and head.keep_alive:
            lines += b"connection: keep-alive\r\n"
        writer.write(_start_line(head.start, node.prefix) + b"\r\n" + lines + b"\r\n")
        async for piece in self._exchange.body_pieces():
            try:
                writer.write(piece)
                await writer.drain()
            except OSError:  # what TLS finds wrong, too
                return False
        return True

    async def _answer_head(self, upload: "asyncio.Future[bool] | None") -> ResponseHead:
        """Wait for the answer's head, and hand on what comes before it; a broken upload ends the waiting."""
        while True:
            reading = asyncio.ensure_future(self._read_head()) if upload is not None else None
            if upload is None or reading is None:
                answer = await self._read_head()
            else:
                answer = await _unless_failed(reading, upload)
            if not answer.interim:
                return answer
            self._asked = True
            if self._exchange.head.version == b"HTTP/1.1" and not self._exchange.was_read:
                await self._exchange.write(_head_bytes(answer, ()))

    async def _read_head(self) -> ResponseHead:
        try:
            raw = await self._connection.incoming.head()
            if not raw:
                raise _Stale
            return read_response_head(raw, self._exchange.head.method)
        except TlsBroken as error:
            raise Unreachable(SERVICE, f"{self._connection.node.authority.decode()}: {error}") from error
        except ConnectionError as error:
            raise _Stale from error
        except BadMessage as error:
            raise Unreachable(SERVICE, f"its answer is no HTTP: {error}") from error

    async def _download(self, answer: ResponseHead) -> None:
        exchange = self._exchange
        self._remember_product(answer)
        exchange.begun = True
        await exchange.write(_head_bytes(answer, [*self._extra_fields, *exchange.connection_fields()]))
        try:
            async for raw, _ in self._connection.incoming.body(answer.framing):
                await exchange.write(raw)
        except (Broken, BadMessage) as error:
            raise Unreachable(SERVICE, "the answer broke off") from error

    def _remember_product(self, answer: ResponseHead) -> None:
        if self._origin.product is None:
            found = [line.value for line in answer.lines if line.key == b"x-elastic-product"]
            self._origin.product = found[0] if found else None


async def _was_sent(upload: "asyncio.Future[bool]") -> bool:
    """Wait for the rest of a request that has been answered; what is wrong with it now changes no answer."""
    try:
        return await upload
    except (Broken, BadMessage):
        return False


async def _unless_failed(reading: "asyncio.Future[ResponseHead]", upload: "asyncio.Future[bool]") -> ResponseHead:
    """Wait for what is read; a request that cannot be sent to its end raises its own error first."""
    try:
        if not upload.done():
            both: set[asyncio.Future[Any]] = {reading, upload}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if upload.done() and not reading.done():
            upload.result()
        return await reading
    finally:
        reading.cancel()


def _start_line(start: bytes, prefix: bytes) -> bytes:
    """Put the path of the engine's URL before a target that is a path."""
    method, blank, rest = start.partition(b" ")
    return method + blank + prefix + rest if prefix and rest.startswith(b"/") else start


def _head_bytes(answer: ResponseHead, fields: Sequence[Field]) -> bytes:
    lines = b"".join(line.raw for line in end_to_end(answer.lines))
    return answer.start + b"\r\n" + lines + written(fields) + b"\r\n"
