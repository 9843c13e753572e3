"""The home: where the agent keeps everything, and how its processes find one another.

Knows paths, modes, versions and locks, and speaks HTTP to the agent's socket. It refuses to know what is in the
files. Only the standard library is imported, and little of it: every command of the CLI and every start of a Jupyter
server pays for this module.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from jupyter_agent.errors import AgentError, Conflict, InvalidInput, NewerVersion, Unavailable

FORMAT = 1
"""The version of the home's layout; raised with a migration, refused when newer."""

NO_AGENT: dict[str, Any] = {
    "agent": None,
    "hub": None,
    "openflow": None,
    "connected": False,
    "deaf": False,
    "slug": None,
    "queue": None,
    "error": None,
    "warning": None,
    "runs": {"active": 0, "queued": 0},
}
"""The status while no agent runs, as every face gives it."""

BAD_REQUEST = 400
MAX_LINE = 1 << 16
PIECE = 1 << 18

ANSWER_S = 5.0
"""For how long an agent that takes a connection is waited for."""

RESTART_S = 0.3
"""Between two tries to start an agent while another one ends."""

OURS = frozenset(
    {"config.json", "identity.json", "hub", "packages", "preparations", "environments", "runs", "logs", "lost+found"}
)
"""What may lie in a home before it has a version: settings, what a start left that broke off, a new disk's own."""

SOCKET_PATH_LIMIT = 100
"""Bytes; ``sun_path`` holds 104 on macOS and 108 on Linux."""


@dataclass(frozen=True)
class Home:
    """A home's paths. ``Home.find`` says which home is meant; ``prepare`` makes it."""

    path: Path

    @classmethod
    def find(cls, given: str | Path | None = None) -> Self:
        """``given``, else ``JUPYTER_AGENT_HOME``, else ``agent`` in Jupyter's data folder."""
        chosen = given or os.environ.get("JUPYTER_AGENT_HOME")
        return cls(Path(chosen).expanduser().absolute() if chosen else jupyter_data_folder() / "agent")

    @property
    def agent_file(self) -> Path:
        """``{"pid", "started", "socket", "version"}`` of the running agent; it may be of one that is gone."""
        return self.path / "agent.json"

    @property
    def config_file(self) -> Path:
        """``{"apiurl", "jwt", "agentid"}`` of a configured OpenFlow, 0600; written by the user."""
        return self.path / "config.json"

    @property
    def identity_file(self) -> Path:
        """``{"id", "agents": {<apiurl>: <agent document's _id>}}``: who this home is to each OpenFlow."""
        return self.path / "identity.json"

    @property
    def state_file(self) -> Path:
        """The agent's database."""
        return self.path / "state.db"

    @property
    def hub(self) -> Path:
        """The embedded hub's folder."""
        return self.path / "hub"

    @property
    def packages(self) -> Path:
        """Unpacked packages, a folder each, named by file id."""
        return self.path / "packages"

    @property
    def preparations(self) -> Path:
        """What was made once of packages: installed dependencies, built programs."""
        return self.path / "preparations"

    @property
    def environments(self) -> Path:
        """Environments, a folder each, named by the sha256 of their lock."""
        return self.path / "environments"

    @property
    def runs(self) -> Path:
        """``<yyyy-mm>/<run id>/``."""
        return self.path / "runs"

    @property
    def logs(self) -> Path:
        """The agent's and the hub's logs."""
        return self.path / "logs"

    def prepare(self) -> None:
        """Make the home, private to its user, or check the version of the one that is there.

        Raises ``NewerVersion`` for a home that a newer version wrote, ``InvalidInput`` where none can be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.check_version()
            self._refuse_what_is_no_home()
            self.path.chmod(0o700)
            for folder in (self.hub, self.packages, self.environments, self.runs, self.logs):
                folder.mkdir(exist_ok=True, mode=0o700)
            if not self._stamp.exists():
                write_private(self._stamp, f"{FORMAT}\n")
        except OSError as error:
            raise InvalidInput(
                f"No home can be made at {self.path} ({error.strerror}): name another one with JUPYTER_AGENT_HOME."
            ) from error

    @property
    def _stamp(self) -> Path:
        return self.path / "version"

    def _refuse_what_is_no_home(self) -> None:
        """A folder of something else, which ``/tmp`` is as well, must not become private to us."""
        if not self._stamp.exists():
            strange = next((entry.name for entry in self.path.iterdir() if not is_ours(entry.name)), None)
            if strange is not None:
                raise InvalidInput(
                    f"{self.path} is no home of jupyter_agent, as {strange} lies in it: name an empty folder, or one "
                    "that does not exist yet, with JUPYTER_AGENT_HOME."
                )

    def check_version(self) -> None:
        """Raise ``NewerVersion`` when a newer version wrote this home; one without a version has none yet."""
        stamp = self._stamp
        try:
            found = int(stamp.read_text())
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            raise InvalidInput(f"{stamp} cannot be read: it should hold the number {FORMAT}.") from error
        if found > FORMAT:
            raise NewerVersion(
                f"The home {self.path} was written by a newer version of jupyter_agent (format {found}, this one knows "
                f"{FORMAT}): upgrade jupyter_agent, or name another home with JUPYTER_AGENT_HOME."
            )


def is_ours(name: str) -> bool:
    """Whether an entry of this name may lie in a home that has no version yet."""
    return name in OURS or name.startswith(".version.")  # while the version is being written


def jupyter_data_folder() -> Path:
    """Jupyter's data folder by the rules of ``jupyter_core.paths``, whose import would cost 50 ms."""
    if given := os.environ.get("JUPYTER_DATA_DIR"):
        return Path(given).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Jupyter"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", str(Path.home()))) / "jupyter"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "jupyter"


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically and durably; only its user may read it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - one call for Path and str
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of the home; ``None`` when there is no such file.

    Raises ``InvalidInput`` when the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is not readable as JSON ({error}): mend it or remove it.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} should hold a JSON object: mend it or remove it.")
    return value


