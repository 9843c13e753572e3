"""Reports of a child: in any pieces, broken, huge, hostile."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyter_agent.runs.events import (
    DEEPEST,
    LONGEST_LABEL,
    LONGEST_LINE,
    MOST_RESULTS,
    EventFile,
    EventLines,
    Reported,
)


def line(event: str, **facts: Any) -> bytes:
    return json.dumps({"event": event, **facts}).encode() + b"\n"


EVENTS: list[dict[str, Any]] = [
    {"event": "progress", "done": 1, "total": 3, "label": "cell 1 of 3"},
    {"event": "result", "name": "rows", "value": {"n": 5, "wörter": ["ä"]}},
    {"event": "error", "text": "KeyError: 'x' (cell 4)"},
    {"event": "kernel_died"},
    {"event": "artifact", "path": "output.ipynb"},
]


@given(st.lists(st.integers(1, 60)))
def test_lines_may_come_in_any_pieces(cuts: list[int]) -> None:
    data = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
    lines, found = EventLines(), []
    for cut in [*cuts, len(data)]:
        found += lines.feed(data[:cut])
        data = data[cut:]
    assert found == EVENTS


def test_what_is_none_of_a_runs_is_passed_over() -> None:
    data = b"".join(
        [
            line("output", cell=1, output={"data": {"image/png": "x" * 5_000_000}}),
            line("cell", index=3),
            b"not JSON\n",
            b'{"event": "progress", "done": \n',
            b"\n",
            b'[{"event": "progress"}]\n',
            b'{"event":"progress"} trailing\n',
            b"\xff\xfe\x00\n",
            b'{"event": "result", "name": "\xff", "value": 1}\n',
            b'{"event":"result","name":"deep","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
            b'{"event":"result","name":"nested","value":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}\n",
            line("result", name="huge", value="y" * LONGEST_LINE),
            line("progress", done=2, total=None, label=None),
        ]
    )
    for size in (1 << 30, 100_003):
        lines = EventLines()
        found = [event for at in range(0, len(data), size) for event in lines.feed(data[at : at + size])]
        assert found == [{"event": "progress", "done": 2, "total": None, "label": None}]


def test_numbers_that_json_has_not_become_none() -> None:
    (event,) = EventLines().feed(
        b'{"event":"result","name":"x","value":[NaN,-Infinity,1e999,1.5,12345678901234567890]}\n'
    )
    assert event["value"] == [None, None, None, 1.5, 12345678901234567890]


def test_what_is_reported_adds_up() -> None:
    reported = Reported()
    for event in [*EVENTS, {"event": "result", "name": "rows", "value": 2}, EVENTS[-1]]:
        assert reported.take(event)
    assert reported == Reported(
        progress={"done": 1, "total": 3, "label": "cell 1 of 3"},
        results={"rows": 2},
        error="KeyError: 'x' (cell 4)",
        kernel_died=True,
        artifacts=["output.ipynb"],
    )


@pytest.mark.parametrize(
    "event",
    [
        {"event": "progress"},
        {"event": "progress", "done": "1", "total": 2},
        {"event": "progress", "done": 1, "total": [2]},
        {"event": "result", "value": 1},
        {"event": "result", "name": 5, "value": 1},
        {"event": "error"},
        {"event": "error", "text": {}},
        {"event": "artifact", "path": None},
    ],
)
def test_a_report_of_the_wrong_form_changes_nothing(event: dict[str, Any]) -> None:
    reported = Reported()
    assert not reported.take(event)
    assert reported == Reported()


def test_results_are_bounded() -> None:
    reported = Reported()
    for number in range(MOST_RESULTS + 10):
        reported.take({"event": "result", "name": f"r{number}", "value": number})
    assert reported.take({"event": "result", "name": "r0", "value": "new"})
    assert len(reported.results) == MOST_RESULTS
    assert reported.results["r0"] == "new"
    assert len(reported.refused) == 10


def test_results_are_bounded_in_size_too() -> None:
    reported = Reported()
    for number in range(6):
        reported.take({"event": "result", "name": f"r{number}", "value": "x" * (1 << 20)})
    assert (list(reported.results), reported.refused) == (["r0", "r1", "r2"], {"r3", "r4", "r5"})
    reported.take({"event": "result", "name": "r1", "value": 1})  # makes room
    reported.take({"event": "result", "name": "r4", "value": "x" * (1 << 20)})
    assert (list(reported.results), reported.refused) == (["r0", "r1", "r2", "r4"], {"r3", "r5"})


def test_a_label_is_cut() -> None:
    reported = Reported()
    reported.take({"event": "progress", "done": 1, "total": 2, "label": "x" * 10_000})
    assert reported.progress == {"done": 1, "total": 2, "label": "x" * LONGEST_LABEL}


def test_a_file_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = EventFile(path)
    assert (events.has_more(), events.read()) == (False, False)
    with path.open("ab", buffering=0) as file:
        file.write(line("progress", done=1, total=2, label="")[:-9])
        assert events.has_more()
        assert not events.read()
        assert not events.has_more()
        file.write(line("progress", done=1, total=2, label="")[-9:])
        assert events.read()
        assert not events.read()
        file.write(line("output", output="x" * (40 << 20)) + line("result", name="a", value=1))
    events.read_all()
    assert events.reported.results == {"a": 1}
    assert not events.has_more()


def test_a_file_that_became_shorter_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("result", name="a", value=1) * 3)
    events = EventFile(path)
    events.read_all()
    path.write_bytes(line("result", name="b", value=2))
    events.read_all()
    assert events.reported.results == {"a": 1, "b": 2}


def test_only_a_plain_file_is_read(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_bytes(line("result", name="a", value=1))
    link, pipe, folder = tmp_path / "link", tmp_path / "pipe", tmp_path / "folder"
    link.symlink_to(target)
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (link, pipe, folder):
        events = EventFile(path)
        events.read_all()
        assert events.reported == Reported()
