"""Who follows which runs by queue, and who is owed a run's result.

Nothing is lost while OpenFlow is away: output is read from the run's log when it can be sent, and who is owed a
result stands in the run's row until it was sent.

Whoever may invoke the agent may see which runs there are, and end them. What a run prints is the package's, so reading
it takes the right to read the package, too, or to be the one who asked for the run, or to have a say over the agent
itself (to update its document, which includes what its runs do). A run of a local file is the home's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Collection, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from jupyter_agent.agent.console.followers import Feed, Follower
from jupyter_agent.agent.console.past import Lately, Past, retold
from jupyter_agent.agent.console.post import PATIENCE_S, Post
from jupyter_agent.agent.console.results import last_message, result_message
from jupyter_agent.agent.link import Link
from jupyter_agent.agent.senders import Sender
from jupyter_agent.errors import AccessDenied, AgentError, InvalidInput, ServerRefused, Unavailable
from jupyter_agent.openflow.rights import ADMINS, Right, allowed
from jupyter_agent.runs import Run, Supervisor
from jupyter_agent.state import RunRow, State

log = logging.getLogger(__name__)

LEAVE_S = 3.0
"""What is being sent when the agent ends gets this long; a result that was not sent then is owed still."""

PING_S = 301.0
"""A queue that was sent nothing for so long is asked whether anybody listens there."""

PING_EXPIRATION_MS = 60_000
"""After which a message that nobody took comes back (protocol §11)."""

RESULT_EXPIRATION_MS = 24 * 3600 * 1000
"""How long a result waits in a queue that outlives its consumer."""

MOST_QUEUES = 1000
MOST_QUEUES_A_USER = 50
"""That follow all runs; the oldest one of the same user makes room for another."""

LONGEST_NAME = 500
"""Characters of a queue's name, or a run's."""

PRIVATE_QUEUE = re.compile(r"\w+\.\w{16,}")
"""Names that servers give; they cannot be guessed, so that knowing one is the right to send there."""


class Console:
    """Followers of runs by queue. Tasks live in the group given; ``end`` ends them."""

    def __init__(
        self, *, link: Link, state: State, supervisor: Supervisor, tasks: asyncio.TaskGroup, ping_s: float = PING_S
    ) -> None:
        self._link = link
        self._state = state
        self._supervisor = supervisor
        self._tasks = tasks
        self._ping_s = ping_s
        self._post = Post(link=link)
        self._followers: dict[str, Follower] = {}
        self._live: set[str] = set()
        """Ids of the runs that those who follow all have been told of."""
        self._named: dict[str, Run] = {}
        self._lately = Lately()
        self._names: WeakKeyDictionary[Run, str] = WeakKeyDictionary()
        self._askers: WeakKeyDictionary[Run, str] = WeakKeyDictionary()
        self._acls: WeakKeyDictionary[Run, Any] = WeakKeyDictionary()
        self._pings: dict[str, Follower] = {}
        self._owing: dict[str, asyncio.Task[None]] = {}
        self._paying = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = {tasks.create_task(self._look_for_the_dead())}
        self._unsubscribe = supervisor.subscribe(self._changed)
        self._settled = asyncio.Event()
        self._settled.set()

    # Runs and their names

    def run_of(self, name: str) -> Run | None:
        """The run that is known under this name, or has this id, and has not ended."""
        run = self._named.get(name) or self._supervisor.live(name)
        return None if run is None or run.row.ended else run

    def name_of(self, run: Run) -> str:
        """The name under which whoever asked for the run knows it; its id where nobody named it."""
        return self._names.get(run, run.row.id)

    def check_name(self, name: str) -> None:
        """Raise ``InvalidInput`` for a name that a new run cannot have: it would be taken for another."""
        if len(name) > LONGEST_NAME:
            raise InvalidInput(f"streamid is too long: {LONGEST_NAME} characters are the most.")
        if name and self.run_of(name) is not None:
            raise InvalidInput(f"A run is followed as {name} already: give another streamid.")

    def name(self, run: Run, name: str, asker: Sender | None = None) -> None:
        """Know the run under this name until it has ended; an empty one is none. ``asker`` may read its output."""
        if asker is not None:
            self._askers[run] = asker.user.id
        if name:
            self._names[run] = name
        if name and not run.row.ended:
            self._named[name] = run

    @property
    def busy(self) -> bool:
        """Whether output or a result is still to be sent."""
        return bool(self._owing) or any(follower.feeds for follower in self._followers.values())

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Nobody hears of new runs inside: until the answer to who asked for one is sent.

        The official client takes the first message with an answer's correlation id for the answer, from any queue.
        """
        self._settled.clear()
        try:
            yield
        finally:
            self._settled.set()

    # Who follows

    def follow(self, run: Run, name: str = "", asker: Sender | None = None) -> None:
        """Send the run's output, then its result, to the queue in its row; it is known under the name."""
        reply = run.row.reply
        self.name(run, name or (reply or {}).get("correlation_id", ""), asker)
        if reply is None or run.row.id in self._owing:
            return
        follower = self._follower(reply["queue"])
        if asker is not None:
            follower.users.add(asker.user.id)
        feed = follower.follow(run, 0, asked=True)
        self._owing[run.row.id] = self._tasks.create_task(self._see_off(run, feed))

    async def subscribe(self, queue: str, run: Run, sender: Sender) -> None:
        """Have the queue follow one run, with all it has printed so far. Raises ``AccessDenied``."""
        if not await self._may_read(sender, run):
            raise AccessDenied(
                f"{sender.user.name or sender.user.username} may not read what {run.row.package or run.row.id} prints: "
                "the right to read that package is needed."
            )
        self._follower(queue, sender).follow(run, 0, again=True)

    async def tell_again(self, queue: str, name: str, sender: Sender) -> bool:
        """Send what there is of a run that has ended lately: its output and its end; ``False``: none is known so.

        Raises ``AccessDenied``.
        """
        if (past := self._lately.find(name)) is None:
            return False
        asked = bool(past.asker) and past.asker == sender.user.id
        if not asked and not self._has_a_say(sender):
            acl = await self._acl_of(past.package_id) if past.package_id else None
            if not allowed(acl, sender.user.principals, Right.READ):
                raise AccessDenied(f"{sender.user.name or sender.user.username} may not read what {name} has printed.")
        self._in_background(self._tell_again(queue, past, whole=asked))
        return True

    async def _tell_again(self, queue: str, past: Past, *, whole: bool) -> None:
        row = await self._state.get(past.run_id)
        async with contextlib.aclosing(retold(row, whole=whole)) as messages:
            async for message in messages:
                if not await self._post.send(queue, message, correlation_id=past.name):
                    return

    async def watch(self, queue: str, sender: Sender) -> None:
        """Have the queue follow all runs from now on that the sender may read the output of."""
        self._make_room(sender)
        follower = self._follower(queue, sender)
        follower.everything = sender
        for run in self._supervisor.live_runs():
            if run.row.id in self._live and await self._may_read(sender, run):
                follower.follow(run, run.output.size)

    def unwatch(self, queue: str, sender: Sender) -> None:
        """Have the queue follow nothing but what was asked for from there. Raises ``AccessDenied``."""
        follower = self._followers.get(queue.lower())
        if follower is None:
            return
        if sender.user.id not in follower.users and not self._has_a_say(sender):
            raise AccessDenied(f"The queue {queue} was subscribed by somebody else.")
        follower.stop_following()

    async def check_queue(self, queue: str, sender: Sender) -> None:
        """Raise unless the sender may send to this queue: the agent's own rights are not the sender's.

        A queue that its owner named is asked, as the sender; one that a server named cannot be guessed.
        """
        if len(queue) > LONGEST_NAME or queue.lower() == self._post.own_queue.lower():
            raise InvalidInput(f"Output cannot be sent to the queue {queue[:100]}.")
        known = self._followers.get(queue.lower())
        if PRIVATE_QUEUE.fullmatch(queue) or (known is not None and sender.user.id in known.users):
            return
        try:
            client = await self._link.client()
            await client.queue_message(queue, {"command": "ping"}, strip_token=True, jwt=sender.jwt)
        except ServerRefused as error:
            raise AccessDenied(f"The queue {queue} cannot be sent to: {error}") from error

    @property
    def queues(self) -> list[str]:
        """The queues that follow something."""
        return [follower.queue for follower in self._followers.values()]

    def processes(self, sender: Sender | None) -> dict[str, Any]:
        """The runs, as ``listprocesses`` tells them (protocol §15), and the queues of the sender that follow them."""
        shown = [self._process(run, sender) for run in self._supervisor.live_runs()]
        return {"command": "listprocesses", "success": True, "count": len(shown), "processes": shown}

    def is_ping(self, correlation_id: str) -> bool:
        """Whether a message of ours that asks whether anybody listens has this id."""
        return correlation_id in self._pings

    def ping_came_back(self, correlation_id: str) -> None:
        """Nobody took this ping: nobody listens on that queue any more."""
        if (follower := self._pings.pop(correlation_id, None)) is not None:
            log.info("Nobody listens on the queue %s any more.", follower.queue)
            follower.leave()

    def _process(self, run: Run, sender: Sender | None) -> dict[str, Any]:
        return {
            "id": self.name_of(run),
            "streamqueues": [
                follower.queue
                for follower in self._followers.values()
                if run.row.id in follower.feeds and self._may_know(sender, follower)
            ],
            "packagename": run.row.package,
            "packageid": run.row.package_id or "",
            "schedulename": "",
            "buffersize": run.output.size,
            "ports": [],
        }

    def _may_know(self, sender: Sender | None, follower: Follower) -> bool:
        """A private queue's name is the right to send there: it is its user's, and of who has a say over the agent."""
        return sender is not None and (sender.user.id in follower.users or self._has_a_say(sender))

    def _follower(self, queue: str, sender: Sender | None = None) -> Follower:
        """The follower of this queue, made where there is none. Raises ``InvalidInput`` when there are too many."""
        follower = self._followers.get(queue.lower())
        if follower is None:
            if sender is not None and len(self._followers) >= MOST_QUEUES:
                raise InvalidInput(f"This agent has {MOST_QUEUES} subscribers already: it takes no more.")
            follower = Follower(
                queue,
                post=self._post,
                tasks=self._tasks,
                name_of=self.name_of,
                ending_of=self._ending,
                on_idle=self._forget_follower,
            )
            self._followers[queue.lower()] = follower
        if sender is not None:
            follower.users.add(sender.user.id)
        return follower

    async def _ending(self, run: Run, row: RunRow, users: Collection[str]) -> dict[str, Any]:
        """Who asked for the run gets the whole result on each queue that follows it: the first one may be gone."""
        return await last_message(row, whole=self._askers.get(run) in users)

    def _forget_follower(self, follower: Follower) -> None:
        if self._followers.get(follower.queue.lower()) is follower:
            del self._followers[follower.queue.lower()]
        self._forget_pings(follower)

    def _forget_pings(self, follower: Follower) -> None:
        for known in [known for known, asked in self._pings.items() if asked is follower]:
            del self._pings[known]

    def _make_room(self, sender: Sender) -> None:
        theirs = [each for each in self._followers.values() if _user(each) == sender.user.id]
        for follower in theirs[: max(0, len(theirs) - MOST_QUEUES_A_USER + 1)]:
            follower.stop_following()

    # Rights

    def _has_a_say(self, sender: Sender) -> bool:
        """Whether the sender may change the agent, and so see all it does."""
        principals = sender.user.principals
        return ADMINS in principals or allowed(self._link.document.get("_acl"), principals, Right.UPDATE)

    async def _may_read(self, sender: Sender, run: Run) -> bool:
        """Whether the sender may see what the run prints; waits for OpenFlow where it has to be asked."""
        if self._has_a_say(sender) or self._askers.get(run) == sender.user.id:
            return True
        if run.row.package_id is None:
            return False
        if run not in self._acls:
            self._acls[run] = await self._acl_of(run.row.package_id)
        return allowed(self._acls[run], sender.user.principals, Right.READ)

    async def _acl_of(self, package_id: str) -> Any:
        """Who may do what with a package; ``None``, which is nobody, where the agent may not know."""
        while True:
            try:
                client = await self._link.client()
                found = await client.query("agents", {"_id": package_id}, projection={"_acl": 1}, top=1)
            except Unavailable:
                await asyncio.sleep(PATIENCE_S)
            except AgentError as error:
                log.warning("It cannot be told who may read package %s: %s", package_id, error)
                return None
            else:
                return found[0].get("_acl") if found else None

    # What happens to runs

    def _changed(self, row: RunRow) -> None:
        """A run has begun, changed or ended."""
        if row.ended:
            self._live.discard(row.id)
            names = [name for name, run in self._named.items() if run.row.id == row.id]
            run = self._named[names[0]] if names else self._supervisor.live(row.id)
            asker = self._askers.get(run, "") if run is not None else ""
            self._lately.add(Past(row.id, names[0] if names else row.id, row.package_id, asker))
            for name in names:
                del self._named[name]
        elif row.id not in self._live and (run := self._supervisor.live(row.id)) is not None:
            self._live.add(row.id)
            if any(follower.everything for follower in self._followers.values()):
                self._in_background(self._begin(run))

    async def _begin(self, run: Run) -> None:
        """Tell those who follow everything of a new run, and send them its output."""
        await self._settled.wait()
        for follower in [each for each in self._followers.values() if each.everything is not None]:
            sender = follower.everything
            if sender is None or not self._may_invoke(sender):
                follower.stop_following()
                continue
            follower.announce(lambda sender=sender: self.processes(sender), self.name_of(run))  # type: ignore[misc]
            if await self._may_read(sender, run) and follower.everything is sender:
                follower.follow(run, 0)

    def _may_invoke(self, sender: Sender) -> bool:
        return allowed(self._link.document.get("_acl"), sender.user.principals, Right.INVOKE)

    async def _see_off(self, run: Run, feed: Feed | None) -> None:
        """Tell the result when all output was sent, or cannot be."""
        try:
            if feed is not None:
                await feed.over()
            await self._tell_end(await run.wait())
        except Unavailable as error:
            log.warning("%s", error)
        except Exception:
            log.exception("The result of run %s cannot be sent", run.row.id)
        finally:
            del self._owing[run.row.id]

    async def _tell_end(self, row: RunRow) -> None:
        """Send a run's result; what is owed stands in its row until the server has taken it."""
        if row.reply:
            message = await asyncio.to_thread(result_message, row)
            queue, correlation_id = row.reply["queue"], row.reply["correlation_id"] or row.id  # as its output has it
            await self._post.send(queue, message, correlation_id=correlation_id, expiration_ms=RESULT_EXPIRATION_MS)
            await self._state.update(row.id, reply=None)

    async def tell_left_over(self) -> None:
        """Send the results that are owed by nobody who is at it: those that an earlier agent owed when it ended.

        One that cannot be told (whatever the package left) keeps none of the others from being told.
        """
        async with self._paying:
            for owed in await self._state.owed():
                try:
                    if owed.id not in self._owing:
                        await self._tell_end(await self._state.get(owed.id))
                except Exception:
                    log.exception("The result of run %s cannot be sent", owed.id)

    # Those who do not listen any more

    async def _look_for_the_dead(self) -> None:
        """Ask queues that were sent nothing for long whether anybody listens: who does not is dropped."""
        while True:
            await asyncio.sleep(self._ping_s / 10)
            now_s = asyncio.get_running_loop().time()
            if not self._link.connected:
                continue
            for follower in list(self._followers.values()):
                if now_s - follower.heard_at > self._ping_s:
                    follower.heard_at = now_s
                    self._in_background(self._ping(follower))

    async def _ping(self, follower: Follower) -> None:
        if follower.everything is not None and not self._may_invoke(follower.everything):
            follower.stop_following()
            return
        expiration_ms = min(PING_EXPIRATION_MS, int(self._ping_s * 1000))
        self._forget_pings(follower)  # the last one was delivered, or it would have come back
        correlation_id = secrets.token_hex(16)
        self._pings[correlation_id] = follower
        await follower.ping(correlation_id, expiration_ms)

    def _in_background(self, work: Any) -> None:
        task = self._tasks.create_task(_logged(work))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def end(self) -> None:
        """Send no more, after a moment for what is under way."""
        self._unsubscribe()
        for task in self._background:
            task.cancel()
        sending = [feed.task for follower in self._followers.values() for feed in follower.feeds.values()]
        if sending or self._owing:
            await asyncio.wait([*sending, *self._owing.values()], timeout=LEAVE_S)
        for task in (*sending, *self._owing.values()):
            task.cancel()
        for follower in list(self._followers.values()):
            follower.leave()


def _user(follower: Follower) -> str:
    """Whose rights a follower of everything has."""
    return follower.everything.user.id if follower.everything is not None else ""


async def _logged(work: Any) -> None:
    try:
        await work
    except Exception:
        log.exception("A subscriber could not be told")