class Lock:
    """An exclusive lock on a file, held until closed or until the process ends, however it ends."""

    def __init__(self, path: Path, *, held: str) -> None:
        """``held`` is the sentence of the ``Conflict`` raised when another process has the lock."""
        self.path = path
        self.held = held
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise ``Conflict``; never waits."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise Conflict(self.held) from error
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock; the file stays, so that all lock the same one."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def socket_path(home: Home) -> Path:
    """Where the agent of this home is to listen: ``agent.sock`` in it, or in a private folder if that is too long."""
    inside = home.path / "agent.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
        return inside
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = tempfile.mkdtemp(prefix="jupyter-agent-", dir=runtime if runtime and Path(runtime).is_dir() else None)
    return Path(folder) / "agent.sock"  # mkdtemp makes the folder 0700


class Exchange:
    """One request to the agent and its answer, by HTTP/1.0 (RFC 1945), in which a body ends with its connection.

    ``status`` and ``length`` (``None``: not announced) are the answer's. By hand, as importing ``http.client`` would
    take a third of the time that a whole command may take.
    """

    def __init__(self, path: str, *, timeout_s: float | None) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        self._answer: BinaryIO | None = None
        self.status = 0
        self.length: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._answer is not None:
            self._answer.close()
        self._socket.close()

    def send(self, method: str, target: str, body: bytes | None) -> None:
        """Send the request and read the answer's head. Raises ``OSError``, or ``ValueError`` when that is none."""
        head = [f"{method} {target} HTTP/1.0", "Host: localhost"]
        if body is not None:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        self._socket.connect(self._path)
        self._socket.sendall("\r\n".join([*head, "", ""]).encode() + (body or b""))
        self._answer = self._socket.makefile("rb")
        version, _, rest = self._answer.readline(MAX_LINE).partition(b" ")
        if not version.startswith(b"HTTP/"):
            raise ConnectionError("the connection was closed")
        self.status = int(rest.split()[0])
        while line := self._answer.readline(MAX_LINE).strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                self.length = int(value)

    def readline(self) -> bytes:
        """The next line of the body; empty at its end."""
        return self._answer.readline() if self._answer else b""

    def pieces(self) -> Iterator[bytes]:
        """The body. Raises ``ConnectionError`` when it ends before its announced length."""
        got = 0
        while data := self._answer.read(PIECE) if self._answer else b"":
            got += len(data)
            yield data
        if self.length is not None and got < self.length:
            raise ConnectionError("the answer was cut short")


