"""The Javas of this machine, and the one that fits an engine best."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.engines import Engine, EngineError, Javas

# Debian and Fedora; macOS; Homebrew; SDKMAN.
_PLACES = (
    "/usr/lib/jvm/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/.sdkman/candidates/java/*",
)
_LONG_TERM = (25, 21, 17)


@dataclass(frozen=True, slots=True)
class Java:
    home: Path
    version: int


def java_for(engine: Engine) -> Java:
    """Find the Java to run an engine with; raises EngineError naming what to install."""
    found = tuple(installed())
    if best := choose(engine.javas, found):
        return best
    wanted = engine.javas.proven[0]
    have = ", ".join(f"{each.version} in {each.home}" for each in found) or "none"
    raise EngineError(f"{engine.name} needs a Java it takes, found {have}: install a JDK {wanted}, or set JAVA_HOME")


def choose(javas: Javas, found: Sequence[Java]) -> Java | None:
    """Take the first of a proven version, else of the newest long-term one, else any that is taken."""
    taken = [java for java in found if javas.take(java.version)]
    order = (*javas.proven, *_LONG_TERM)
    return min(taken, key=lambda java: (*order, java.version).index(java.version), default=None)


def installed() -> Iterator[Java]:
    """Yield the Javas of JAVA_HOME, of the PATH and of the usual places, each once."""
    seen: set[Path] = set()
    for executable in _executables():
        home = executable.resolve().parent.parent
        if home not in seen and (version := _version(executable)):
            seen.add(home)
            yield Java(home, version)


def _executables() -> Iterable[Path]:
    if named := os.environ.get("JAVA_HOME"):
        yield Path(named) / "bin/java"
    if on_path := shutil.which("java"):
        yield Path(on_path)
    for place in _PLACES:
        folder = Path(place).expanduser()
        yield from sorted(Path(folder.anchor).glob(f"{folder.relative_to(folder.anchor)}/bin/java"))


def _version(executable: Path) -> int | None:
    try:
        said = subprocess.run([executable, "-version"], capture_output=True, text=True, check=True).stderr
    except (OSError, subprocess.CalledProcessError):
        return None
    version = re.search(r'version "(\d+)', said)
    return int(version[1]) if version else None
