"""DeepInfra's embeddings and rerank endpoints over HTTP, with its limits, statuses and error shapes.

Source: DeepInfra's API reference and the schema of Qwen3-Reranker; FastAPI's shape for wrong input.
"""

import asyncio
import base64
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Literal, Protocol

import msgspec
from aiohttp import web
from cachetools import LRUCache

from proxy.bounds import LOCAL_BODY_BYTES, LOCAL_CACHE_BYTES, LOCAL_WAITING
from proxy.catalog.vectors import Vectors, normalise
from proxy.commands.local_models.minilm import DIMENSIONS, NAME, MiniLM
from proxy.commands.local_models.scoring import TextVectors, score, text_vectors

_THREADS = 2
BATCH = 8

Texts = Annotated[list[str], msgspec.Meta(max_length=1024)]


class EmbeddingsRequest(msgspec.Struct):
    """The body of `POST /v1/openai/embeddings`."""

    model: str
    input: str | Texts
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    fail_fast: bool = False


class RerankRequest(msgspec.Struct):
    """The body of `POST /v1/inference/{model}`: one query for all documents, or one for each."""

    queries: Texts
    documents: Texts
    instruction: Annotated[str, msgspec.Meta(max_length=2048)] | None = None
    fail_fast: bool = False


class Model(Protocol):
    """Computes a vector for each token of each text; called from several threads."""

    def token_vectors(self, texts: Sequence[str]) -> list[Vectors]: ...


class LocalModels:
    """The model, a cache of its vectors by text, and the threads it runs on."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="model")
        self._known: LRUCache[str, TextVectors] = LRUCache(LOCAL_CACHE_BYTES, getsizeof=lambda known: known.nbytes)
        self._waiting = 0

    @property
    def busy(self) -> bool:
        """Whether the maximum number of requests is waiting."""
        return self._waiting >= LOCAL_WAITING

    async def read(self, texts: Sequence[str]) -> list[TextVectors]:
        """Return the vectors of each text, from the cache or the model; texts of similar length share a batch."""
        known = {text: self._known[text] for text in texts if text in self._known}
        unknown = sorted({text for text in texts if text not in known}, key=len)
        parts = [unknown[start : start + BATCH] for start in range(0, len(unknown), BATCH)]
        loop = asyncio.get_running_loop()
        self._waiting += 1
        try:
            read = await asyncio.gather(*(loop.run_in_executor(self._threads, self._read, part) for part in parts))
        finally:
            self._waiting -= 1
        for part, vectors in zip(parts, read, strict=True):
            known |= dict(zip(part, vectors, strict=True))
        for text in unknown:
            if known[text].nbytes <= self._known.maxsize:
                self._known[text] = known[text]
        return [known[text] for text in texts]

    def _read(self, texts: Sequence[str]) -> list[TextVectors]:
        return [text_vectors(tokens) for tokens in self._model.token_vectors(texts)]

    async def scores(self, queries: Sequence[TextVectors], passages: Sequence[TextVectors]) -> list[float]:
        pairs = zip(queries, passages, strict=True)
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: [score(query, passage) for query, passage in pairs]
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


_MODELS = web.AppKey("models", LocalModels)
# The prompt that Qwen3 embedding models expect before a query; this model does not know it.
_PROMPT = re.compile(r"Instruct: .*?\nQuery:", re.DOTALL)


def create_app(model: Model) -> web.Application:
    app = web.Application(client_max_size=LOCAL_BODY_BYTES, middlewares=[_as_deepinfra_errs])
    app[_MODELS] = LocalModels(model)
    app.on_cleanup.append(_close)
    app.router.add_get("/health", _health)
    app.router.add_post("/v1/openai/embeddings", _embeddings)
    app.router.add_post("/v1/inference/{model:.+}", _rerank)
    return app


async def _close(app: web.Application) -> None:
    app[_MODELS].close()


async def _health(_: web.Request) -> web.Response:
    return web.json_response({"status": "ok", "model": "all-MiniLM-L6-v2 (int8), a stand-in for Qwen3"})


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _as_deepinfra_errs(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return errors in the format of DeepInfra: 422 names the wrong member, others have one line."""
    try:
        return await handler(request)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        detail = {"loc": ["body", *_steps(path)], "msg": message, "type": "value_error"}
        return web.json_response({"detail": [detail]}, status=422)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return web.json_response({"detail": [{"loc": ["body"], "msg": str(error), "type": "json_invalid"}]}, status=422)
    except web.HTTPException as error:
        return web.json_response({"detail": error.reason}, status=error.status)


