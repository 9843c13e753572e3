"""A client whose server does anything: cut, joined, reordered and doubled bytes, answers in any order, twice or never.

Whatever it does, each request ends in time with its own answer or a typed error, the client finds a server that has
come to its senses again, and nothing is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from jupyter_agent.errors import AgentError, ConnectionLost, ProtocolError, ServerRefused, TimedOut
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope, Session, new_id, unpack
from tests.conftest import BUDGETS
from tests.openflow_peers import odd_client

IMPATIENT = {"timeout_s": 0.4, "requests_per_s": None}
DEADLINE_S = 20
HUGE = "x" * (3 << 20)
STACK = "/srv/openflow/secret.js:17"

Answer = Callable[[Session, Envelope, int], bytes]


def reply(session: Session, to: Envelope, number: int) -> bytes:
    return session.envelope("countreply", pb.CountResponse(result=number), rid=to.id)


def error(session: Session, to: Envelope, number: int) -> bytes:
    return session.envelope("error", pb.ErrorResponse(message=f"no {number}", stack=STACK), rid=to.id)


def other(session: Session, to: Envelope, number: int) -> bytes:
    return session.envelope("queryreply", pb.QueryResponse(), rid=to.id)


def never(session: Session, to: Envelope, number: int) -> bytes:
    return b""


def after_events(session: Session, to: Envelope, number: int) -> bytes:
    events = session.envelope("queueevent", pb.QueueEvent(queuename="q", data="{")) + session.envelope("ping")
    return events + session.envelope("watchevent", pb.WatchEvent(id="w", document=HUGE)) + reply(session, to, number)


def after_nonsense(session: Session, to: Envelope, number: int) -> bytes:
    strange = session.envelope("countreply", pb.CountResponse(result=99), rid=new_id())
    strange += session.envelope("newfangledevent") + session.envelope("stream", pb.Stream(data=b"x"), rid=to.id)
    return bytes(4) + strange + reply(session, to, number)  # a length of 0 is nothing


def twice(session: Session, to: Envelope, number: int) -> bytes:
    return reply(session, to, number) + reply(session, to, number)


def doubled(session: Session, to: Envelope, number: int) -> bytes:
    return reply(session, to, number) * 2


def out_of_turn(session: Session, to: Envelope, number: int) -> bytes:
    first, second = reply(session, to, number), session.envelope("ping")
    return second + first  # the receiver sorts by seq


def a_gap(session: Session, to: Envelope, number: int) -> bytes:
    session.envelope("ping")
    return reply(session, to, number)


def garbage(session: Session, to: Envelope, number: int) -> bytes:
    return b"\x05\0\0\0hello" + reply(session, to, number)


def too_long(session: Session, to: Envelope, number: int) -> bytes:
    return b"\xff\xff\xff\xff" + reply(session, to, number)


GOOD = (reply, after_events, after_nonsense, twice, out_of_turn)
REFUSED: dict[Answer, type[AgentError]] = {error: ServerRefused, other: ProtocolError, never: TimedOut}
FATAL = (doubled, a_gap, garbage, too_long)
"""Each may take the answers to the others with it."""


@dataclass(frozen=True)
class Plan:
    """What a server does with the first requests it gets, of its first connection."""

    answers: tuple[Answer, ...]
    order: int
    cut: int
    stops_at: float | None

    @property
    def is_fatal(self) -> bool:
        return self.stops_at is not None or any(answer in FATAL for answer in self.answers)


PLANS = st.builds(
    Plan,
    st.lists(st.sampled_from([*GOOD, *REFUSED, *FATAL]), min_size=1, max_size=6).map(tuple),
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 7, 1000, 1 << 16, 1 << 26]),
    st.none() | st.floats(0, 1),
)


class Server:
    """A server that follows a plan once, and behaves after that."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.asked: list[tuple[Envelope, int]] = []
        self.is_done = False

    async def attend(self, socket: ServerConnection) -> None:
        session = Session()
        with contextlib.suppress(ConnectionClosed):
            await socket.send(session.envelope("ping"))
            async for data in socket:
                assert isinstance(data, bytes)
                for envelope in session.receive(data):
                    await self.take(socket, session, envelope)

    async def take(self, socket: ServerConnection, session: Session, envelope: Envelope) -> None:
        message = unpack(envelope)
        if isinstance(message, pb.SigninRequest):
            user = pb.User(_id="u", username="u")
            await socket.send(session.envelope("signinreply", pb.SigninResponse(user=user), rid=envelope.id))
        elif isinstance(message, pb.CountRequest):
            number = int(message.query.strip('{}"').partition(":")[2])
            if self.is_done:
                await socket.send(reply(session, envelope, number))
                return
            self.asked.append((envelope, number))
            if len(self.asked) == len(self.plan.answers):
                self.is_done = True
                await self.follow_the_plan(socket, session)

    async def follow_the_plan(self, socket: ServerConnection, session: Session) -> None:
        pairs = list(zip(self.plan.answers, self.asked, strict=True))
        random.Random(self.plan.order).shuffle(pairs)  # noqa: S311 - any order will do
        data = b"".join(answer(session, envelope, number) for answer, (envelope, number) in pairs)
        if self.plan.stops_at is not None:
            data = data[: int(len(data) * self.plan.stops_at)]
        size = max(self.plan.cut, len(data) // 500)
        for start in range(0, len(data), size):
            await socket.send(data[start : start + size])
        if self.plan.stops_at is not None:
            socket.transport.abort()


@contextlib.asynccontextmanager
async def serving(plan: Plan) -> AsyncIterator[str]:
    server = await serve(Server(plan).attend, "127.0.0.1", 0, compression=None)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def settled_rightly(plan: Plan, answer: Answer, number: int, outcome: object) -> bool:
    """Whether a request ended as it may."""
    if isinstance(outcome, ConnectionLost | TimedOut) and plan.is_fatal:
        return True
    if answer in REFUSED:
        return isinstance(outcome, REFUSED[answer]) and STACK not in str(outcome)
    return outcome == number or (answer in FATAL and isinstance(outcome, ConnectionLost | TimedOut | ProtocolError))


async def live_through(plan: Plan) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(DEADLINE_S), serving(plan) as url, odd_client(url, **IMPATIENT) as client:
        await client.connected(DEADLINE_S)
        outcomes = await ask(client, len(plan.answers))
        for number, (answer, outcome) in enumerate(zip(plan.answers, outcomes, strict=True)):
            assert settled_rightly(plan, answer, number, outcome), (answer.__name__, outcome)
        await comes_to_its_senses(client)
        assert client._connection is not None
        assert client._connection._pending == {}
    await asyncio.sleep(0)
    assert {task for task in asyncio.all_tasks() - before if not task.done()} == set()


async def ask(client: Client, requests: int) -> list[object]:
    asking = (client.count("c", {"n": number}) for number in range(requests))
    return list(await asyncio.gather(*asking, return_exceptions=True))


async def comes_to_its_senses(client: Client) -> None:
    """A connection of which bytes are missing may look alive until a request on it times out."""
    while True:
        try:
            assert await client.count("c", {"n": 41}) == 41
        except AgentError:
            if client.is_connected and client._connection is not None:
                client._connection._transport.abort()  # as silence does after a minute
            await asyncio.sleep(0.01)
        else:
            return


@settings(max_examples=BUDGETS["client_examples"], deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PLANS)
def test_whatever_a_server_does_the_client_lives_through_it(plan: Plan) -> None:
    asyncio.run(live_through(plan))


@pytest.mark.parametrize("answer", [*GOOD, *REFUSED, *FATAL], ids=lambda answer: answer.__name__)
def test_each_oddity_alone(answer: Answer) -> None:
    asyncio.run(live_through(Plan((answer,), 0, 1 << 26, None)))
