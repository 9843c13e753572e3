"""What the messages of other agents say, without any: joining output that is sent again, ends, odd forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_agent.agent.others import OtherAgent, RemoteRow, RemoteRun, find
from jupyter_agent.agent.others.directory import of_document, queue_of, registered
from jupyter_agent.agent.others.remote import left_by, output_of, sentence_of
from jupyter_agent.agent.others.seam import ANCHOR_BYTES, HELD_BYTES, Seam
from jupyter_agent.errors import AccessDenied, InvalidInput, NotFound, Unavailable

OURS = OtherAgent("1", "there", "There", queue="thereagent", may_invoke=True)
OLD = OtherAgent("2", "old", "Old", queue="old", may_invoke=True)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in pieces of these sizes, the rest as the last."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in [*pieces, data[at:]] if piece]


pieces = st.lists(st.integers(1, 12), max_size=8)


@settings(max_examples=200)
@given(st.binary(max_size=40), st.binary(max_size=40), st.booleans(), pieces, pieces)
def test_output_that_is_sent_again_from_its_beginning_comes_once(
    before: bytes,
    after: bytes,
    again: bool,  # noqa: FBT001 - one of the cases
    first: list[int],
    second: list[int],
) -> None:
    seam = Seam()
    got = b"".join(seam.take(piece) for piece in cut(before, first))
    assert got == before
    seam.begin_again()
    sent = before + after if again else after
    got += b"".join(seam.take(piece) for piece in cut(sent, second))
    got += seam.settle()
    if again:
        assert got == before + after
    else:  # an agent that sends nothing again: what looks like the beginning cannot be told from it, nothing else goes
        assert got == before + after or before.startswith(after) or after.startswith(before)


def test_the_agent_kept_only_the_newest_output() -> None:
    seam = Seam()
    before = b"".join(b"line %d\n" % number for number in range(5000))
    seam.take(before)
    seam.begin_again()
    kept = before[-3 * ANCHOR_BYTES :]
    assert seam.take(b"... dropped ...\n" + kept + b"new\n") == b"new\n"
    assert seam.take(b"more\n") == b"more\n"


def test_of_very_long_output_the_newest_is_compared() -> None:
    seam = Seam()
    line = b"%07d " * 128
    for number in range(2 * HELD_BYTES // 1024):
        seam.take(line % ((number,) * 128))
    held = bytes(seam._held)
    seam.begin_again()
    assert seam.take(held[-100_000:]) == b""
    assert seam.take(b"new") == b"new"


def test_what_does_not_fit_is_shown_rather_than_lost() -> None:
    seam = Seam()
    seam.take(b"abc")
    seam.begin_again()
    assert seam.take(b"xyz") == b""
    assert seam.settle() == b"xyz"
    assert not seam.is_waiting


def test_the_output_in_a_result_completes_what_was_heard() -> None:
    heard = Seam()
    heard.take(b"one\n")
    assert heard.last_words(b"one\ntwo\n") == b"two\n"
    assert heard.last_words(b"one\ntwo\n") == b""
    assert heard.last_words(b"something else") == b""
    assert Seam().last_words(b"all of it") == b"all of it"


@pytest.mark.parametrize(
    ("data", "bytes_"),
    [
        ({"type": "Buffer", "data": [104, 105]}, b"hi"),
        ([104, 105], b"hi"),
        ("hi", b"hi"),
        ({"data": "hi"}, b"hi"),
        (None, b""),
        ([300], b""),
        (["x"], b""),
        ({}, b""),
        (5, b""),
        ("\udc80", b"?"),
    ],
)
def test_forms_of_output(data: object, bytes_: bytes) -> None:
    assert output_of(data) == bytes_


@pytest.mark.parametrize(
    ("error", "sentence"),
    [('"id is required"', "id is required"), ({"message": "x"}, "x"), ("", None), (None, None), (5, None), ("a", "a")],
)
def test_forms_of_errors(error: object, sentence: str | None) -> None:
    assert sentence_of(error) == sentence


def test_results_are_what_differs_from_the_parameters() -> None:
    assert left_by({"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3}) == {"b": 2, "c": None}


@pytest.mark.parametrize(
    "clients",
    [
        [{"queues": [{"queuename": "ThereAgent"}]}],
        [{"queues": ["thereagent"]}, {"queues": None}, {}, 5, None],
        [{"queues": [{"name": "x"}, None, {"queuename": None}]}, {"queues": [{"queuename": "thereagent"}]}],
    ],
)
def test_the_queues_of_clients_in_all_their_forms(clients: object) -> None:
    assert queue_of("There", registered(clients)) == "thereagent"


@pytest.mark.parametrize("clients", ["", None, {}, [], [{}], 5])
def test_without_clients_nobody_listens(clients: object) -> None:
    assert queue_of("there", registered(clients)) == ""


def test_an_old_agent_is_told_by_its_queue() -> None:
    assert queue_of("old", frozenset({"old"})) == "old"
    assert queue_of("new", frozenset({"new", "newagent"})) == "newagent"
    with pytest.raises(InvalidInput, match="too old to take parameters"):
        OLD.must_know("take parameters")
    OURS.must_know("take parameters")


def test_documents_of_agents_may_hold_anything() -> None:
    odd = {
        "_id": "1",
        "slug": "s",
        "name": 5,
        "languages": "python",
        "lastseen": {"$date": 1},
        "chrome": "yes",
        "_acl": 3,
    }
    agent = of_document(odd, frozenset(), "2", frozenset())
    assert (agent.name, agent.languages, agent.lastseen, agent.chrome, agent.may_invoke) == (
        "s",
        (),
        None,
        False,
        False,
    )


def test_finding_an_agent() -> None:
    twins = [OURS, OLD, OtherAgent("3", "c", "Twin"), OtherAgent("4", "d", "Twin"), OtherAgent("5", "e", "there")]
    assert find(twins, "there") is OURS
    assert find(twins, "Old") is OLD
    assert find(twins, "4").slug == "d"
    with pytest.raises(InvalidInput, match=r"2 agents are named Twin: give the slug of one \(c, d\)"):
        find(twins, "Twin")
    with pytest.raises(NotFound, match="There is no agent"):
        find(twins, "x" * 10_000)
    with pytest.raises(Unavailable, match="not connected"):
        find(twins, "c").reachable()
    with pytest.raises(AccessDenied, match="right to invoke"):
        OtherAgent("1", "a", "a", queue="aagent").reachable()


@pytest.fixture
def run(tmp_path: Path) -> RemoteRun:
    return RemoteRun(RemoteRow("r", "there", parameters={"x": 1}), OURS, tmp_path, lambda _run: None)


def tell(run: RemoteRun, *messages: dict[str, Any]) -> RemoteRow:
    for message in messages:
        run.take(message)
    return run.row


SUCCESS = {"command": "runpackage", "success": True, "completed": True}


async def test_a_run_of_an_agent_that_tells_exit_codes(run: RemoteRun) -> None:
    assert tell(run, {"command": "stream", "data": "hi"}).state == "running"
    row = tell(
        run, {"command": "completed"}, {**SUCCESS, "exitcode": 0, "output": "hi there", "payload": {"x": 1, "y": 2}}
    )
    assert (row.state, row.exit_code, row.results, row.error) == ("succeeded", 0, {"y": 2}, None)
    await run.output.flush()
    assert run.output.tail(99) == "hi there"
    assert tell(run, {"command": "stream", "data": "late"}, {**SUCCESS, "success": False}).state == "succeeded"


async def test_a_bare_end_waits_for_a_better_one(run: RemoteRun) -> None:
    assert not tell(run, {**SUCCESS, "data": ""}).state.ended
    row = tell(run, {**SUCCESS, "success": False, "exitcode": 3, "output": ""})
    assert (row.state, row.exit_code, row.error) == ("failed", 3, "The run failed; its agent does not say why.")


@pytest.mark.parametrize(
    ("messages", "asked", "state"),
    [
        ([SUCCESS], False, "succeeded"),
        ([{**SUCCESS, "success": False}], False, "failed"),
        ([{"command": "completed"}], False, "lost"),
        ([{"command": "completed"}], True, "cancelled"),
        ([{**SUCCESS, "success": False}], True, "cancelled"),
        ([{**SUCCESS, "exitcode": True}], False, "succeeded"),
    ],
)
async def test_ends_that_are_not_told_well(
    run: RemoteRun,
    messages: list[dict[str, Any]],
    asked: bool,  # noqa: FBT001 - one of the cases
    state: str,
) -> None:
    run.asked_to_end = asked
    assert not tell(run, *messages).state.ended
    assert run.over_s is not None
    run.end_as_claimed()
    assert run.row.state == state
    assert (run.row.error is None) == (state in ("succeeded", "cancelled"))


async def test_an_old_agent_calls_every_end_a_success(tmp_path: Path) -> None:
    killed = RemoteRun(RemoteRow("r", "old"), OLD, tmp_path, lambda _run: None)
    killed.asked_to_end = True
    tell(killed, SUCCESS)
    killed.end_as_claimed()
    assert killed.row.state == "cancelled"


async def test_half_a_character_waits_for_its_other_half(run: RemoteRun) -> None:
    euro = "€".encode()
    tell(run, {"command": "stream", "data": list(euro[:1])}, {"command": "stream", "data": list(euro[1:])})
    tell(run, {"command": "stream", "data": [0xFF]}, {"command": "stream", "data": list(euro[:2])})
    tell(run, {**SUCCESS, "exitcode": 0})
    await run.output.flush()
    assert run.output.tail(99) == "€\ufffd\ufffd"


async def test_messages_that_mean_nothing(run: RemoteRun) -> None:
    row = tell(run, {}, {"command": 5}, {"command": "runpackage"}, {"command": "listprocesses", "success": True})
    assert row.state == "queued"


def piece(at: int, text: str) -> dict[str, Any]:
    return {"command": "stream", "data": text, "offset": at, "next": at + len(text)}


@pytest.mark.parametrize(
    "messages",
    [
        [piece(0, "abc"), piece(3, "def")],
        [piece(0, "abc"), piece(0, "abc"), piece(3, "def")],
        [piece(0, "abc"), piece(0, "abcd"), piece(2, "cdef")],
        [piece(0, "ab"), piece(4, "ef"), piece(0, "abcdef")],
        [piece(2, "cdef"), piece(0, "abcd"), piece(2, "cdef")],
    ],
)
async def test_output_that_says_where_it_stands(run: RemoteRun, messages: list[dict[str, Any]]) -> None:
    run.subscribed = "q"
    tell(run, *messages)
    await run.output.flush()
    assert run.output.tail(99) == "abcdef"


async def test_a_piece_that_never_comes_is_asked_for_once(run: RemoteRun) -> None:
    run.subscribed = "q"
    tell(run, piece(0, "ab"), piece(4, "ef"))
    assert run.subscribed == ""
    run.subscribed = "q"
    tell(run, piece(4, "ef"))
    assert run.subscribed == "q"
    await run.output.flush()
    assert run.output.tail(99) == "abef"


@pytest.mark.parametrize(("at", "end"), [("0", 3), (0, None), (-1, 2), (5, 2), (True, 3), (0.5, 3)])
async def test_positions_that_are_none(run: RemoteRun, at: object, end: object) -> None:
    tell(run, {"command": "stream", "data": "abc", "offset": at, "next": end})
    await run.output.flush()
    assert run.output.tail(99) == "abc"


async def test_results_that_are_too_large_are_left_out(run: RemoteRun) -> None:
    row = tell(run, {**SUCCESS, "exitcode": 0, "payload": {"y": "x" * (1 << 21)}})
    assert (row.state, row.results) == ("succeeded", {})
    await run.output.flush()
    assert "larger than 1 MiB" in run.output.tail(99)


@pytest.mark.parametrize("answer", [{"command": "timeout"}, {"success": False, "error": "no"}, {"success": True}, {}])
async def test_answers_that_come_late(run: RemoteRun, answer: dict[str, Any]) -> None:
    run.answered_late(answer)
    assert run.row.state == {"timeout": "lost"}.get(
        answer.get("command", ""), "failed" if not answer.get("success") else "queued"
    )
