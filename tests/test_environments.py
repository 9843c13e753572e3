"""Environments: real uv, real interpreters; the packages come from an index of our own on this machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from jupyter_agent.environments import Environment, Environments, Requirements
from jupyter_agent.environments.definitions import Definition
from jupyter_agent.environments.indexes import pip_settings, uv_arguments, uv_environment, without_credentials
from jupyter_agent.environments.uv import explanation
from jupyter_agent.errors import AgentError, Failed, InvalidInput, NotFound

SECRET = "s3cr3t"

ENV = f"env of {os.getpid()}"
"""A tag: what carries it is ended with it, wherever it is on this machine."""


def wheel(folder: Path, name: str, version: str = "1.0", *, requires: str = "", content: str = "") -> Path:
    """A wheel with one module that says its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    path = folder / name / f"{name}-{version}-py3-none-any.whl"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content or f"version = {version!r}\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", content)
        archive.writestr(f"{info}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(
            f"{info}/RECORD",
            f"{name}.py,sha256={digest},{len(content)}\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
        )
    return path


class Index:
    """A package index over HTTP that wants a password; it can be told to keep everybody waiting."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open = threading.Event()
        self.open.set()
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                index.asked.append(self.path)
                index.open.wait(60)
                wanted = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
                if self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.end_headers()
                    return
                self._answer(index.folder / self.path.removeprefix("/simple/").strip("/"))

            def _answer(self, path: Path) -> None:
                content = path.read_bytes() if path.is_file() else b""
                for file in path.iterdir() if path.is_dir() else []:
                    digest = hashlib.sha256(file.read_bytes()).hexdigest()
                    content += f'<a href="{file.name}#sha256={digest}">{file.name}</a>\n'.encode()
                self.send_response(200 if path.exists() else 404)
                self.send_header("Content-Type", "text/html" if path.is_dir() else "application/octet-stream")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://user:{SECRET}@127.0.0.1:{self._server.server_address[1]}/simple/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    served = Index(tmp_path / "index")
    wheel(served.folder, "alpha")
    wheel(served.folder, "alpha", "2.0")
    wheel(served.folder, "beta", requires="alpha<2")
    yield served
    served.close()


@pytest.fixture
def environ(index: Index) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "HOME")}
    return {**known, "PIP_INDEX_URL": index.url, "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture
def environments(tmp_path: Path, environ: dict[str, str]) -> Environments:
    return Environments(tmp_path / "environments", environ=environ)


def ask(python: Path, code: str) -> str:
    return subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def another(code: str, folder: Path, environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True, env=environ)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other threads and processes
            await asyncio.sleep(0.02)


def nothing(line: str) -> None:
    """Nobody waits."""


class Told:
    """Waits for an environment; hands on what it is told."""

    def __init__(self, say: Callable[[str], None] = print) -> None:
        self.note = say
        self.phases: list[str] = []

    def show_progress(self, phase: str, done: float, total: float | None, detail: str = "") -> None:  # noqa: ARG002 - as all take them
        self.phases.append(phase)


def folders(store: Path) -> set[str]:
    """Of prefixes, whole or not, and whatever else is of one of them."""
    always = {"building", "cache", "channels", "distrust", "held", "locks"}
    return {path.name for path in store.iterdir() if path.is_dir()} - always


def wanted(text: str) -> Definition:
    return Definition.of("requirements.txt", text)


async def ensure(
    environments: Environments,
    text: str | Definition,
    *,
    extra: Sequence[str] = (),
    say: Callable[[str], None] = nothing,
    tag: str = ENV,
) -> Environment:
    definition = wanted(text) if isinstance(text, str) else text
    return await environments.ensure(definition, extra=extra, teller=Told(say), tag=tag)


OTHER = """
import asyncio, os, sys
from pathlib import Path
from jupyter_agent.environments import Environments
from tests.test_environments import Told, wanted
"""
"""Begins what another process does."""


async def test_an_environment_is_made_once(environments: Environments, index: Index, tmp_path: Path) -> None:
    said: list[str] = []
    made = await ensure(environments, "beta  # a comment\n", say=said.append)
    assert ask(made.python, "import alpha, beta, sys; print(alpha.version, beta.version, sys.version)") == (
        f"1.0 1.0 {sys.version}"
    )
    assert made.prefix == tmp_path / "environments" / made.hash
    assert said[0] == "Resolving the requirements"
    assert "Making an environment (2 packages)" in said
    assert said[-1].startswith("Installed 2 packages in ")
    assert (made.prefix / "ready").exists()
    assert list(made.prefix.glob("lib/python*/EXTERNALLY-MANAGED"))
    index.close()
    said.clear()
    again = Environments(tmp_path / "environments", environ={})
    assert await ensure(again, "\n# another comment\nbeta\n\n", say=said.append) == made
    assert said == []
    assert folders(tmp_path / "environments") == {made.hash}


async def test_other_requirements_make_another_environment(environments: Environments) -> None:
    first = await ensure(environments, "alpha")
    second = await ensure(environments, "alpha<2")
    third = await ensure(environments, "alpha<2", extra=["beta"])
    assert len({first.hash, second.hash, third.hash}) == 3
    assert ask(first.python, "import alpha; print(alpha.version)") == "2.0"
    assert ask(second.python, "import alpha; print(alpha.version)") == "1.0"


async def test_nothing_required_is_an_environment_too(environments: Environments) -> None:
    made = await ensure(environments, "")
    assert ask(made.python, "import sys; print(sys.prefix)") == str(made.prefix)
    variables = made.variables({"PATH": "/bin", "jwt": "x"})
    assert variables == {"PATH": f"{made.prefix}/bin:/bin", "jwt": "x", "VIRTUAL_ENV": str(made.prefix)}


async def test_constraints_and_options_count(environments: Environments, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "requirements.txt").write_text("-c limits.txt\n--only-binary :all:\n-r more.txt\n")
    (package / "limits.txt").write_text("alpha==1.0\n")
    (package / "more.txt").write_text("alpha\n")
    made = await ensure(environments, Definition.read(package / "requirements.txt"))
    assert ask(made.python, "import alpha; print(alpha.version)") == "1.0"


async def test_requests_for_one_environment_wait_for_one_another(
    environments: Environments, index: Index, tmp_path: Path, environ: dict[str, str]
) -> None:
    code = (
        f"{OTHER}made = asyncio.run("
        "Environments(Path(sys.argv[1])).ensure(wanted('beta'), teller=Told(), tag=str(os.getpid())))\nprint(made.hash)"
    )
    index.open.clear()
    other = another(code, tmp_path / "environments", environ)
    said: list[str] = []
    tasks = [asyncio.create_task(ensure(environments, "beta", say=said.append, tag=f"{ENV} {n}")) for n in range(3)]
    await until(lambda: "Another run is making this environment: waiting for it" in said)
    index.open.set()
    made = await asyncio.gather(*tasks)
    output, _ = await asyncio.to_thread(other.communicate)
    assert output.splitlines()[-1] == made[0].hash
    assert len(set(made)) == 1
    assert (said + output.splitlines()).count("Making an environment (2 packages)") == 1
    assert (said + output.splitlines()).count("Resolving the requirements") == 1


async def test_a_half_made_prefix_is_built_again(environments: Environments, tmp_path: Path) -> None:
    made = await ensure(environments, "alpha")
    await environments.release(ENV)
    (made.prefix / "ready").unlink()
    for module in made.prefix.glob("lib/python*/site-packages/alpha.py"):
        module.unlink()
    assert await ensure(environments, "alpha") == made
    assert ask(made.python, "import alpha; print(alpha.version)") == "2.0"
    await environments.release(ENV)
    made.python.unlink()  # its interpreter was uninstalled
    assert await ensure(environments, "alpha") == made
    assert made.python.exists()


@pytest.mark.parametrize("moment", ["/simple/alpha/", "/simple/alpha/alpha-2.0-py3-none-any.whl"])
async def test_a_killed_build_leaves_nothing_that_counts(
    environments: Environments, index: Index, tmp_path: Path, environ: dict[str, str], moment: str
) -> None:
    code = (
        f"{OTHER}asyncio.run("
        "Environments(Path(sys.argv[1])).ensure(wanted('alpha'), teller=Told(), tag=str(os.getpid())))"
    )
    held = threading.Event()

    class Holding(list[str]):
        def append(self, path: str) -> None:
            super().append(path)
            if path == moment and not held.is_set():
                index.open.clear()
                held.set()

    index.asked = Holding()
    builder = another(code, tmp_path / "environments", environ)
    assert await asyncio.to_thread(held.wait, 60)
    children = psutil.Process(builder.pid).children(recursive=True)
    for pid in (builder.pid, *(child.pid for child in children)):
        os.kill(pid, signal.SIGKILL)
    builder.communicate()
    index.open.set()
    made = await ensure(environments, "alpha")
    assert ask(made.python, "import alpha; print(alpha.version)") == "2.0"
    assert not [path for path in (tmp_path / "environments").glob(".*") if path.is_dir()]


async def test_a_cancelled_build_leaves_nothing(environments: Environments, index: Index, tmp_path: Path) -> None:
    index.open.clear()
    task = asyncio.create_task(ensure(environments, "alpha", say=nothing, tag=f"{ENV} cancelled"))
    await until(lambda: index.asked)
    running = [each for each in psutil.Process().children(recursive=True) if "uv" in each.name()]
    assert running
    assert SECRET not in " ".join(part for each in running for part in each.cmdline())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [each for each in running if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not folders(tmp_path / "environments")
    index.open.set()
    await ensure(environments, "alpha")


@pytest.mark.parametrize(
    ("requirements", "sentence"),
    [
        ("alpha==99", "Because there is no version of alpha==99"),
        ("nosuchpackage", "Because nosuchpackage was not found in the package registry"),
        ("alpha=1", "Couldn't parse requirement in `requirements.txt`"),
        ("alpha<2\nalpha>=2", "your requirements are unsatisfiable"),
    ],
)
async def test_what_cannot_be_resolved_is_explained_in_one_line(
    environments: Environments, tmp_path: Path, requirements: str, sentence: str
) -> None:
    with pytest.raises(Failed) as caught:
        await ensure(environments, requirements)
    assert str(caught.value).startswith("The environment could not be made: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not folders(tmp_path / "environments")


async def test_a_package_that_is_not_what_it_was_is_refused(
    environments: Environments, index: Index, tmp_path: Path
) -> None:
    made = await ensure(environments, "alpha")
    shutil.rmtree(made.prefix)
    shutil.rmtree(tmp_path / "environments" / "cache")
    wheel(index.folder, "alpha", "2.0", content="evil = True\n")
    with pytest.raises(Failed, match=r"(?i)hash mismatch"):
        await ensure(environments, "alpha")
    assert not made.prefix.exists()


async def test_the_hashes_that_a_requirement_states_are_the_only_ones(
    environments: Environments, index: Index, tmp_path: Path
) -> None:
    digest = hashlib.sha256(next((index.folder / "alpha").glob("*-1.0-*")).read_bytes()).hexdigest()
    made = await ensure(environments, f"alpha==1.0 --hash=sha256:{'0' * 64} --hash=sha256:{digest}\nbeta\n")
    lock = (made.prefix / "lock" / "requirements.txt").read_text()
    assert lock.count("--hash=") == 2
    assert digest in lock
    assert ask(made.python, "import alpha, beta; print(alpha.version)") == "1.0"
    with pytest.raises(InvalidInput, match=r"No file of alpha==2\.0 has a hash that the requirements allow"):
        await ensure(environments, f"Alpha==2.0 --hash=sha256:{digest}")
    assert folders(tmp_path / "environments") == {made.hash}


async def test_passwords_of_indexes_are_never_shown(tmp_path: Path, index: Index, environ: dict[str, str]) -> None:
    said: list[str] = []
    refusing = Environments(
        tmp_path / "refused", environ={**environ, "PIP_INDEX_URL": index.url.replace(SECRET, "wr0ng")}
    )
    with pytest.raises(Failed) as caught:
        await ensure(refusing, "alpha", say=said.append)
    assert "wr0ng" not in str(caught.value)
    line = f"--index-url {index.url}\nalpha"
    made = await ensure(Environments(tmp_path / "given", environ={"PATH": os.environ["PATH"]}), line, say=said.append)
    assert made.python.exists()
    assert not [text for text in said if SECRET in text or "wr0ng" in text]
    for path in (tmp_path / "given" / "locks").iterdir():
        assert SECRET not in path.read_text()


async def test_an_interpreter_that_does_not_work_is_told(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(AgentError, match="/nowhere/python"):
        await ensure(Environments(tmp_path / "e", python="/nowhere/python", environ=environ), "")
    with pytest.raises(Failed, match="The interpreter /bin/false does not work: exit code 1"):
        await ensure(Environments(tmp_path / "e", python="/bin/false", environ=environ), "")


# Requirements


def test_requirements_are_read_with_what_they_include(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "requirements.txt").write_bytes(
        b"\xef\xbb\xbf# top\r\nalpha>=1 \\\r\n  , <3  # both\r\n-r sub/more.txt\r\n--requirement=sub/../other.txt\r\n"
        b"--extra-index-url https://example.org/simple\r\n-csub/limits.txt\r\n--prefer-binary\r\n"
        b"url @ https://example.org/x.whl#sha256=1 ; python_version > '3'\r\n"
    )
    (tmp_path / "sub/more.txt").write_text("beta\n-r nested.txt\n")
    (tmp_path / "sub/nested.txt").write_text("gamma[extra]==1.*\n")
    (tmp_path / "other.txt").write_text("")
    (tmp_path / "sub/limits.txt").write_text("alpha<2\n-r nested.txt\n")
    assert Requirements.read(tmp_path) == Requirements(
        lines=(
            "alpha>=1    , <3",
            "beta",
            "gamma[extra]==1.*",
            "url @ https://example.org/x.whl#sha256=1 ; python_version > '3'",
        ),
        constraints=("alpha<2", "gamma[extra]==1.*"),
        options=("--extra-index-url https://example.org/simple",),
    )
    assert Requirements.read(tmp_path / "sub") == Requirements()


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("-e .", InvalidInput, "asks for '-e .', a path"),
        ("--editable=./x", InvalidInput, "a path"),
        (".", InvalidInput, "a path"),
        ("./wheels/x-1.0-py3-none-any.whl", InvalidInput, "a path"),
        ("wheels/x-1.0-py3-none-any.whl", InvalidInput, "a path"),
        ("/abs/x", InvalidInput, "a path"),
        ("~/x", InvalidInput, "a path"),
        ("file:///x", InvalidInput, "a path"),
        ("x @ file:///x", InvalidInput, "a path"),
        ("x@./x", InvalidInput, "a path"),
        ("-f wheels", InvalidInput, "a folder of the package cannot be an index"),
        ("-r gone.txt", NotFound, "includes gone.txt, but there is no such file"),
        ("-r ../outside.txt", InvalidInput, "is not in the package"),
        ("-r /etc/passwd", InvalidInput, "is not in the package"),
        ("-r https://example.org/r.txt", InvalidInput, "is not in the package"),
        ("-r requirements.txt", InvalidInput, "which includes it again"),
        ("-c gone.txt", NotFound, "no such file"),
    ],
)
def test_requirements_that_cannot_be_locked_are_refused(
    tmp_path: Path, text: str, error: type[AgentError], sentence: str
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (tmp_path / "outside.txt").write_text("alpha")
    (package / "requirements.txt").write_text(text)
    with pytest.raises(error) as caught:
        Requirements.read(package)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("data", [b"\xff\xfea\x00", b"\x80"])
def test_requirements_that_are_no_text_are_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "requirements.txt").write_bytes(data)
    with pytest.raises(InvalidInput, match="cannot be read as text"):
        Requirements.read(tmp_path)


# Pip's configuration


def test_pips_configuration_is_said_to_uv(tmp_path: Path) -> None:
    first, second, broken = tmp_path / "1.conf", tmp_path / "2.conf", tmp_path / "3.conf"
    first.write_text(
        "[global]\nindex-url = https://one/simple\nextra-index-url =\n    https://a/simple\n    https://b/simple\n"
        "cert = /certs.pem\ntrusted-host = one two\ntimeout = 7\n"
    )
    second.write_text("[global]\nindex_url = https://two/simple\n[install]\nfind-links = /tmp /usr\nno-index = true\n")
    broken.write_text("no section\n")
    environ = {"HOME": "/home/me", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_INDEX_STRATEGY": "first-index"}
    files = [first, second, broken, tmp_path / "gone.conf"]
    found = uv_environment(environ, cache=tmp_path, pip_files=files)
    assert {name: found.get(name) for name in (
        "UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT", "SSL_CERT_FILE",
        "UV_INDEX_STRATEGY", "UV_CACHE_DIR", "UV_PYTHON_DOWNLOADS", "HOME",
    )} == {
        "UV_DEFAULT_INDEX": "https://two/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/tmp,/usr",
        "UV_INSECURE_HOST": "one two",
        "UV_HTTP_TIMEOUT": "7",
        "SSL_CERT_FILE": "/certs.pem",
        "UV_INDEX_STRATEGY": "first-index",
        "UV_CACHE_DIR": str(tmp_path),
        "UV_PYTHON_DOWNLOADS": "never",
        "HOME": "/home/me",
    }  # fmt: skip
    assert not [name for name in found if name.startswith("PIP_")]
    assert uv_arguments(environ, pip_files=files) == ["--no-index"]


def test_folders_that_are_not_there_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    environ = {
        "PIP_FIND_LINKS": f"{tmp_path}/gone {tmp_path}/wheels https://example.org/links",
        "PIP_EXTRA_INDEX_URL": f"file://{tmp_path}/gone",
    }
    found = uv_environment(environ, cache=tmp_path, pip_files=[])
    assert found["UV_FIND_LINKS"] == f"{tmp_path}/wheels,https://example.org/links"
    assert "UV_INDEX" not in found


def test_uvs_own_settings_count_before_pips(tmp_path: Path) -> None:
    environ = {
        "PIP_INDEX_URL": "https://pip/simple",
        "PIP_EXTRA_INDEX_URL": "https://pip2/simple",
        "UV_INDEX_URL": "https://uv/simple",
        "UV_EXTRA_INDEX_URL": "https://uv2/simple",
        "UV_PYTHON": "3.8",
        "UV_VENV_SEED": "1",
        "UV_PYTHON_DOWNLOADS": "automatic",
    }
    found = uv_environment(environ, cache=tmp_path, pip_files=[])
    assert found["UV_INDEX_URL"] == "https://uv/simple"
    assert {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_PYTHON", "UV_VENV_SEED"}.isdisjoint(found)
    assert found["UV_PYTHON_DOWNLOADS"] == "never"


def test_pips_variables_count_before_its_files(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file/simple\n")
    environ = {"PIP_INDEX_URL": "https://variable/simple"}
    assert pip_settings(environ, [tmp_path / "pip.conf"])["index-url"] == "https://variable/simple"


def test_explanations_hide_passwords_and_are_short() -> None:
    output = f"Resolving\nerror: It failed\n  cause: https://me:{SECRET}@host/x\n\n  cause: " + "x" * 5000
    assert explanation(output).startswith("It failed: https://***@host/x xxx")
    assert len(explanation(output)) < 2100
    assert without_credentials("see https://host/a@b") == "see https://host/a@b"
