"""One request to a models' provider, its bytes back, and aiohttp's errors as ours."""

import asyncio

import aiohttp

from proxy.errors import Refused, TimedOut, Unreachable


class Transport:
    """Where a provider is and the token it knows us by, which goes there and nowhere else."""

    def __init__(self, session: aiohttp.ClientSession, service: str, base_url: str, token: str | None) -> None:
        self.service = service
        self._session = session
        self._base_url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"Transport({self.service}, {self._base_url})"

    async def post(self, path: str, body: bytes, timeout_seconds: float) -> bytes:
        """Send a body; raises Unreachable, TimedOut, or Refused for every status but 200.

        Nothing is sent twice: what got no answer may have been done, and billed, all the same. Redirects are
        not followed, since they would carry the token elsewhere.
        """
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.post(
                    self._base_url + path, data=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                content = await response.read()
        except aiohttp.ConnectionTimeoutError as error:
            raise Unreachable(self.service, f"{self._base_url}: no connection in time") from error
        except TimeoutError as error:
            raise TimedOut(self.service, f"no answer in {timeout_seconds:g} s") from error
        except aiohttp.ClientError as error:
            raise Unreachable(self.service, f"{self._base_url}: {error}") from error
        if response.status != 200:
            raise Refused(self.service, response.status, content)
        return content


def models_session(connect_timeout_seconds: float) -> aiohttp.ClientSession:
    """Open connections to a provider: kept open between searches, no cookies, no proxies from the environment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
