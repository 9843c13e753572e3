"""Following runs over the queue: who gets what, once, in order, and whom it does not concern."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from jupyter_agent.agent.commands import Commands
from jupyter_agent.agent.console import Console
from jupyter_agent.agent.console.followers import BATCH_BYTES, batches, pieces
from jupyter_agent.agent.launch import Launcher
from jupyter_agent.agent.link import Link
from jupyter_agent.home import Home, write_private
from jupyter_agent.openflow.client import Client
from jupyter_agent.openflow.rights import Right
from jupyter_agent.processes import Command, inherited_environment
from jupyter_agent.runs import Limits, Page, Prepared, Run, Supervisor
from jupyter_agent.state import RunRow, State, new_run_id
from tests.agent_peers import Caller, agent_of, published
from tests.conftest import pid_in
from tests.console_peers import TALKER, House, Script, answer, commands, heard, holds, streamed, text
from tests.hub_peers import hub_on_a_new_home
from tests.openflow_peers import Hub, until

SLEEPER = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
LINES = "for n in range(3000):\n    print('line', n, flush=True)\n"
GREETING = "import os\nprint('greeting', os.environ.get('GREETING'), os.environ['PATH'] == '/evil')\n"
FLOOD = "import sys\nfor n in range(120_000):\n    print(f'{n:08} ' + 'x' * 90)\n"


@pytest.fixture(scope="module")
def house(hub: Hub) -> Iterator[House]:
    with agent_of(hub) as (home, agent):
        yield House(hub, home, agent, agent.request("GET", "status")["queue"])


@pytest.fixture(scope="module")
def packages(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("packages")
    programs = {
        "talker": TALKER,
        "sleeper": SLEEPER,
        "flood": FLOOD,
        "lines": LINES,
        "greeting": GREETING,
        "broken": "raise SystemExit('no such luck')\n",
    }
    return {name: published(house.agent, folder / name, program) for name, program in programs.items()}


@pytest.fixture
async def callers(house: House, client: Client) -> AsyncIterator[list[Caller]]:
    """Three queues; whatever ran for them is over afterwards."""
    async with house.caller(client) as first, house.caller(client) as second, house.caller(client) as third:
        yield [first, second, third]
        await house.ask(first, {"command": "killall"})
        await house.nothing_runs()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    made = Script(tmp_path / "script")
    made.path.touch()
    return made


async def started(house: House, caller: Caller, packages: dict[str, str], name: str, script: Script) -> None:
    """A talker that is up."""
    await house.run(caller, packages["talker"], name, payload={"script": str(script.path)})
    await heard(caller, name, "up\n")


async def test_a_run_is_followed_by_several_queues_each_once(
    house: House, packages: dict[str, str], callers: list[Caller], script: Script
) -> None:
    asker, late, watcher = callers
    await started(house, asker, packages, "r1", script)
    await watcher.send(house.queue, {"command": "addcommandstreamid"}, correlation_id="add")
    await house.ask(watcher, {"command": "portclose"})  # what came before it has been done when it is answered
    script.say("one")
    await heard(watcher, "r1", "one")
    told = await house.ask(late, {"command": "setstreamid", "id": "r1"})
    assert told == {"command": "setstreamid", "success": True, "count": 0}
    await heard(late, "r1", "one\n")
    script.say("two", "€" * 10)
    script.end()
    end = await answer(asker, "r1", "runpackage", completed=True)
    assert (end["success"], end["exitcode"]) == (True, 0)
    for caller in (late, watcher):
        assert (await answer(caller, "r1", "runpackage"))["data"] == ""
        assert commands(caller, "r1")[-2:] == ["completed", "runpackage"]
    assert commands(asker, "r1") == ["runpackage", "completed", "runpackage"]
    whole = end["output"]
    assert whole.endswith(f"up\none\ntwo\n{'€' * 10}\n")
    assert (text(asker, "r1"), text(late, "r1")) == (whole, whole)
    assert text(watcher, "r1") == whole[whole.index("one") :], "who follows all hears what is printed from then on"
    for caller in callers:
        parts = streamed(caller.received, "r1")
        assert all(part["data"]["type"] == "Buffer" and "again" not in part for part in parts)
        assert all(one["next"] == other["offset"] for one, other in itertools.pairwise(parts))
    assert "add" not in {event.correlation_id for event in watcher.received}, "addcommandstreamid has no answer"


async def test_a_queue_follows_the_run_it_named_and_no_other(
    house: House, packages: dict[str, str], callers: list[Caller], script: Script, tmp_path: Path
) -> None:
    asker, follower, _ = callers
    other = Script(tmp_path / "other")
    other.path.touch()
    await started(house, asker, packages, "mine", script)
    await started(house, asker, packages, "other", other)
    await house.ask(follower, {"command": "setstreamid", "streamid": "mine", "streamqueue": follower.queue})
    for each in (other, script):
        each.say("news")
    await heard(asker, "other", "news")
    await heard(follower, "mine", "news")
    await holds(lambda: not any(event.correlation_id == "other" for event in follower.received), follower, house)
    listed = await house.ask(asker, {"command": "listprocesses", "stream": False})
    followed = {process["id"]: process["streamqueues"] for process in listed["processes"]}
    assert followed == {"mine": [asker.queue, follower.queue], "other": [asker.queue]}


async def test_who_follows_all_hears_of_each_new_run_until_they_have_enough(
    house: House, packages: dict[str, str], callers: list[Caller], script: Script
) -> None:
    asker, watcher, _ = callers
    first = await house.ask(watcher, {"command": "listprocesses"})
    assert first == {"command": "listprocesses", "success": True, "count": 0, "processes": []}
    await started(house, asker, packages, "new", script)
    pushed = await answer(watcher, "new", "listprocesses")
    (process,) = pushed["processes"]
    assert set(process) == {
        "id", "streamqueues", "packagename", "packageid", "schedulename", "buffersize", "ports",
    }  # fmt: skip
    assert (process["id"], process["packageid"], process["packagename"]) == ("new", packages["talker"], "talker")
    assert (process["schedulename"], process["ports"], pushed["count"]) == ("", [], 1)
    await heard(watcher, "new", "up\n")
    local = house.agent.request("POST", f"packages/{packages['broken']}/runs", {})["id"]
    assert (await answer(watcher, local, "runpackage"))["success"] is False, "a run that nobody asked for by queue"
    assert "no such luck" in text(watcher, local)

    await watcher.send(house.queue, {"command": "removecommandstreamid"}, correlation_id="remove")
    await holds(lambda: True, watcher, house)
    before = len(watcher.received)
    script.say("unheard")
    script.end()
    await answer(asker, "new", "runpackage", completed=True)
    await holds(lambda: len(watcher.received) == before + 1, watcher, house)


async def test_a_queue_that_asks_and_follows_all_hears_everything_once(
    house: House, packages: dict[str, str], callers: list[Caller], script: Script
) -> None:
    """As the web UI does it, with one queue for all."""
    page = callers[0]
    await page.send(house.queue, {"command": "addcommandstreamid"}, correlation_id="a")
    await started(house, page, packages, "r", script)
    script.end()
    end = await answer(page, "r", "runpackage", completed=True)
    assert text(page, "r") == end["output"]
    assert sorted(commands(page, "r")) == ["completed", "listprocesses", "runpackage", "runpackage"]


async def test_killall_ends_all_and_counts_them(house: House, packages: dict[str, str], callers: list[Caller]) -> None:
    asker = callers[0]
    for name in ("a", "b", "c"):
        await house.run(asker, packages["sleeper"], name)
    assert await house.ask(asker, {"command": "killall"}) == {"command": "killall", "success": True, "count": 3}
    for name in ("a", "b", "c"):
        assert (await answer(asker, name, "runpackage", completed=True))["success"] is False
    await house.nothing_runs()
    assert await house.ask(asker, {"command": "killall"}) == {"command": "killall", "success": True, "count": 0}
    assert {run["state"] for run in house.runs()[:3]} == {"cancelled"}


async def test_a_package_is_tried_out_for_as_long_as_asked(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker = callers[0]
    up = {"command": "testrunpackage", "packageid": packages["sleeper"], "kill_after_seconds": "0.5"}
    tried = await house.ask(asker, up)
    assert (tried["success"], tried["completed"], "error" in tried) == (True, True, False)
    assert tried["output"].endswith("up\n")
    assert house.runs()[0]["state"] == "timed_out"
    tried = await house.ask(asker, {"command": "testrunpackage", "id": packages["broken"]})
    assert (tried["success"], tried["exitcode"]) == (False, 1)
    assert "no such luck" in tried["output"]
    bad_times: list[Any] = [0, -1, "soon", True, [], {}, 1e9, "nan", "inf", "1e400", 2**62]
    for bad in bad_times:
        refused = await house.ask(asker, {**up, "kill_after_seconds": bad})
        assert (refused["success"], "kill_after_seconds" in refused["error"]) == (False, True), bad
    assert not any(event.data["command"] == "stream" for event in asker.received), "nobody asked for it"


async def test_a_package_is_prepared_and_installed_anew(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker = callers[0]
    made = await house.ask(asker, {"command": "preparepackage", "packageid": packages["talker"]})
    assert (made["success"], "output" in made) == (True, True)
    assert house.runs()[0]["kind"] == "prepare"
    unknown = await house.ask(asker, {"command": "preparepackage", "id": "nothing"})
    assert (unknown["success"], "nothing" in unknown["error"]) == (False, True)
    await house.run(asker, packages["sleeper"], "old")
    await heard(asker, "old", "up")
    anew = await house.ask(asker, {"command": "reinstallpackage", "id": packages["sleeper"]})
    assert anew == {"command": "reinstallpackage", "success": True}
    assert (await answer(asker, "old", "runpackage", completed=True))["success"] is False
    await house.run(asker, packages["sleeper"], "new")
    await heard(asker, "new", "up")


async def test_while_one_command_takes_long_others_are_answered(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker = callers[0]
    await asker.send(house.queue, {"command": "testrunpackage", "id": packages["sleeper"], "streamid": "test",
                                   "kill_after_seconds": 300}, correlation_id="long")  # fmt: skip
    await until(lambda: house.agent.request("GET", "status")["runs"]["active"] == 1)
    assert (await house.ask(asker, {"command": "kill", "id": "test"})) == {"command": "kill", "success": True}
    ended = await answer(asker, "long")
    assert (ended["success"], "cancelled" in ended["error"]) == (False, True)


REFUSED: list[tuple[Any, dict[str, Any]]] = [
    ({"command": "invoke", "wiq": "q", "packageid": "p"}, {"command": "invoke", "success": False, "completed": True}),
    ({"wiq": "q"}, {"command": "invoke", "success": False, "completed": True}),
    ({"command": ""}, {"command": "invoke", "success": False, "completed": True}),
    ({"payload": {"command": "kill", "id": "nobody"}}, {"command": "kill", "success": False}),
    ({"command": "kill"}, {"command": "kill", "success": False, "error": "id or streamid is required."}),
    ({"command": "kill", "id": 5}, {"command": "kill", "success": False, "error": "id or streamid is required."}),
    ({"command": "setstreamid"}, {"command": "setstreamid", "success": False}),
    ({"command": "setstreamid", "id": "nobody"}, {"command": "setstreamid", "success": False}),
    ({"command": "runpackage"}, {"command": "runpackage", "success": False, "completed": True}),
    ({"command": "RunPackage", "id": "x"}, {"command": "RunPackage", "success": False}),
    ({"command": ["runpackage"]}, {"command": "['runpackage']", "success": False}),
    ({"command": 7}, {"command": "7", "success": False}),
    ({"command": "x" * 5000}, {"command": "x" * 100, "success": False}),
    ({"command": "timeout"}, {"command": "timeout", "success": False}),
    ("no object", {"command": "", "success": False, "error": "not authenticated"}),
    (None, {"command": "", "success": False, "error": "not authenticated"}),
    ([{"command": "killall"}], {"command": "", "success": False, "error": "not authenticated"}),
]


@pytest.mark.parametrize("case", range(len(REFUSED)), ids=lambda case: str(REFUSED[case][0])[:40])
async def test_what_cannot_be_done_is_answered_clearly(house: House, client: Client, case: int) -> None:
    sent, expected = REFUSED[case]
    async with house.caller(client) as caller:
        await caller.send(house.queue, sent, correlation_id="c")
        told = await answer(caller, "c")
        assert {key: told[key] for key in expected} == expected
        assert told["error"]
        assert len(told["error"]) < 500


async def test_an_unknown_command_is_told_what_there_is(house: House, callers: list[Caller]) -> None:
    told = await house.ask(callers[0], {"command": "dance"})
    for known in ("runpackage", "killall", "testrunpackage", "preparepackage", "reinstallpackage", "setstreamid"):
        assert known in told["error"]


async def test_a_hint_of_a_work_item_is_not_answered(house: House, client: Client, callers: list[Caller]) -> None:
    await client.queue_message(house.queue, {"wiq": "q", "packageid": "p"})
    await client.queue_message(house.queue, {"command": "timeout"}, correlation_id="t")
    await holds(lambda: len(house.runs()) == len(house.runs()), callers[0], house)


async def test_a_stranger_is_refused_before_anything_else(house: House, client: Client) -> None:
    """Whoever can write to the queue, without a token or with one that is none."""
    before = len(house.runs())
    async with house.caller(client) as caller:
        for command in ("invoke", "", "runpackage", "kill", "killall", "reinstallpackage", "listprocesses", "portdata"):
            data = {"command": command, "id": "x", "wiq": "q", "packageid": "x", "__user": {"name": "root"}}
            claims: list[dict[str, Any]] = [{}, {"__jwt": "a.b.c"}, {"__jwt": 5}, {"__jwt": ""}]
            for number, about in enumerate(claims):
                name = f"{command} {number}"
                await caller.send(house.queue, {**data, **about}, correlation_id=name, strip_token=True)
                told = await answer(caller, name)
                assert (told["success"], told["error"].startswith("not authenticated")) == (False, True)
                assert "completed" not in told
    assert len(house.runs()) == before


async def test_names_that_nobody_gave_cannot_be_guessed(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker, watcher, _ = callers
    await watcher.send(house.queue, {"command": "addcommandstreamid"}, correlation_id="add")
    for _ in range(2):
        await asker.send(house.queue, {"command": "runpackage", "id": packages["broken"]}, correlation_id="")

    def names() -> set[str]:
        return {event.correlation_id for event in watcher.received if event.data["command"] == "completed"}

    await until(lambda: len(names()) == 2, "both have ended")
    assert all(re.fullmatch(r"[0-9-]+-[0-9a-f]{16}", name) for name in names())


async def test_many_pieces_of_output_are_few_messages(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker = callers[0]
    await house.run(asker, packages["lines"], "lines")
    end = await answer(asker, "lines", "runpackage", completed=True)
    assert text(asker, "lines") == end["output"]
    assert end["output"].endswith("line 2998\nline 2999\n")
    assert len(streamed(asker.received, "lines")) < 300


async def test_what_the_agents_document_sets_is_for_packages_and_goes_with_it(
    house: House, packages: dict[str, str], callers: list[Caller]
) -> None:
    asker, client = callers[0], callers[0].client
    slug = house.agent.request("GET", "status")["slug"]
    document = (await client.query("agents", {"slug": slug}))[0]

    async def until_printed(words: str) -> None:
        async with asyncio.timeout(60):
            for number in itertools.count():
                await house.run(asker, packages["greeting"], f"{words} {number}")
                end = await answer(asker, f"{words} {number}", "runpackage", completed=True)
                if words in end["output"]:
                    return

    await client.update_one("agents", {**document, "environment": {"GREETING": "hello", "PATH": "/evil"}})
    await until_printed("greeting hello False")
    pid = pid_in(house.home.agent_file)
    assert "GREETING" not in psutil.Process(pid).environ()
    await client.update_one("agents", {**document, "environment": {}})
    await until_printed("greeting None False")


async def test_no_port_of_the_machine_can_be_reached(house: House, callers: list[Caller]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        about = {"id": "connection", "port": port, "portname": f"PORT{port}", "seq": 0, "buf": [1, 2, 3]}
        for command in ("portdata", "portclose"):
            told = await house.ask(callers[0], {"command": command, **about})
            assert (told["id"], told["success"], "port" in told["error"]) == ("connection", False, True)
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_a_stream_id_names_one_run(house: House, packages: dict[str, str], callers: list[Caller]) -> None:
    asker, other, _ = callers
    await house.run(asker, packages["sleeper"], "taken")
    assert "taken" in (await house.run(other, packages["sleeper"], "taken"))["error"]
    run = house.runs()[0]["id"]
    assert "already" in (await house.run(other, packages["sleeper"], run))["error"], "nor another run's id"
    assert "long" in (await house.run(other, packages["sleeper"], "n", streamid="x" * 600))["error"]
    assert await house.ask(asker, {"command": "kill", "streamid": run}) == {"command": "kill", "success": True}
    await house.nothing_runs()
    assert (await house.run(asker, packages["sleeper"], "taken"))["success"] is True, "it is free again"


async def grant(client: Client, collection_id: str, user: Client, rights: int) -> None:
    document = (await client.query("agents", {"_id": collection_id}))[0]
    others = [entry for entry in document["_acl"] if entry["_id"] != user.user.id]  # type: ignore[union-attr]
    entry = {"_id": user.user.id, "name": "bob", "rights": rights}  # type: ignore[union-attr]
    await client.update_one("agents", {**document, "_acl": [*others, *([entry] if rights else [])]})


async def test_output_is_for_those_who_may_read_the_package(
    house: House, packages: dict[str, str], callers: list[Caller], bob: Client, script: Script
) -> None:
    """Who may use the agent may see what runs and end it; what a package prints is as secret as the package."""
    asker = callers[0]
    client = asker.client
    agent_id = house.agent.request("GET", "status")["slug"]
    agent_id = (await client.query("agents", {"slug": agent_id}))[0]["_id"]
    async with house.caller(bob) as guest:
        await grant(client, agent_id, bob, Right.READ | Right.INVOKE)
        await until_invited(house, guest)
        await guest.send(house.queue, {"command": "addcommandstreamid"}, correlation_id="add")
        await started(house, asker, packages, "secret", script)
        listed = await house.ask(guest, {"command": "listprocesses"})
        assert [(each["id"], each["streamqueues"]) for each in listed["processes"]] == [("secret", [])]
        refused = await house.ask(guest, {"command": "setstreamid", "id": "secret"})
        assert (refused["success"], "read" in refused["error"]) == (False, True)
        script.say("a word")
        await heard(asker, "secret", "a word")
        assert await house.ask(guest, {"command": "kill", "id": "secret"}) == {"command": "kill", "success": True}
        await answer(asker, "secret", "runpackage", completed=True)
        await holds(lambda: not streamed(guest.received, "secret"), guest, house)

        await grant(client, packages["talker"], bob, Right.READ)
        await started(house, asker, packages, "shared", script)
        await heard(guest, "shared", "up")
        assert (await house.run(guest, packages["talker"], "own"))["success"] is True
        await grant(client, packages["sleeper"], bob, Right.READ)
        shared = (await client.query("agents", {"_id": packages["sleeper"]}))[0]
        trusted = {"_id": "5f33c29d8fe78504bd259aaa", "name": "somebody", "rights": Right.READ | Right.INVOKE}
        await client.update_one("agents", {**shared, "_acl": [*shared["_acl"], trusted]})
        assert "invoke" in (await house.run(guest, packages["sleeper"], "apart"))["error"]
        foreign = {"command": "removecommandstreamid", "streamqueue": asker.queue}
        await house.ask(asker, {"command": "listprocesses"})
        assert "somebody else" in (await house.ask(guest, foreign))["error"]
        await grant(client, packages["sleeper"], bob, 0)
    await grant(client, agent_id, bob, 0)


async def until_invited(house: House, guest: Caller) -> None:
    """Wait until the agent has taken in that somebody may use it."""
    async with asyncio.timeout(30):
        while "right to invoke" in (await house.ask(guest, {"command": "kill", "id": "-"}))["error"]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)


async def test_output_goes_to_no_queue_that_the_sender_may_not_send_to(
    house: House, packages: dict[str, str], callers: list[Caller], bob: Client
) -> None:
    """Neither output nor subscriptions: the agent's rights are not the sender's."""
    asker, client = callers[0], callers[0].client
    own = await house.run(asker, packages["sleeper"], "loop", queuename=house.queue.upper())
    assert (own["success"], "queue" in own["error"]) == (False, True)
    heard_by_admin = Caller(client, "for the admin alone")
    queue = await client.register_queue(heard_by_admin.queue, heard_by_admin.hear)
    agent_id = (await client.query("agents", {"slug": house.agent.request("GET", "status")["slug"]}))[0]["_id"]
    await grant(client, agent_id, bob, Right.READ | Right.INVOKE)
    async with house.caller(bob) as guest:
        await until_invited(house, guest)
        about = {"id": packages["sleeper"], "streamqueue": queue.name, "queuename": queue.name}
        for command in ("runpackage", "testrunpackage", "preparepackage", "addcommandstreamid"):
            told = await house.ask(guest, {"command": command, **about})
            assert (told["success"], "denied" in told["error"].lower()) == (False, True), command
    await grant(client, agent_id, bob, 0)
    await queue.close()
    assert heard_by_admin.received == []
    assert (await house.ask(asker, {"command": "listprocesses"}))["count"] == 0


async def test_a_queue_that_is_gone_is_dropped_and_no_other(
    house: House, packages: dict[str, str], callers: list[Caller], client: Client, script: Script
) -> None:
    asker, watcher, _ = callers
    async with house.caller(client) as gone:
        await house.ask(gone, {"command": "listprocesses"})
        await house.ask(watcher, {"command": "listprocesses"})
        await started(house, asker, packages, "r", script)
        await heard(gone, "r", "up")
    script.say("one")
    await heard(watcher, "r", "one")
    script.say("two")
    await heard(watcher, "r", "two")

    async with asyncio.timeout(30):
        while True:
            (process,) = (await house.ask(asker, {"command": "listprocesses", "stream": False}))["processes"]
            if gone.queue not in process["streamqueues"]:
                break
            script.say("more")
    assert set(process["streamqueues"]) == {asker.queue, watcher.queue}


async def test_a_flood_delays_nobody_and_fills_no_memory(
    house: House, packages: dict[str, str], callers: list[Caller], client: Client, script: Script
) -> None:
    """12 MB to one who listens, one who has gone, and a queue that nobody takes from; others are served meanwhile."""
    asker, bystander, _ = callers
    pid = pid_in(house.home.agent_file)
    assert pid is not None
    await started(house, bystander, packages, "calm", script)
    idle = await client.register_queue("nobody takes from here", asker.hear)
    await idle.close()
    before = psutil.Process(pid).memory_info().rss
    await house.run(asker, packages["flood"], "flood")
    flooding = {"command": "setstreamid", "id": "flood", "streamqueue": "nobody takes from here"}
    await house.ask(bystander, flooding)
    most = 0
    for n in range(15):
        script.say(f"calm {n}")
        await heard(bystander, "calm", f"calm {n}\n")
        most = max(most, psutil.Process(pid).memory_info().rss)
    end = await answer(asker, "flood", "runpackage", completed=True)
    assert f"{119_999:08} x" in end["output"]
    assert most - before < 120 << 20
    assert_no_doubles(streamed(asker.received, "flood"))
    assert f"{119_999:08} x" in text(asker, "flood")


def assert_no_doubles(parts: list[dict[str, Any]]) -> None:
    """What comes is in order and nothing twice; a gap says so in its text."""
    for one, other in itertools.pairwise(parts):
        assert one["next"] <= other["offset"]


def test_output_is_cut_between_characters() -> None:
    data = ("a" + "€" * 1000 + "🎈" * 1000).encode()
    for most in (4, 5, 7, 100):
        cut = list(pieces(data, most))
        assert b"".join(cut) == data
        assert all(len(piece) <= most and piece.decode() for piece in cut)


def test_a_page_becomes_messages_that_tell_where_they_belong() -> None:
    chunks: list[dict[str, Any]] = [
        {"stream": "stdout", "text": "x" * 100_000},
        {"stream": "agent", "gap": 500, "text": "dropped"},
        {"stream": "stderr", "text": "end"},
    ]
    made = list(batches(Page(chunks, 100_503, complete=True), 0))
    assert (made[0].at, made[-1].next) == (0, 100_503)
    assert b"".join(batch.data for batch in made) == b"x" * 100_000 + b"droppedend"
    assert all(len(batch.data) <= BATCH_BYTES for batch in made)
    assert json.loads(json.dumps(made[-1].message()))["data"]["type"] == "Buffer"


async def test_two_agents_on_one_hub_do_not_disturb_one_another(
    house: House, packages: dict[str, str], callers: list[Caller], script: Script
) -> None:
    asker, watcher, other = callers
    with agent_of(house.hub) as (home, second):
        neighbour = House(house.hub, home, second, second.request("GET", "status")["queue"])
        assert neighbour.queue != house.queue
        await watcher.send(neighbour.queue, {"command": "addcommandstreamid"}, correlation_id="add")
        await started(house, asker, packages, "same", script)
        await neighbour.run(other, packages["sleeper"], "same")
        await heard(other, "same", "up")
        assert await neighbour.ask(other, {"command": "killall"}) == {"command": "killall", "success": True, "count": 1}
        await answer(watcher, "same", "completed")
        assert text(watcher, "same") == text(other, "same")
        script.say("still here")
        await heard(asker, "same", "still here")
        assert "still here" not in text(watcher, "same")
        listed = await house.ask(asker, {"command": "listprocesses", "stream": "false"})
        assert [process["id"] for process in listed["processes"]] == ["same"]


@contextlib.asynccontextmanager
async def small_agent(hub: Hub, folder: Path, *, ping_s: float) -> AsyncIterator[tuple[Link, Supervisor, Console]]:
    """What hears commands and follows runs, in this process, with little patience for those who do not listen."""
    home = Home(folder / "home")
    home.prepare()
    write_private(home.config_file, json.dumps({"apiurl": hub.url, "jwt": hub.ready["jwt"]}))
    async with State(home.state_file) as state, asyncio.TaskGroup() as tasks:
        link = Link(
            home,
            capabilities=lambda: {"languages": ["python"]},
            on_command=lambda event: commands_of.handle(event),  # noqa: PLW0108 - made after the link
            on_package=lambda *_: None,
            on_change=lambda: None,
            on_ready=lambda: None,
        )
        async with Supervisor(state=state, folder=home.runs, max_runs=2, keep_runs=10) as supervisor:
            console = Console(link=link, state=state, supervisor=supervisor, tasks=tasks, ping_s=ping_s)
            commands_of = Commands(
                link=link,
                launcher=cast("Launcher", None),  # nothing is launched here
                supervisor=supervisor,
                console=console,
                reinstall=cast("Any", None),
                limits=Limits(),
                tasks=tasks,
            )
            linking = tasks.create_task(link.run())
            await until(lambda: link.connected, "the link")
            yield link, supervisor, console
            await console.end()
            linking.cancel()


async def test_who_does_not_listen_any_more_is_found_by_a_ping_and_dropped(
    house: House, callers: list[Caller], tmp_path: Path
) -> None:
    client = callers[0].client
    deaf, attentive = Caller(client, "one who leaves"), Caller(client, "one who stays")
    left, stays = [await client.register_queue(each.queue, each.hear) for each in (deaf, attentive)]
    async with small_agent(house.hub, tmp_path, ping_s=0.5) as (link, _, console):
        neighbour = House(house.hub, house.home, house.agent, link.queue or "")
        for queue in (left.name, stays.name):
            await neighbour.ask(callers[0], {"command": "setstreamid", "id": "nothing", "streamqueue": queue})
            subscribing = {"command": "addcommandstreamid", "streamqueue": queue}
            await callers[0].send(neighbour.queue, subscribing, correlation_id=queue)
        await until(lambda: sorted(console.queues) == ["one who leaves", "one who stays"])
        await left.close()
        await until(lambda: console.queues == ["one who stays"], "nobody listens there")
        before = len(attentive.received)
        await until(lambda: len(attentive.received) > before + 2, "who listens is asked again and again, and stays")
        assert {event.data["command"] for event in attentive.received} == {"ping"}
        assert console.queues == ["one who stays"]
        answering = attentive.received[-1]
        assert answering.reply_to == link.queue
        await client.queue_message(
            answering.reply_to, {"command": "ping"}, correlation_id=answering.correlation_id, strip_token=True
        )
        await neighbour.ask(callers[0], {"command": "portclose"})
        assert console.queues == ["one who stays"], "an answer to a ping is a sign of life"
    await stays.close()


async def test_nobody_is_dropped_while_openflow_is_away(tmp_path: Path) -> None:
    """Neither the lost connection nor what cannot be sent meanwhile is the subscriber's fault."""
    with hub_on_a_new_home() as hub:
        async with hub.client() as client, small_agent(hub, tmp_path, ping_s=0.3) as (link, supervisor, console):
            await client.connected()
            heard_all = Caller(client, "patient")
            await client.register_queue(heard_all.queue, heard_all.hear)
            await client.queue_message(link.queue or "", {"command": "addcommandstreamid", "streamqueue": "patient"})
            await until(lambda: console.queues == ["patient"])
            hub.kill()
            await until(lambda: not link.connected, "the hub is gone")

            async def prepare(run: Run) -> Prepared:
                return Prepared(Command(("echo", "while it was away"), cwd=run.folder, env=inherited_environment()))

            run = await supervisor.submit(RunRow(id=new_run_id(), package="sh"), prepare, limits=Limits())
            await run.wait()
            assert console.queues == ["patient"]
            hub.start()
            end = await answer(heard_all, run.row.id, "runpackage")
            assert (end["success"], text(heard_all, run.row.id)) == (True, "while it was away\n")
