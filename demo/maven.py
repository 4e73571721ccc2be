"""Files of Maven's repository: where its repositories are, and downloads by Maven itself."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from demo.engines import Artifact, EngineError

_QUERY_S = 300
_DOWNLOAD_S = 3600

_POM = """<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>demo</groupId><artifactId>engine</artifactId><version>1</version><packaging>pom</packaging>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId>
    <configuration><artifactItems>{items}</artifactItems></configuration>
  </plugin></plugins></build>
</project>
"""
_ITEM = (
    "<artifactItem><groupId>{group}</groupId><artifactId>{name}</artifactId>"
    "<version>{version}</version><type>{kind}</type></artifactItem>"
)


def repository_urls() -> list[str]:
    """Ask Maven where its repositories are, mirrors of the user's settings first; EngineError without a Maven."""
    projects = _maven("help:evaluate", "-Dexpression=project.repositories", "-DforceStdout")
    settings = _maven("help:effective-settings", check=False)
    mirrors = re.findall(r"<mirror>.*?<url>(https?://[^<]+)</url>.*?</mirror>", settings, re.DOTALL)
    found = mirrors + re.findall(r"<url>(https?://[^<]+)</url>", projects)
    return list(dict.fromkeys(url.rstrip("/") for url in found))


def copy(artifacts: Iterable[Artifact], folder: Path) -> None:
    """Let Maven download artifacts, checked by its checksums, into `folder`; raises EngineError.

    One project names them all, because Maven takes seconds to start. It goes on where a broken download ended.
    """
    with tempfile.TemporaryDirectory() as project:
        pom = Path(project) / "pom.xml"
        pom.write_text(_pom(artifacts))
        _maven("-f", str(pom), "dependency:copy", f"-DoutputDirectory={folder}", timeout=_DOWNLOAD_S)


def _pom(artifacts: Iterable[Artifact]) -> str:
    items = (
        _ITEM.format(
            group=escape(each.group),
            name=escape(each.name),
            version=escape(each.version),
            kind=escape(each.kind),
        )
        for each in artifacts
    )
    return _POM.format(items="".join(items))


def _maven(*arguments: str, check: bool = True, timeout: int = _QUERY_S) -> str:
    executable = shutil.which("mvn")
    if executable is None:
        raise EngineError("Maven (mvn) is not on the PATH, and engines are fetched through it: install Maven")
    said = f"mvn {' '.join(arguments)}"
    try:
        done = subprocess.run(
            [executable, "-q", "-B", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
    except subprocess.TimeoutExpired:
        raise EngineError(f"{said} did not end within {timeout} s: check the network, run again") from None
    if check and done.returncode:
        raise EngineError(f"{said} failed: {(done.stdout + done.stderr).strip()[:600]}")
    return done.stdout
