"""What cannot be answered just now is asked again, and nothing else is."""

import pytest

from proxy.commands.loading.errors import CannotLoad
from proxy.commands.loading.passages import embed
from proxy.commands.loading.patience import patiently
from proxy.upstream.embedder import Embedder
from proxy.upstream.transport import Transport, models_session
from tests.fakes import FakeModels, breaks_off, closed_port, refuses


class Answers:
    """Gives these answers one after the other, raising those that are errors."""

    def __init__(self, *answers: Exception | str) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        match self._answers.pop(0):
            case Exception() as error:
                raise error
            case answer:
                return answer


def passes(error: Exception) -> bool:
    return isinstance(error, TimeoutError)


async def test_a_response_is_returned_at_once() -> None:
    ask = Answers("yes", "again")
    assert (await patiently(ask, passes, 5), ask.asked) == ("yes", 1)


async def test_transient_errors_are_retried() -> None:
    ask = Answers(TimeoutError(), "yes")
    assert (await patiently(ask, passes, 5), ask.asked) == ("yes", 2)


async def test_permanent_errors_are_raised_at_once() -> None:
    ask = Answers(ValueError("no"), "yes")
    with pytest.raises(ValueError, match="no"):
        await patiently(ask, passes, 5)
    assert ask.asked == 1


async def test_after_the_last_attempt_the_last_error_is_raised() -> None:
    ask = Answers(TimeoutError("first"), "never asked")
    with pytest.raises(TimeoutError, match="first"):
        await patiently(ask, passes, 1e-9)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "rejects the token"),
        (403, "rejects the token"),
        (402, "top up the account"),
        (404, "has no m"),
        (422, "rejects m"),
    ],
)
async def test_a_permanent_rejection_is_an_error_with_advice(status: int, said: str) -> None:
    async with FakeModels() as models:
        models.faults = {"embed": refuses(status, b"why")}
        with pytest.raises(CannotLoad, match=said):
            await embed_at(models.url, patience=5)
        assert len(models.requests) == 1


async def test_unreachable_models_are_an_error_with_advice() -> None:
    with pytest.raises(CannotLoad, match=r"the models cannot be reached: .*`rerank-proxy models`"):
        await embed_at(f"http://127.0.0.1:{closed_port()}", patience=1e-9)
    async with FakeModels() as models:
        models.faults = {"embed": breaks_off()}
        with pytest.raises(CannotLoad, match="the models cannot be reached"):
            await embed_at(models.url, patience=1e-9)


async def test_a_response_of_another_length_is_rejected() -> None:
    async with FakeModels() as models:
        models.faults = {"embed": refuses(200, b'{"data":[{"index":0,"embedding":[1,0]}]}')}
        with pytest.raises(CannotLoad, match=r"the models' response cannot be used: .*\[2\] dimensions instead of 3"):
            await embed_at(models.url, patience=5)


async def embed_at(url: str, patience: float) -> None:
    async with models_session(1) as session:
        embedder = Embedder(Transport(session, "embedder", url, None), timeout_seconds=5, query_max_chars=1)
        await embed(embedder, ["a"], "m", 3, patience)
