"""The bounded log: nothing lost while there is room, the head and the newest tail when there is not."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyter_agent.runs import OutputLog, Page
from tests.conftest import small_file_system


def log(folder: Path, *, head: int = 1 << 20, tail: int = 4 << 20) -> OutputLog:
    return OutputLog(folder / "output", live=True, head_bytes=head, tail_bytes=tail)


def pages(output: OutputLog, limit: int = 256 << 10, offset: int = 0) -> Iterator[Page]:
    while True:
        page = output.read(offset, limit)
        yield page
        if not page.chunks:
            return
        offset = page.next


def chunks(output: OutputLog, **how: int) -> list[dict[str, Any]]:
    return [chunk for page in pages(output, **how) for chunk in page.chunks]


def text(output: OutputLog, stream: str | None = None, **how: int) -> str:
    return "".join(chunk["text"] for chunk in chunks(output, **how) if stream in (None, chunk["stream"]))


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "output").iterdir())


async def test_streams_and_times_are_kept_apart_and_in_order(tmp_path: Path) -> None:
    output = log(tmp_path)
    output.append("stdout", "a\n", 1.5)
    output.append("stdout", "b\n", 1.6)
    output.append("stderr", "c\n", 1.75)
    output.append("stdout", "d", 2.0)
    await output.flush()
    assert chunks(output) == [
        {"stream": "stdout", "time": 1.5, "text": "a\nb\n"},
        {"stream": "stderr", "time": 1.75, "text": "c\n"},
        {"stream": "stdout", "time": 2.0, "text": "d"},
    ]
    assert output.size == 7
    await output.close()


async def test_what_is_not_on_disk_is_not_shown(tmp_path: Path) -> None:
    output = log(tmp_path)
    output.append("stdout", "a", 1.0)
    assert (output.size, output.read(0)) == (0, Page([], 0, complete=False))
    await output.flush()
    assert output.read(0) == Page([{"stream": "stdout", "time": 1.0, "text": "a"}], 1, complete=False)
    await output.close()
    assert output.read(0) == Page([{"stream": "stdout", "time": 1.0, "text": "a"}], 1, complete=True)
    assert output.read(1) == Page([], 1, complete=True)


async def test_an_ended_log_is_read_as_it_was(tmp_path: Path) -> None:
    output = log(tmp_path)
    for number in range(50):
        output.append("stdout" if number % 2 else "stderr", f"line {number} äöü 🦉\n", number)
    await output.close()
    again = OutputLog(tmp_path / "output")
    assert (again.size, chunks(again)) == (output.size, chunks(output))
    assert again.size == len(text(again).encode())
    assert again.read(again.size).complete


async def test_a_log_that_never_was_is_empty_and_complete(tmp_path: Path) -> None:
    nothing = OutputLog(tmp_path / "output")
    assert (nothing.size, nothing.tail(100), nothing.read(0)) == (0, "", Page([], 0, complete=True))
    assert [page async for page in nothing.follow(0)] == []
    silent = log(tmp_path)
    await silent.close()
    assert not (tmp_path / "output").exists()


async def test_any_offset_and_any_limit_give_the_same_text(tmp_path: Path) -> None:
    output = log(tmp_path, head=4000, tail=1 << 20)
    chance = random.Random(7)  # noqa: S311 - a test's
    for number in range(300):
        output.append(chance.choice(["stdout", "stderr"]), f"{number} {'é' * chance.randrange(40)}\n", number)
        if chance.random() < 0.2:
            await output.flush()
    await output.close()
    whole = text(output)
    for limit in (1, 17, 1000, 1 << 20):
        assert text(output, limit=limit) == whole
    offset = output.read(0, 1000).next
    assert text(output, offset=offset) == whole.encode()[offset:].decode()
    for offset in range(0, output.size, 97):  # also in the middle of a chunk, of a character
        assert text(output, offset=offset) == whole.encode()[offset:].decode("utf-8", "ignore")
    assert output.read(output.size + 1000).chunks == []


async def test_the_head_and_the_newest_tail_are_kept(tmp_path: Path) -> None:
    output = log(tmp_path, head=2000, tail=8000)
    lines = [f"line {number:05}\n" for number in range(5000)]
    for number, line in enumerate(lines):
        output.append("stdout", line, number)
        if number % 5 == 0:
            await output.flush()
    await output.close()
    found = chunks(output)
    (gap,) = [chunk for chunk in found if "gap" in chunk]
    before = "".join(chunk["text"] for chunk in found[: found.index(gap)])
    after = "".join(chunk["text"] for chunk in found[found.index(gap) + 1 :])
    whole = "".join(lines)
    assert whole.startswith(before)
    assert whole.endswith(after)
    assert len(before) > 500
    assert len(after) > 3000
    assert gap["gap"] == len(whole) - len(before) - len(after)
    assert str(gap["gap"]) in gap["text"]
    assert gap["stream"] == "agent"
    assert output.size == len(whole)
    assert on_disk(tmp_path) < 2000 + 8000 + 2 * 1000
    assert OutputLog(tmp_path / "output").size == len(whole)


async def test_an_offset_in_what_was_dropped_leads_on(tmp_path: Path) -> None:
    output = log(tmp_path, head=1000, tail=1000)
    for number in range(1000):
        output.append("stdout", f"{number:04}\n", number)
        await output.flush()
    await output.close()
    first, second, *_ = output.read(2500).chunks
    assert first["gap"] == int(second["text"][:4]) * 5 - 2500


async def test_a_chunk_larger_than_everything_is_cut(tmp_path: Path) -> None:
    output = log(tmp_path, head=100, tail=800)
    output.append("stdout", "x" * 1_000_000 + "the end", 1.0)
    await output.close()
    assert text(output).endswith("the end")
    assert max(len(chunk["text"]) for chunk in chunks(output)) <= 64 << 10
    assert on_disk(tmp_path) < 300 << 10


async def test_every_character_is_kept_or_replaced(tmp_path: Path) -> None:
    output = log(tmp_path)
    strange = '\0\x1b[31m\x7f\u2028\ufeff"\\\r\n😀'
    output.append("stdout", strange, 1.0)
    output.append("agent", "half \udc80 a pair", 1.0)
    await output.close()
    assert text(output) == f"{strange}half ? a pair"


async def test_tail_gives_the_newest(tmp_path: Path) -> None:
    output = log(tmp_path, head=1000, tail=2000)
    for number in range(2000):
        output.append("stdout", f"{number:05}é\n", number)
        await output.flush()
    await output.close()
    assert output.tail(10) == "\n01999é\n"  # not half a character
    assert output.tail(0) == ""
    assert output.tail(10**9).endswith("01999é\n")
    short = log(tmp_path / "short")
    short.append("stdout", "abc", 1.0)
    await short.close()
    assert (short.tail(2), short.tail(100)) == ("bc", "abc")


async def collect(output: OutputLog, offset: int = 0) -> str:
    return "".join([chunk["text"] async for page in output.follow(offset) for chunk in page.chunks])


async def test_many_followers_see_everything_and_come_to_an_end(tmp_path: Path) -> None:
    output = log(tmp_path)
    writing = asyncio.create_task(output.keep_writing())
    output.append("stdout", "before\n", 1.0)
    followers = [asyncio.create_task(collect(output)) for _ in range(20)]
    from_the_middle = asyncio.create_task(collect(output, 7))
    for number in range(200):
        output.append("stdout", f"{number}\n", number)
        await asyncio.sleep(0.001)
    await output.close()
    late = await collect(output)
    assert late == "before\n" + "".join(f"{number}\n" for number in range(200))
    assert set(await asyncio.gather(*followers)) == {late}
    assert await from_the_middle == late[7:]
    await writing  # ends by itself


async def test_writing_is_told(tmp_path: Path) -> None:
    told = threading.Event()
    output = OutputLog(tmp_path / "output", live=True, on_written=told.set)
    output.append("stdout", "a", 1.0)
    assert not told.is_set()
    await output.flush()
    assert told.is_set()
    await output.close()


async def test_a_flush_that_is_cancelled_loses_and_doubles_nothing(tmp_path: Path) -> None:
    output = log(tmp_path)
    expected = ""
    for number in range(200):
        expected += f"{number} "
        output.append("stdout", f"{number} ", number)
        task = asyncio.create_task(output.flush())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    await output.close()
    assert text(output) == expected


async def test_reading_while_old_segments_go(tmp_path: Path) -> None:
    output = log(tmp_path, head=2000, tail=4000)
    done = threading.Event()
    faults: list[str] = []

    def read_all_the_time() -> None:
        while not done.is_set():
            position = 0
            for page in pages(output, limit=500):
                if page.next < position:
                    faults.append("backwards")
                position = page.next

    reader = threading.Thread(target=read_all_the_time)
    reader.start()
    try:
        for number in range(1500):
            output.append("stdout", f"line {number:05}\n", number)
            await output.flush()
    finally:
        done.set()
        await asyncio.to_thread(reader.join)
    await output.close()
    assert faults == []


async def test_half_a_line_at_the_end_is_passed_over(tmp_path: Path) -> None:
    output = log(tmp_path)
    output.append("stdout", "whole\n", 1.0)
    await output.close()
    (segment,) = (tmp_path / "output").iterdir()
    with segment.open("ab") as file:
        file.write(b'\0\0\0\n{"at": 6, "stream": "std')
    again = OutputLog(tmp_path / "output")
    assert (text(again), again.size, again.read(6).complete) == ("whole\n", 6, True)


async def test_the_log_is_private(tmp_path: Path) -> None:
    output = log(tmp_path)
    output.append("stdout", "secret", 1.0)
    await output.close()
    (segment,) = (tmp_path / "output").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "output", segment)] == [0o700, 0o600]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    with small_file_system(tmp_path / "small", "size=256k") as folder:
        yield folder


async def test_a_full_disk_costs_output_and_nothing_else(small_disk: Path) -> None:
    output = log(small_disk)
    filler = small_disk / "filler"
    output.append("stdout", "first\n", 1.0)
    await output.flush()
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass
    for number in range(300):
        output.append("stdout", f"lost {number} {'y' * 1000}\n", 2.0)
        await output.flush()
    assert output.error is not None
    assert "No space left" in output.error
    filler.unlink()
    output.append("stdout", "last\n", 3.0)
    await output.close()
    found = chunks(output)
    assert found[0]["text"].startswith("first\n")
    assert any("gap" in chunk for chunk in found)
    assert found[-1]["text"] == "last\n"


async def test_a_log_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("in the way")
    output = log(tmp_path)
    output.append("stdout", "a", 1.0)
    await output.close()
    assert output.error is not None
    assert (tmp_path / "output").read_text() == "in the way"


async def test_who_reads_on_finds_his_place_whatever_was_dropped_meanwhile(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "log", live=True, head_bytes=2000, tail_bytes=6000)
    whole, offset, read = "", 0, 0
    for number in range(400):
        text = f"{number} {'é' * (number % 40)}\n"
        log.append("stdout", text, 0.0)
        whole += text
        await log.flush()
        if number % 7 == 0 or number > 390:
            page = log.read(offset, 1 << 20)
            assert page == OutputLog.read(fresh(log), offset, 1 << 20)
            gaps = sum(chunk.get("gap", 0) for chunk in page.chunks)
            texts = "".join(chunk["text"] for chunk in page.chunks if "gap" not in chunk)
            assert page.next - offset == gaps + len(texts.encode())
            assert whole.encode()[: page.next].endswith(texts.encode()[-200:])
            offset, read = page.next, read + 1
    assert read > 50
    await log.close()
    assert log.read(offset).complete


def fresh(log: OutputLog) -> OutputLog:
    """One that knows no places, of the same live log."""
    made = OutputLog(log.folder, live=True)
    made._written = log.size
    return made