def _steps(path: str) -> list[str | int]:
    """Convert a path of msgspec to the form of FastAPI."""
    return [int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]`]+", path)]


def _refuse_when_busy(models: LocalModels, *, fail_fast: bool) -> web.Response | None:
    if not (fail_fast and models.busy):
        return None
    message = {"message": "Model busy, retry later", "type": "invalid_request_error", "param": None}
    return web.json_response({"error": message | {"code": "engine_overloaded"}}, status=429)


async def _embeddings(request: web.Request) -> web.Response:
    asked = msgspec.json.decode(await request.read(), type=EmbeddingsRequest)
    if asked.dimensions is not None and asked.dimensions > DIMENSIONS:
        raise msgspec.ValidationError(f"this model has {DIMENSIONS} dimensions at most - at `$.dimensions`")
    models = request.app[_MODELS]
    if refusal := _refuse_when_busy(models, fail_fast=asked.fail_fast):
        return refusal
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    read = await models.read([_PROMPT.sub("", text, count=1) for text in texts])
    rows = [normalise(text.whole[: asked.dimensions]) for text in read]
    tokens = sum(len(text.words) for text in read)
    return web.json_response(
        {
            "object": "list",
            "model": NAME,  # whatever was requested: an index must record the model that made its vectors
            "data": [
                {"object": "embedding", "index": index, "embedding": _written(row, asked.encoding_format)}
                for index, row in enumerate(rows)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
    )


def _written(row: Vectors, encoding_format: str) -> list[float] | str:
    if encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [float(number) for number in row]


async def _rerank(request: web.Request) -> web.Response:
    asked = msgspec.json.decode(await request.read(), type=RerankRequest)
    if not asked.queries or len(asked.queries) not in {1, len(asked.documents)}:
        raise msgspec.ValidationError("as many queries as documents are needed, or one - at `$.queries`")
    models = request.app[_MODELS]
    if refusal := _refuse_when_busy(models, fail_fast=asked.fail_fast):
        return refusal
    passages = await models.read(asked.documents)
    queries = await models.read(asked.queries)
    if len(queries) == 1:
        queries *= len(passages)
    scores = await models.scores(queries, passages)
    tokens = sum(len(text.words) for text in (*queries, *passages))
    status = {"status": "succeeded", "runtime_ms": 0, "cost": 0.0, "tokens_generated": 0, "tokens_input": tokens}
    answer = {"model": NAME, "scores": scores, "input_tokens": tokens, "request_id": None, "inference_status": status}
    return web.json_response(answer)


BANNER = """Local models on {url}
all-MiniLM-L6-v2 (int8, 384 dimensions): a small stand-in for DeepInfra's Qwen3 models, to try everything without an
API key. It is not Qwen3: English only, and the instruction of a route has no effect. Press Ctrl-C to stop.
"""


async def serve(host: str, port: int) -> tuple[web.AppRunner, str]:
    """Start serving; returns the runner and the URL (port 0: any free port). Raises LocalModelsMissing."""
    runner = web.AppRunner(create_app(MiniLM()), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner, f"http://{host}:{runner.addresses[0][1]}"


def run(host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C; raises LocalModelsMissing, and OSError if the address is in use."""
    asyncio.run(_run(host, port))


async def _run(host: str, port: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    runner, url = await serve(host, port)
    sys.stderr.write(BANNER.format(url=url))
    sys.stderr.flush()
    await stopped.wait()
    await runner.cleanup()
