"""How values read to people."""

from __future__ import annotations

import pytest

from jupyter_agent.cli.text import column_widths, cut, duration, local_time, moment, plain, size, table, took


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0 s"),
        (0.44, "0.4 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_900, "99.9 kB"), (123_456, "123 kB"), (5e9, "5.0 GB")],
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text


def test_what_would_steer_a_terminal_is_shown_as_question_marks() -> None:
    assert plain("a\x1b[31mb\r\n\tc\x07") == "a?[31mb c?"
    assert plain(None) == ""
    assert plain("Åse 東京") == "Åse 東京"


def test_a_table_takes_the_room_it_needs_where_there_is_no_terminal() -> None:
    assert column_widths([["a", "bbb"], ["aaaa", "b" * 200]], None) == [4, 200]


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_table_fits_the_terminal(width: int) -> None:
    rows = [["x" * 5, "y" * 30, "z" * 90], ["x", "y", "z"]]
    lines = ["  ".join(row) for row in table(rows, width)]
    assert all(len(line) <= max(width, 3 * 6 + 4) for line in lines)
    assert lines[1].split() == ["x", "y", "z"]


def test_a_table_too_narrow_for_its_columns_is_wider_than_the_terminal() -> None:
    assert column_widths([["a" * 10] * 5], 8) == [6] * 5


def test_soft_columns_give_way_first() -> None:
    rows = [["a" * 20, "b" * 30, "c" * 40]]
    assert column_widths(rows, 80, soft=(2,)) == [20, 30, 26]
    assert column_widths(rows, 50, soft=(0, 2)) == [8, 30, 8]
    assert column_widths(rows, 40, soft=(2,)) == [15, 15, 6]


def test_what_is_cut_says_so() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"


def test_times() -> None:
    assert moment("2025-03-01T12:00:00.5+00:00") == moment("2025-03-01T12:00:00.5")
    assert local_time(None) == ""
    assert took({"started": None}) == ""
    assert took({"started": "2025-03-01T12:00:00+00:00", "ended": "2025-03-01T12:01:05+00:00"}) == "1 min 05 s"
