"""Every way in which a run can end, and what it is called then."""

from __future__ import annotations

import pytest

from jupyter_agent.errors import Failed, NotFound
from jupyter_agent.processes import Exit
from jupyter_agent.runs.verdict import Cause, Ending, Stop, Verdict, last_words, not_started, one_line, verdict
from jupyter_agent.state import RunState

OK, BAD, KILLED = Exit(0), Exit(3), Exit(None, "SIGKILL")


def stop(cause: Cause) -> Stop:
    return Stop(cause, f"Because of {cause.name}.")


@pytest.mark.parametrize(
    ("ending", "state", "error"),
    [
        (Ending(OK), "succeeded", None),
        (Ending(OK, told="an error that was mended"), "succeeded", None),
        (Ending(OK, last_line="a warning"), "succeeded", None),
        (Ending(BAD), "failed", "It ended with exit code 3."),
        (Ending(BAD, last_line="KeyError: 'x'"), "failed", "KeyError: 'x'"),
        (Ending(BAD, last_line="something", told="KeyError: 'x' (cell 4)"), "failed", "KeyError: 'x' (cell 4)"),
        (Ending(BAD, last_line="  \x1b[31m \x1b[0m"), "failed", "It ended with exit code 3."),
        (Ending(Exit(137)), "failed", "It ended with exit code 137."),
        (Ending(Exit(None)), "failed", "It ended with an unknown end."),
        (Ending(KILLED), "killed", "killed (SIGKILL) by something else than the agent"),
        (Ending(KILLED, told="x", last_line="y"), "killed", "memory may have run out"),
        (Ending(KILLED, kernel_died=True), "killed", "SIGKILL"),
        (Ending(Exit(None, "SIGSEGV")), "killed", "crashed (SIGSEGV)"),
        (Ending(Exit(None, "SIGTERM")), "killed", "ended by the signal SIGTERM, which the agent had not sent"),
        (Ending(KILLED, out_of_memory="Over the memory limit."), "killed", "Over the memory limit."),
        (Ending(BAD, out_of_memory="Over the memory limit."), "killed", "Over the memory limit."),
        (Ending(Exit(2), kernel_died=True), "kernel_died", "kernel died"),
        (Ending(Exit(2), kernel_died=True, told="The kernel died in cell 3."), "kernel_died", "died in cell 3"),
        (Ending(OK, kernel_died=True), "kernel_died", "kernel died"),
    ],
)
def test_what_ended_by_itself(ending: Ending, state: str, error: str | None) -> None:
    found = verdict(ending)
    assert found.state == state
    assert (error is None and found.error is None) or (error or "") in (found.error or "")


@pytest.mark.parametrize("exit_", [OK, BAD, KILLED, Exit(None, "SIGTERM")])
@pytest.mark.parametrize(
    ("cause", "state"),
    [
        (Cause.CANCELLED, "cancelled"),
        (Cause.WALL_TIME, "timed_out"),
        (Cause.LIMIT, "killed"),
        (Cause.AGENT_ENDS, "lost"),
    ],
)
def test_what_we_ended_is_called_so_however_it_went(exit_: Exit, cause: Cause, state: str) -> None:
    for ending in (Ending(exit_, stop=stop(cause)), Ending(exit_, stop=stop(cause), kernel_died=True, told="x")):
        assert verdict(ending) == Verdict(RunState(state), f"Because of {cause.name}.")
    assert not_started(stop(cause), None) == Verdict(RunState(state), f"Because of {cause.name}.")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Failed("The environment could not be built."), "The environment could not be built."),
        (ExceptionGroup("x", [ExceptionGroup("y", [NotFound("No entry.")])]), "No entry."),
        (OSError(28, "No space left on device", "/x/y"), "No space left on device (/x/y)"),
        (KeyError("x"), "KeyError"),
        (Failed(""), "Failed"),
        (Failed("two\nlines"), "two lines"),
        (None, "not prepared"),
    ],
)
def test_an_error_while_preparing_is_never_success(error: Exception | None, words: str) -> None:
    found = not_started(None, error)
    assert found.state is RunState.FAILED
    assert words in (found.error or "")


def test_an_error_is_one_plain_line() -> None:
    assert one_line("\x1b]0;title\x07\x1b[1;31mTypeError\x1b[0m: a\n  b\x00\r\n") == "TypeError: a b"
    assert len(one_line("x" * 100_000)) == 2000


NODE = """/x/main.js:3
throw new Error('no')
^

Error: {}
    at Object.<anonymous> (/x/main.js:3:7)
    at node:internal/main/run_main_module:28:49{}

Node.js v20.20.2
"""
JAVA = """Exception in thread "main" java.lang.RuntimeException: wrapped
\tat Main.main(Main.java:5)
Caused by: java.lang.IllegalStateException: the reason
\tat Main.inner(Main.java:9)
\t... 1 more
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("\n  \n\x1b[0m\n", ""),
        ("one\ntwo\n\n", "two"),
        ("Traceback (most recent call last):\n  File 'x'\nKeyError: 'x'\n", "KeyError: 'x'"),
        (NODE.format("no", ""), "Error: no"),
        (NODE.format("no\nnor this", ""), "nor this"),
        (NODE.format("ENOENT: gone", " {\n  errno: -2,\n  code: 'ENOENT'\n}"), "Error: ENOENT: gone"),
        (JAVA, "Caused by: java.lang.IllegalStateException: the reason"),
        (
            "Unhandled exception. System.Exception: no\n   at Program.Main()\n",
            "Unhandled exception. System.Exception: no",
        ),
        ("thread 'main' panicked at src/main.rs:2:5:\nno\nnote: run with `RUST_BACKTRACE=1` environment\n", "no"),
        ("  at its beginning a stack was cut off\n  at main\n", ""),
        ("Error: earlier\n    at once\nbut then it said more\n", "but then it said more"),
        ("and\n  warning: this\n", "  warning: this"),
    ],
)
def test_the_last_words_are_what_says_why(text: str, words: str) -> None:
    assert last_words(text) == words