class RequestFailed(AgentError):
    """The agent answered with an error; ``status`` is HTTP's, ``reason`` the name of the agent's error type."""

    def __init__(self, message: str, *, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class AgentClient:
    """Blocking HTTP to a running agent, for the CLI; ``path`` is below ``/api/v1/``."""

    socket: str

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float | None = 60) -> Any:
        """The answer's JSON, ``None`` for an empty one. Raises ``RequestFailed`` or ``Unavailable``."""
        with Exchange(self.socket, timeout_s=timeout_s) as exchange:
            self._send(exchange, method, path, body)
            try:
                data = b"".join(exchange.pieces())
            except OSError as error:
                raise Unavailable(f"The agent ended while it answered on {self.socket} ({error!r}).") from error
        return json.loads(data) if data else None

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of a stream, as they come, until the agent ends it."""
        with Exchange(self.socket, timeout_s=None) as exchange:
            self._send(exchange, "GET", path, None)
            while line := exchange.readline():
                if line.strip():
                    yield json.loads(line)

    def save(self, path: str, file: Path) -> None:
        """Write the answer's bytes to ``file``. Raises ``Unavailable`` when the agent ended before all were there."""
        with Exchange(self.socket, timeout_s=60) as exchange:
            self._send(exchange, "GET", path, None)
            with file.open("wb") as target:
                try:
                    for data in exchange.pieces():
                        target.write(data)
                except (ConnectionError, TimeoutError) as error:
                    raise Unavailable(f"The agent ended before {file.name} was whole: try again.") from error

    def _send(self, exchange: Exchange, method: str, path: str, body: object) -> None:
        if not path.isascii() or not path.isprintable() or " " in path:
            raise InvalidInput(f"{path!r} cannot be asked for: characters like these are percent-encoded.")
        try:
            exchange.send(method, f"/api/v1/{path}", None if body is None else json.dumps(body).encode())
            failed = b"".join(exchange.pieces()) if exchange.status >= BAD_REQUEST else None
        except (OSError, ValueError, IndexError) as error:
            raise Unavailable(f"The agent does not answer on {self.socket} ({error}).") from error
        if failed is not None:
            raise failure(exchange.status, failed)


def failure(status: int, data: bytes) -> RequestFailed:
    """The error in an answer of the agent, in Jupyter's form ``{"message", "reason"}``."""
    try:
        answer = json.loads(data)
        return RequestFailed(answer["message"], status=status, reason=answer.get("reason") or "")
    except (ValueError, KeyError, TypeError):
        return RequestFailed(f"The agent answered with HTTP {status}.", status=status, reason="")


class Started(Protocol):
    """What starting a detached process gives back (``processes.spawn_detached``)."""

    def poll(self) -> int | None:
        """The exit code, ``None`` while it runs."""


Spawn = Callable[[Sequence[str], Mapping[str, str], Path], Started]
"""Start ``argv`` detached with this environment, its output appended to the file."""


def running_agent(home: Home) -> str | None:
    """The socket of the agent that runs on this home, ``None`` when none does. Raises ``NewerVersion``."""
    if not home.path.is_dir():
        return None
    home.check_version()
    try:
        path = str((read_json(home.agent_file) or {})["socket"])
    except KeyError:
        return None
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(5)
    try:
        probe.connect(path)
    except OSError:
        return None
    finally:
        probe.close()
    return path


def answering_agent(home: Home) -> str | None:
    """The same, of one that answers: the socket of one that is being killed takes connections for a moment longer."""
    if path := running_agent(home):
        try:
            with Exchange(path, timeout_s=ANSWER_S) as exchange:
                exchange.send("GET", "/api/v1/status", None)
        except TimeoutError:
            pass  # it is busy, but there
        except (OSError, ValueError, IndexError):
            return None
    return path


def ensure_agent(home: Home, spawn: Spawn, *, timeout_s: float = 60) -> str:
    """The socket of this home's agent, which is started when none runs. Blocks: not for an event loop.

    Raises ``Unavailable`` with the agent's own last sentence when it does not come up.
    """
    if path := answering_agent(home):
        return path
    home.prepare()
    log = home.logs / "agent.log"
    told = log.stat().st_size if log.exists() else 0
    agent = spawn(agent_command(home), os.environ, log)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if path := answering_agent(home):
            return path
        ended = agent.poll()
        if ended == 0:  # another one runs: started in the same moment, or not yet at its end, so that ours is needed
            time.sleep(RESTART_S)
            if answering_agent(home) is None:
                agent = spawn(agent_command(home), os.environ, log)
        elif ended is not None:
            break
        time.sleep(0.02)
    raise Unavailable(last_words(log, told) or no_start(agent.poll(), timeout_s, log))


def last_words(log: Path, told: int) -> str:
    """The last line that was added to a log since it had ``told`` bytes; empty when nothing was."""
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(told)
        said = [line.strip() for line in file if line.strip()]
    return said[-1] if said else ""


def no_start(ended: int | None, timeout_s: float, log: Path) -> str:
    """The sentence for an agent that did not come up and left no word, as on a disk without room for one."""
    if ended is None:
        return f"The agent did not start within {timeout_s:.0f} s: see {log}."
    return f"The agent ended (exit code {ended}) before it was ready, and could not say why in {log}: is the disk full?"


def agent_command(home: Home) -> list[str]:
    """The command line of the agent's process. ``-P``: modules in the folder it is started in are none of its own."""
    return [sys.executable, "-P", "-m", "jupyter_agent.api", "--detached", "--home", str(home.path)]
