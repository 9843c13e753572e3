"""The link to OpenFlow: one client, kept connected, registered as an agent, listening on the agent's queue.

It decides nothing about commands: they go to the handler it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from jupyter_agent import __version__
from jupyter_agent.agent import hub_keeper
from jupyter_agent.agent.endpoint import Endpoint, Identity, configured, embedded
from jupyter_agent.agent.switching import CONFIGURATION_S
from jupyter_agent.errors import AgentError, InvalidInput, SignInFailed, Unavailable
from jupyter_agent.home import Home
from jupyter_agent.openflow.client import Client, Queue, QueueEvent, User, WatchEvent

log = logging.getLogger(__name__)

REQUESTS_PER_S = 28
"""A real OpenFlow answers 30 requests a second (protocol §3); the embedded hub has no limit."""

REREGISTER_S = 1.0
"""The agent's own document is registered again at most this often."""

OWN_FIELDS = ("slug", "runas", "environment", "_acl", "name")
"""What a change of our own document must touch to matter; all else is the echo of our registration."""


class Link:
    """The connection of this home to its OpenFlow.

    ``capabilities`` gives what the agent can run, as its document says it, each time that it is registered.
    ``on_command`` gets each message of the agent's queue; ``on_package`` the id and operation of each changed
    package; ``on_change`` is called when the state of the connection changed; ``on_ready`` after each (re)connection.
    """

    def __init__(
        self,
        home: Home,
        *,
        capabilities: Callable[[], Mapping[str, object]],
        ca_file: Path | None = None,
        on_command: Callable[[QueueEvent], Awaitable[None]],
        on_package: Callable[[str, str], None],
        on_change: Callable[[], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._home = home
        self._capabilities = capabilities
        self._ca_file = ca_file
        self._on_command = on_command
        self._on_package = on_package
        self._on_change = on_change
        self._on_ready = on_ready
        self._identity = Identity(home.identity_file)
        self._client: Client | None = None
        self._queue: Queue | None = None
        self._error: AgentError | None = None
        self._changed = asyncio.Event()
        self._registered = False
        self._watched = False
        self._own_user = ""
        self._slug: str | None = None
        self._own_change = asyncio.Event()
        self._registering = asyncio.Lock()
        self._anew = asyncio.Event()
        self.endpoint: Endpoint | None = None
        self.hub: hub_keeper.RunningHub | None = None
        self.document: dict[str, Any] = {}
        self.runas = False

    @property
    def connected(self) -> bool:
        """Whether the agent is signed in, registered and reached by its queue."""
        return self._usable and self._deaf is None

    @property
    def error(self) -> AgentError | None:
        """Why there is no connection, or only one that hears nothing; ``None`` while all is well."""
        return self._deaf if self._usable else self._error

    @property
    def deaf(self) -> bool:
        """Whether requests can be made but OpenFlow does not let the agent listen: ``error`` says to what."""
        return self._usable and self._deaf is not None

    @property
    def _usable(self) -> bool:
        """Whether requests can be made, as an agent that is registered."""
        return self._registered and self._client is not None and self._client.is_connected

    @property
    def _deaf(self) -> AgentError | None:
        """Why the agent does not hear what it should, although it is connected."""
        unregistered = self._client.unregistered if self._client else ()
        if not unregistered:
            return None
        return Unavailable(f"OpenFlow does not let the agent listen: {'; '.join(unregistered)}. It is tried again.")

    @property
    def warning(self) -> str | None:
        """What should be done before it is too late, as renewing the token; ``None``: nothing."""
        return self._client.warning if self._client else None

    @property
    def user(self) -> User | None:
        """Whom the agent is signed in as."""
        return self._client.user if self._client else None

    @property
    def queue(self) -> str | None:
        """The name of the queue that the agent listens on."""
        return self._queue.name if self._queue else None

    @property
    def slug(self) -> str | None:
        """The slug of the agent's document, once its queue is listened on: before, a message to it would be lost."""
        return self._slug

    async def client(self, timeout_s: float = 20) -> Client:
        """The connected client. Raises the reason when there is none within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._usable:
                    if isinstance(self.error, SignInFailed | InvalidInput):  # only the user can mend these
                        raise self.error
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            await self._changed.wait()
        except TimeoutError:
            reason = self.error
            raise Unavailable(f"OpenFlow cannot be reached: {reason or 'it does not answer.'}") from reason
        if self._client is None:
            raise Unavailable("OpenFlow cannot be reached: the agent is ending.")
        return self._client

    def register_again(self) -> None:
        """What we tell of ourselves has changed: tell it soon, at the latest when there is a connection."""
        self._own_change.set()

    async def run(self) -> None:
        """Keep the link until cancelled."""
        delay = hub_keeper.RestartDelay()
        while True:
            started = asyncio.get_running_loop().time()
            try:
                async with self._openflow() as over:
                    await over
                lived_s = asyncio.get_running_loop().time() - started
            except Exception as error:  # noqa: BLE001 - the link is tried again, whatever ended it
                self._fail(first_reason(error))
                lived_s = 0.0
            await asyncio.sleep(delay.failed(lived_s))

    @contextlib.asynccontextmanager
    async def _openflow(self) -> AsyncIterator[Awaitable[None]]:
        """A client of the right OpenFlow; gives what to wait for until another one is needed."""
        endpoint = configured(self._home, os.environ)
        self.hub = await hub_keeper.ensure(self._home) if endpoint is None else None
        endpoint = endpoint or embedded(self._home, self.hub.apiurl if self.hub else "")
        self.endpoint = endpoint
        client = Client(
            endpoint.url,
            endpoint.credentials,
            version=__version__,
            requests_per_s=None if endpoint.embedded else REQUESTS_PER_S,
            on_connected=self._register,
            on_lost=self._lost,
            on_refused=lambda _: self._tell(),
            ca_file=self._ca_file,
        )
        self._client, self._own_user = client, ""  # before it is entered: `_register` may run at once
        self._anew.clear()
        async with client, asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._follow_own_document(client))
            try:
                yield self._until_another_is_needed(endpoint)
            finally:
                watching.cancel()
                self._client, self._queue, self._registered, self._watched = None, None, False, False

    async def _until_another_is_needed(self, endpoint: Endpoint) -> None:
        """Return when something else is configured, the hub has another address, or we are to be ourselves again."""
        reasons = [
            asyncio.create_task(self._until_configured_otherwise(endpoint)),
            asyncio.create_task(self._anew.wait()),
            *([asyncio.create_task(self._while_the_hub_lives())] if endpoint.embedded else []),
        ]
        try:
            done, _ = await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            for reason in done:
                reason.result()
        finally:
            for reason in reasons:
                reason.cancel()
            await asyncio.wait(reasons)

    async def _until_configured_otherwise(self, endpoint: Endpoint) -> None:
        """Return when the settings name another OpenFlow or other credentials; a broken file changes nothing."""
        present = None if endpoint.embedded else endpoint
        while True:
            await asyncio.sleep(CONFIGURATION_S)
            try:
                if await asyncio.to_thread(configured, self._home, os.environ) != present:
                    log.info("Another OpenFlow or token is configured: it is used from now on.")
                    return
            except AgentError as error:
                log.warning("%s Until then the present connection is kept.", error)
                await asyncio.sleep(hub_keeper.RESTART.cap_s)

    async def _while_the_hub_lives(self) -> None:
        """Start a hub that has ended again, as long as it keeps its address: the client reconnects by itself."""
        delay = hub_keeper.RestartDelay()
        while self.hub is not None:
            hub, started = self.hub, asyncio.get_running_loop().time()
            await hub_keeper.ended(hub, self._home)
            log.warning("The embedded hub (pid %d) ended; it is started again.", hub.pid)
            self.hub = await self._hub_again(delay, asyncio.get_running_loop().time() - started)
            if self.hub.apiurl != hub.apiurl:
                return

    async def _hub_again(self, delay: hub_keeper.RestartDelay, lived_s: float) -> hub_keeper.RunningHub:
        while True:
            await asyncio.sleep(delay.failed(lived_s))
            try:
                return await hub_keeper.ensure(self._home)
            except AgentError as error:
                self._fail(error)
                lived_s = 0.0

    async def _register(self) -> None:
        """Make ourselves known after each connection, and when our document was changed; one at a time."""
        async with self._registering:
            await self._register_now()

    async def _register_now(self) -> None:
        """The steps of protocol §13: document, right user, queue, watch."""
        client, endpoint = self._client, self.endpoint
        if client is None or endpoint is None:
            return
        known = endpoint.agentid or self._identity.agent(endpoint.url)
        registration = self._identity.registration(self._capabilities(), __version__)
        document = await client.custom_command("registeragent", id=known, data=registration)
        if not isinstance(document, dict) or not document.get("slug"):
            raise Unavailable(f"OpenFlow at {endpoint.url} did not register this agent: it sent no agent document.")
        await self._be_the_right_user(client, document)
        if not endpoint.agentid:
            await asyncio.to_thread(self._identity.remember, endpoint.url, str(document["_id"]))
        self.document = document
        await self._listen(client, f"{document['slug']}agent")
        self._slug = str(document["slug"])
        self._registered, self._error = True, None
        self._tell()
        self._on_ready()

    async def _be_the_right_user(self, client: Client, document: dict[str, Any]) -> None:
        """Sign in as the document's ``runas``. Its token comes only when we are somebody else (protocol §13).

        The user that we signed in as at first is our own; to be that one again, everything is made anew.
        """
        signed_in = client.user.id if client.user else ""
        self._own_user = self._own_user or signed_in
        wanted = str(document.get("runas") or self._own_user)
        if token := document.pop("jwt", None):
            await client.sign_in_as(token)
        elif wanted != signed_in and self.runas:
            self._anew.set()
        self.runas = wanted != self._own_user

    async def _listen(self, client: Client, name: str) -> None:
        """Consume the agent's queue and watch agents and packages; both are kept by the client over reconnects."""
        if self._queue is not None and self._queue.wanted != name:
            await self._queue.close()
            self._queue = None
        if self._queue is None:
            self._queue = await client.register_queue(name, self._on_command)
        if not self._watched:
            await client.watch("agents", [], self._agents_changed)
            self._watched = True

    async def _agents_changed(self, event: WatchEvent) -> None:
        document = event.document
        if document.get("_type") == "package":
            self._on_package(str(document.get("_id", "")), event.operation)
        elif document.get("_id") == self.document.get("_id") and (
            event.operation == "delete" or any(document.get(name) != self.document.get(name) for name in OWN_FIELDS)
        ):
            self._own_change.set()

    async def _follow_own_document(self, client: Client) -> None:
        """Register again when somebody changed our document: never lost, at most once a second."""
        while True:
            await self._own_change.wait()
            await asyncio.sleep(REREGISTER_S)
            self._own_change.clear()
            try:
                await client.connected()
                await self._register()
            except AgentError as error:
                log.warning("The agent could not be registered again: %s", error)

    def _lost(self, error: AgentError) -> None:
        self._registered = False
        if isinstance(error, SignInFailed) and self.endpoint is not None:
            error = SignInFailed(f"{error} The credentials are those in {self.endpoint.source}: renew them there.")
        self._fail(error)

    def _fail(self, error: AgentError) -> None:
        if str(error) != str(self._error):
            log.warning("No connection to OpenFlow: %s", error)
        self._error = error
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._on_change()


def first_reason(error: BaseException) -> AgentError:
    """The first of our errors in a (group of) errors; anything else is logged whole and told by its type."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, AgentError):
        return error
    log.error("The link to OpenFlow failed", exc_info=error)
    return Unavailable(f"The link to OpenFlow failed ({type(error).__name__}); it is tried again.")
