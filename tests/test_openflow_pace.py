"""The budget of requests in a second: in virtual time, and as a client keeps it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.openflow.client import Lane, in_lane
from jupyter_agent.openflow.pace import LANE, Pace, Turns
from jupyter_agent.openflow.proto import openiap_pb2 as pb
from jupyter_agent.openflow.protocol import Envelope
from tests.openflow_peers import Peer, odd_client, odd_peer, until

Arrival = tuple[float, Lane]
UNHURRIED = settings(deadline=None)  # the machine may be busy


def simulate(per_s: int, arrivals: list[Arrival], until_s: float = 1e9) -> list[tuple[float, float, Lane]]:
    """When each request came, when it got its turn, and its lane; in the order of the turns."""
    turns, coming = Turns(per_s), deque(sorted(arrivals))
    waiting: dict[Lane, deque[float]] = {lane: deque() for lane in Lane}
    taken: list[tuple[float, float, Lane]] = []
    now_s = 0.0
    while now_s < until_s and (coming or any(waiting.values())):
        while coming and coming[0][0] <= now_s:
            came_s, lane = coming.popleft()
            waiting[lane].append(came_s)
        while lanes := [lane for lane, line in waiting.items() if line]:
            turn = turns.take(lanes, now_s)
            if turn is None:
                break
            taken.append((waiting[turn].popleft(), now_s, turn))
        later = [coming[0][0]] if coming else []
        if any(waiting.values()):
            again_s = turns.next_s(now_s)
            assert again_s > now_s, "nobody would ever ask again"
            later.append(again_s)
        now_s = min(later, default=now_s)
    return taken


LANES = st.sampled_from(list(Lane))
TRAFFIC = st.lists(st.tuples(st.floats(0, 5), LANES), max_size=300)


@UNHURRIED
@given(st.integers(1, 60), TRAFFIC)
def test_no_second_has_more_turns_than_the_limit_and_nobody_is_forgotten(per_s: int, arrivals: list[Arrival]) -> None:
    taken = simulate(per_s, arrivals)
    assert sorted(lane for _, _, lane in taken) == sorted(lane for _, lane in arrivals)
    times = [turn_s for _, turn_s, _ in taken]
    assert all(later - earlier > 1 - 1e-9 for earlier, later in zip(times, times[per_s:], strict=False))
    for lane in Lane:
        assert [came for came, _, of in taken if of is lane] == sorted(came for came, _, of in taken if of is lane)


@UNHURRIED
@given(st.integers(10, 60), st.lists(LANES, min_size=1, max_size=4, unique=True))
def test_whoever_floods_every_lane_gets_its_share(per_s: int, flooding: list[Lane]) -> None:
    """Also the lowest gets on while all others have more to do than fits."""
    arrivals = [(0.0, lane) for lane in flooding for _ in range(per_s * 4)]
    counts = Counter(lane for _, turn_s, lane in simulate(per_s, arrivals, until_s=4) if turn_s < 4)
    share = 4 * max(1, per_s // 10)
    assert all(counts[lane] >= share for lane in flooding)
    assert counts[min(flooding)] == max(counts.values())


@UNHURRIED
@given(st.lists(st.tuples(st.floats(2, 4), st.integers(1, 4)), max_size=4), st.sampled_from([Lane.CONSOLE, Lane.SYNC]))
def test_a_flood_of_bulk_makes_no_command_wait_for_long(commands: list[tuple[float, int]], bulk: Lane) -> None:
    """A command takes some requests (who is it, which package, the answer), while output comes without end."""
    arrivals = [(0.0, bulk)] * 120 + [(at_s, Lane.COMMANDS) for at_s, requests in commands for _ in range(requests)]
    waits = [turn_s - came_s for came_s, turn_s, lane in simulate(28, arrivals, 5) if lane is Lane.COMMANDS]
    assert len(waits) == sum(requests for _, requests in commands)
    assert max(waits, default=0) <= (0.7 if len(waits) > 6 else 0)


@pytest.mark.parametrize("per_s", [5, 28])
@pytest.mark.parametrize("lane", Lane)
def test_one_lane_alone_uses_most_of_the_limit(lane: Lane, per_s: int) -> None:
    taken = simulate(per_s, [(0.0, lane)] * per_s * 5)
    needed_s = taken[-1][1]
    assert needed_s <= 5 / (1 - lane / 9) + 1


async def test_the_pace_waits_as_the_turns_are() -> None:
    pace, turns = Pace(5), []

    async def take() -> None:
        await pace.turn()
        turns.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(take() for _ in range(12)))
    assert all(later - earlier > 0.99 for earlier, later in zip(turns, turns[5:], strict=False))


async def test_who_gives_up_waiting_takes_no_turn() -> None:
    pace = Pace(2)
    tasks = [asyncio.create_task(pace.turn()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[2:4]:
        task.cancel()
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [False, False, True, True, False]


async def test_a_lane_holds_for_what_is_started_in_it() -> None:
    async def lane() -> Lane:
        return LANE.get()

    with in_lane(Lane.SYNC):
        task = asyncio.create_task(lane())
    assert (await task, LANE.get()) == (Lane.SYNC, Lane.COMMANDS)


async def test_a_command_overtakes_the_output_that_waits() -> None:
    order: list[str] = []

    async def behave(peer: Peer, envelope: Envelope, message: Message) -> None:
        if isinstance(message, pb.QueueMessageRequest):
            order.append("output")
            await peer.send("queuemessagereply", pb.QueueMessageResponse(), rid=envelope.id)
        else:
            order.append("command")
            await peer.send("countreply", pb.CountResponse(), rid=envelope.id)

    async with odd_peer(behave) as url, odd_client(url) as client:
        await client.connected()
        with in_lane(Lane.CONSOLE):
            output = [asyncio.create_task(client.queue_message("q", {})) for _ in range(40)]
        await until(lambda: order)
        await client.count("c", {})
        assert order.index("command") < 20
        await asyncio.gather(*output)
    assert order.count("output") == 40
