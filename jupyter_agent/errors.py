"""The errors of jupyter_agent.

Meaning is in the type, facts are in attributes, text is in ``str(error)``: one sentence that says
what is wrong and what to do, fit to be shown to a user as it is.

    AgentError
    ├── InvalidInput          what was given cannot be used; nothing was changed
    ├── AccessDenied          the caller may not do this
    │   └── SignInFailed      OpenFlow refused the credentials; trying again with the same ones is useless
    ├── NotFound              the thing named does not exist (or the caller may not know that it does)
    ├── Conflict              the thing is in a state in which this cannot be done
    ├── NewerVersion          a file on disk was written by a newer version of jupyter_agent
    ├── Unavailable           something that is needed cannot be reached now; later it may work
    │   ├── ConnectionLost    the connection ended before the answer came; it is not known whether it was done
    │   │   └── TransferLost  the same in the middle of a file; it says how to go on
    │   ├── NoChannel         no conda channel of a file can be reached; PyPI may stand in for them
    │   └── TimedOut          no answer within the time allowed; it is not known whether it was done
    ├── ProtocolError         the other side broke the wire protocol; the connection is closed
    ├── ServerRefused         OpenFlow answered a request with an error (its own sentence)
    └── Failed                it was tried and did not work (a build, a child process)
"""

from __future__ import annotations

from pathlib import Path


class AgentError(Exception):
    """Root of all errors that jupyter_agent raises on purpose."""


class InvalidInput(AgentError):
    """What was given cannot be used; nothing was changed."""


class AccessDenied(AgentError):
    """The caller may not do this."""


class SignInFailed(AccessDenied):
    """OpenFlow refused the credentials; trying again with the same ones is useless."""


class NotFound(AgentError):
    """The thing named does not exist, or the caller may not know that it does."""


class Conflict(AgentError):
    """The thing is in a state in which this cannot be done."""


class NewerVersion(AgentError):
    """A file on disk was written by a newer version of jupyter_agent."""


class Unavailable(AgentError):
    """Something that is needed cannot be reached now; later it may work."""


class ConnectionLost(Unavailable):
    """The connection ended before the answer came; it is not known whether the request was done."""


class TransferLost(ConnectionLost):
    """The connection ended in the middle of a file. Do the same again to go on, with ``resume`` or ``upload_id``.

    An upload may have been stored all the same: with its ``upload_id`` it is found. A download that was to be resumed
    is kept at ``partial``; ``done`` bytes of it had arrived.
    """

    def __init__(self, message: str, *, upload_id: str = "", partial: Path | None = None, done: int = 0) -> None:
        super().__init__(message)
        self.upload_id = upload_id
        self.partial = partial
        self.done = done


class NoChannel(Unavailable):
    """No conda channel that a file names can be reached; a channel made from PyPI may stand in for them."""


class TimedOut(Unavailable):
    """No answer came within the time allowed; it is not known whether the request was done."""


class ProtocolError(AgentError):
    """The other side broke the wire protocol; the connection is closed."""


class ServerRefused(AgentError):
    """OpenFlow answered a request with an error.

    ``command`` is the request's command; the text is the server's own sentence. The server's stack is dropped:
    it may hold paths of the server.
    """

    def __init__(self, message: str, *, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class Failed(AgentError):
    """It was tried and did not work."""
