"""The kernel's process: started from an explicit command, reached over sockets in a private folder, ended with us."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpec as ClientKernelSpec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from jupyter_agent.errors import Failed
from jupyter_agent.notebook.spec import KernelSpec

SOCKET_PATH_LIMIT = 85
"""Bytes of the folder's path, so that ``<folder>/kernel-ipc-5`` fits into ``sun_path`` (104 on macOS, 108 on Linux)."""

POLL_S = 0.25
STOP_S = 10.0
"""How long a kernel is given to end by itself before it is killed (half of it before SIGTERM)."""

ENDLESS = (
    "(lambda thread: thread.schedule(lambda: thread.socket.setsockopt("
    f"{int(zmq.SNDHWM)}, 0)))(get_ipython().kernel.iopub_thread)"
)
"""A kernel drops outputs when 1000 of them wait to be sent: rather its queue grows, and ours."""

HASTENED = "setattr(__import__('ipykernel.iostream').iostream.OutStream, 'flush', lambda self: None)"
"""Two threads of ipykernel 7 now and then wait for one another at the end, for the 10 s that a flush may take."""


class KernelDied(Failed):
    """The kernel's process is gone, or never came up; the text says how."""


class OneKernelSpec(KernelSpecManager):
    """Knows the one kernel we want, whatever is installed on this machine."""

    wanted: ClientKernelSpec

    def get_kernel_spec(self, kernel_name: str) -> ClientKernelSpec:  # noqa: ARG002 - jupyter_client's signature
        """The kernel we want."""
        return self.wanted


class Kernel:
    """A kernel: started on entering, ``ready`` later (do something useful in between), ended on leaving."""

    def __init__(self, spec: KernelSpec, *, cwd: Path, near: Path, timeout_s: float) -> None:
        """``near`` is where the private folder of its sockets should be; it is elsewhere if the path is too long."""
        self._spec = spec
        self._cwd = cwd
        self._timeout_s = timeout_s
        self._asked_to_end = False
        self._folder = private_folder(near)
        specs = OneKernelSpec()
        specs.wanted = ClientKernelSpec(argv=list(spec.argv), language=spec.language, display_name=spec.language)
        self.manager = AsyncKernelManager(
            kernel_name="wanted",
            kernel_spec_manager=specs,
            connection_file=str(self._folder / "kernel.json"),
            transport="ipc",
        )
        self.client: AsyncKernelClient

    async def __aenter__(self) -> Self:
        environment = {**os.environ, "IPYTHONDIR": str(self._folder), **self._spec.env}
        try:
            await self.manager.start_kernel(cwd=str(self._cwd), env=environment)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise KernelDied(f"The kernel could not be started: {error}.") from error
        self.client = self.manager.client()
        self.client.context.setsockopt(zmq.RCVHWM, 0)  # see ENDLESS
        self.client.start_channels(hb=False)
        self.client.allow_stdin = False
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()
        self.client.stop_channels()
        await self.manager.cleanup_resources()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def ready(self) -> dict[str, Any]:
        """Wait until it answers and what it says reaches us; its answer to ``kernel_info``. Raises ``KernelDied``.

        ``wait_for_ready`` of jupyter_client would always spend 200 ms more.
        """
        deadline = time.monotonic() + self._timeout_s
        asked: set[str] = set()
        while True:
            asked.add(self.client.kernel_info())
            info = await self._answer(asked, deadline)
            if await self._heard(asked):
                break
        if self._spec.language == "python":
            self.client.execute(ENDLESS, silent=True, store_history=False)
        return info

    async def _answer(self, asked: set[str], deadline: float) -> dict[str, Any]:
        while True:
            with contextlib.suppress(queue.Empty):
                message = await self.client.get_shell_msg(timeout=POLL_S)
                if message["parent_header"].get("msg_id") in asked:
                    return dict(message["content"])
            if not await self.manager.is_alive():
                raise KernelDied(f"The kernel ended before it was ready ({await self.end_of_process()}).")
            if time.monotonic() > deadline:
                await self.kill()
                raise KernelDied(f"The kernel was not ready within {self._timeout_s:.0f} s.")

    async def _heard(self, asked: set[str]) -> bool:
        """Whether the broadcast that goes with an answer came: the subscription is made apart from the request."""
        with contextlib.suppress(queue.Empty):
            while True:
                message = await self.client.get_iopub_msg(timeout=POLL_S)
                if (
                    message["parent_header"].get("msg_id") in asked
                    and message["content"].get("execution_state") == "idle"
                ):
                    return True
        return False

    async def end_of_process(self) -> str:
        """How its process ended, in words."""
        code = await self.manager.provisioner.poll() if self.manager.provisioner else None
        if code is None:
            return "nobody knows how"
        with contextlib.suppress(ValueError):
            if code < 0:
                return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    async def interrupt(self) -> None:
        """Ask it to give up what it does."""
        if await self.manager.is_alive():
            await self.manager.interrupt_kernel()

    async def kill(self) -> None:
        """End it at once."""
        if await self.manager.is_alive():
            await self.manager.shutdown_kernel(now=True)

    async def ask_to_end(self) -> None:
        """Begin to end it: what it registered for its exit runs now. Asked a second time, this does nothing."""
        if self._asked_to_end or not await self.manager.is_alive():
            return
        self._asked_to_end = True
        if self._spec.language == "python":
            await self._hasten_end()
        await self.manager.request_shutdown()

    async def _hasten_end(self) -> None:
        asked = self.client.execute(HASTENED, silent=True, store_history=False)
        with contextlib.suppress(queue.Empty):
            while (await self.client.get_shell_msg(timeout=1))["parent_header"].get("msg_id") != asked:
                pass

    async def end(self) -> None:
        """End it, gently first."""
        await self.ask_to_end()
        if self.manager.has_kernel:
            await self.manager.finish_shutdown(waittime=STOP_S, pollinterval=0.02)


def private_folder(near: Path) -> Path:
    """A new folder, 0700, whose path is short enough for sockets in it."""
    places = [near, Path(os.environ.get("XDG_RUNTIME_DIR") or near), Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108 - mkdtemp
    for place in places:
        if place.is_dir() and len(os.fsencode(place)) + len("/k12345678") <= SOCKET_PATH_LIMIT:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="k", dir=place))
    raise Failed("There is no folder with a short path for the kernel's sockets: set TMPDIR to one.")
