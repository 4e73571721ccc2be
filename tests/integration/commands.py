"""The command `rerank-proxy` as its user runs it: a process with its output."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec


@dataclass(slots=True)
class Running:
    """A command that runs, and the lines that it has written."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, *words: str) -> str:
        """Read on to the first line that has one of these words."""
        assert self.process.stderr is not None
        while line := (await self.process.stderr.readline()).decode():
            self.lines.append(line)
            if any(word in line for word in words):
                return line
        raise AssertionError(f"it ended without {words}: {self.lines}")

    async def ended(self) -> int:
        """Wait until it has ended, and read what it wrote."""
        assert self.process.stderr is not None
        self.lines += (await self.process.stderr.read()).decode().splitlines(keepends=True)
        return await self.process.wait()

    @property
    def events(self) -> list[Any]:
        """The lines of its log."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]


async def begun(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    keep_open: bool = False,
    within: Sequence[str] = (),
) -> Running:
    """Start a command, with what it is given on standard input, and more to come with `keep_open`.

    `within` names another command that runs it.
    """
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        "proxy",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    if process.stdin is not None and stdin is not None:
        process.stdin.write(stdin)
        if not keep_open:
            process.stdin.close()
    return Running(process)


@asynccontextmanager
async def running(
    *arguments: str, environment: Mapping[str, str] | None = None, within: Sequence[str] = ()
) -> AsyncIterator[Running]:
    """Run a command, and end it as a service is ended."""
    command = await begun(*arguments, environment=environment, within=within)
    try:
        yield command
    finally:
        if command.process.returncode is None:
            command.process.terminate()
        await command.process.communicate()


@asynccontextmanager
async def serving(
    folder: Path,
    settings: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> AsyncIterator[tuple[Running, str]]:
    """Run `rerank-proxy serve` with these settings, as a file; gives its URL, too."""
    file = folder / "config.yaml"
    engine = {"resolve_timeout_seconds": 20} | dict(settings.get("engine", {}))
    models = {"canary": False} | dict(settings.get("models", {}))  # fakes do not know its pairs
    whole = {"listen": {"port": 0}, "admin": {"port": 0}, **settings, "engine": engine, "models": models}
    file.write_bytes(msgspec.yaml.encode(whole))
    async with running("serve", "-c", str(file), environment=environment, within=within) as command:
        started = json.loads(await command.until("listening"))
        yield command, started["address"]
