"""A run's output: a bounded log on disk that keeps the head and the newest tail, read from any offset.

The log is a folder of segments, ``<offset>.jsonl``, whose lines are ``{"at", "stream", "time", "text"}``. An offset
counts bytes of text (UTF-8), so that what was dropped is simply where the next line's ``at`` is further on than the
last one ended, whether the bound or a full disk was the reason. Offsets stay what they are when the agent restarts.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from jupyter_agent.waiting import to_its_end

LONGEST_CHUNK = 64 << 10
"""Characters of text in one line of the log."""

SEGMENT_BYTES = 256 << 10
"""On disk, of one file: the grain in which the tail moves on."""

PENDING_BYTES = 1 << 20
"""In memory, that wait to be written; whoever brings more waits, too."""

RECORD_BYTES = 300
"""Of memory, besides its text, that a change of stream costs."""

FLUSH_PAUSE_S = 0.02
"""From one write to the next: what a child prints is on disk, and shown, this soon."""

FULL_SPEED_PAUSE_S = 0.005
"""The pause after each full buffer: 100 MB/s are enough, and leave the event loop to others."""

MOST_PLACES = 64
"""Followers whose place in the log is remembered: the one who reads on need not look for it."""

PAGE_BYTES = 256 << 10
"""Of text in a page that a follower gets."""


@dataclass(frozen=True)
class Page:
    """Part of a log. ``next`` is the offset of what follows; ``complete``: nothing follows, and nothing will.

    A chunk is ``{"stream": "stdout" | "stderr" | "agent", "time": <unix seconds>, "text": str}``; where something was
    dropped there is one with ``"gap": <bytes>`` and a text that says so.
    """

    chunks: list[dict[str, Any]]
    next: int
    complete: bool


_Place = tuple[int, int]
"""A segment's start, and how many bytes of it come before."""


@dataclass
class _Segment:
    path: Path
    size: int = 0
    """Bytes on disk."""


@dataclass
class _Pending:
    at: int
    stream: str
    time: float
    texts: list[str] = field(default_factory=list)
    length: int = 0
    """Characters."""

    def line(self) -> bytes:
        record = {"at": self.at, "stream": self.stream, "time": self.time, "text": "".join(self.texts)}
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


class OutputLog:
    """The log in ``folder``; there need not be one yet.

    Made for a run that goes on (``live=True``, by the supervisor) it can be written; otherwise it is what an ended
    run has left. ``append`` is for the event loop; ``read``, ``tail`` and ``size`` are for any thread and block for
    a few file accesses.
    """

    def __init__(
        self,
        folder: Path,
        *,
        live: bool = False,
        head_bytes: int = 1 << 20,
        tail_bytes: int = 4 << 20,
        on_written: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.error: str | None = None
        """Why some of the output could not be kept; ``None`` while all could."""
        self._live = live
        self._on_written = on_written
        self._head_bytes = head_bytes
        self._tail_bytes = tail_bytes
        self._segment_bytes = max(1, min(SEGMENT_BYTES, tail_bytes // 8, head_bytes))
        self._segments: list[_Segment] = []
        self._heads = 0
        """So many of the segments are the head, which is never dropped; the last of them may still be open."""
        self._unsynced: set[Path] = set()
        self._pending: list[_Pending] = []
        self._pending_bytes = 0
        self._end = 0
        self._written = 0
        self._writing = asyncio.Lock()
        self._dirty = asyncio.Event()
        self._changed = asyncio.Event()
        self._places: dict[int, _Place] = {}
        self._listeners: list[Callable[[], None]] = []

    @property
    def size(self) -> int:
        """Bytes of text printed so far, as far as they can be read; also those dropped since."""
        return self._written if self._live else _end_of(self.folder)

    @property
    def changed(self) -> asyncio.Event:
        """Set when there is more to read, or nothing more will come; take it before reading, wait for it after."""
        return self._changed

    def on_write(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have ``listener`` called whenever something was written, or will be no more; the function returned ends that.

        The listener calls nothing but what is quick: every follower waits for it.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def append(self, stream: str, text: str, time: float) -> None:
        """Add output. It is written soon (``keep_writing``), its order kept."""
        for start in range(0, len(text), LONGEST_CHUNK):
            part, added = _measured(text[start : start + LONGEST_CHUNK])
            last = self._pending[-1] if self._pending else None
            if last is None or last.stream != stream or last.length + len(part) > LONGEST_CHUNK:
                last = _Pending(self._end, stream, time)
                self._pending.append(last)
                self._pending_bytes += RECORD_BYTES
            last.texts.append(part)
            last.length += len(part)
            self._end += added
            self._pending_bytes += added
        self._dirty.set()

    def take_up(self) -> None:
        """Go on with the log that an earlier agent left; before anything is appended. Blocks."""
        for start in _starts(self.folder):
            path = self.folder / f"{start:016}.jsonl"
            whole = sum(len(line) + 1 for line in _lines(self.folder, start))
            os.truncate(path, whole)  # half a line would spoil the next one
            self._segments.append(_Segment(path, whole))
        used = itertools.accumulate(segment.size for segment in self._segments)
        self._heads = sum(size <= self._head_bytes for size in used)
        self._end = self._written = _end_of(self.folder)

    async def keep_writing(self) -> None:
        """Write what is appended as it comes, at most every ``FLUSH_PAUSE_S``, until the log is closed."""
        while self._live:
            await self._dirty.wait()
            await self.flush()
            await asyncio.sleep(FLUSH_PAUSE_S)

    async def room(self) -> None:
        """Wait while too much waits to be written: whoever prints faster than the disk takes it has to wait."""
        if self._pending_bytes > PENDING_BYTES:
            await self.flush()
            await asyncio.sleep(FULL_SPEED_PAUSE_S)

    async def flush(self) -> None:
        """Write what was appended. A disk that refuses it costs the output, not the run: see ``error``."""
        async with self._writing:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            self._dirty.clear()
            if pending:
                end = self._end
                try:
                    await to_its_end(partial(self._write, pending))
                finally:
                    self._written = end
                    self._wake()

    async def close(self) -> None:
        """Write the rest and see it onto the disk; readers come to an end."""
        await self.flush()
        async with self._writing:
            if self._live:
                await asyncio.to_thread(self._sync)
                self._written = await asyncio.to_thread(_end_of, self.folder)
                self._live = False
                self._dirty.set()
                self._wake()

    def read(self, offset: int, limit: int = PAGE_BYTES) -> Page:
        """What was printed from ``offset`` on: about ``limit`` bytes, one chunk at least, if there is any."""
        live, end = self._live, self._written
        chunks: list[dict[str, Any]] = []
        position = offset
        place = self._places.pop(offset, None)
        for record, after in _records(self.folder, offset, place):
            at, text = record.pop("at"), record["text"]
            if live and at >= end:  # being written just now
                break
            length = len(text.encode())
            if at + length <= position:
                continue
            if at > position:
                chunks.append(_gap(at - position, record["time"]))
            elif at < position:
                record["text"] = text.encode()[position - at :].decode("utf-8", "ignore")
            chunks.append(record)
            position, place = at + length, after
            if position - offset >= limit:
                break
        if place is not None:
            self._remember(position, place)
        return Page(chunks, position, complete=not live and position >= _end_of(self.folder))

    def _remember(self, offset: int, place: _Place) -> None:
        self._places[offset] = place
        for oldest in list(self._places)[:-MOST_PLACES]:
            self._places.pop(oldest, None)

    def tail(self, most: int) -> str:
        """The newest text, at most so many bytes of it, of all streams as they came."""
        text = "".join(record["text"] for record, _ in _records(self.folder, max(0, self.size - most)))
        return text.encode()[-most:].decode("utf-8", "ignore") if most > 0 else ""

    async def follow(self, offset: int = 0) -> AsyncIterator[Page]:
        """Pages from ``offset`` on, as they come, until the log is complete."""
        while True:
            changed = self._changed
            page = await asyncio.to_thread(self.read, offset)
            offset = page.next
            if page.chunks:
                yield page
            if page.complete:
                return
            if not page.chunks:
                await changed.wait()

    def _wake(self) -> None:
        if self._on_written is not None:
            self._on_written()
        for listener in tuple(self._listeners):
            listener()
        self._changed.set()
        self._changed = asyncio.Event()

    def _write(self, pending: list[_Pending]) -> None:
        lines = [(record.at, record.line()) for record in pending]
        while lines:
            try:
                segment = self._segment(lines[0][0], len(lines[0][1]))
                count = _fitting(lines, self._segment_bytes - segment.size)
                self._append(segment, b"".join(line for _, line in lines[:count]))
            except OSError as error:
                self.error = f"Some output could not be kept ({error.strerror}): free some space on the disk."
                count = 1
            del lines[:count]

    def _append(self, segment: _Segment, data: bytes) -> None:
        if not self.folder.is_dir():  # the run has removed it
            self.folder.mkdir(mode=0o700, parents=True)
        descriptor = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, segment.size)  # half a line would spoil the next one
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
        segment.size += len(data)
        self._unsynced.add(segment.path)

    def _segment(self, at: int, room: int) -> _Segment:
        """The segment that takes the next line: the last one, or a new one, for which old ones may have to go."""
        if self._segments and self._segments[-1].size + room <= self._segment_bytes:
            return self._segments[-1]
        if not self._segments:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif self._heads == len(self._segments) and sum(s.size for s in self._segments) + room <= self._head_bytes:
            self._heads += 1
        self._heads = max(self._heads, 1)
        self._segments.append(_Segment(self.folder / f"{at:016}.jsonl"))
        while sum(s.size for s in self._segments[self._heads :]) > self._tail_bytes:
            dropped = self._segments.pop(self._heads)
            self._unsynced.discard(dropped.path)
            dropped.path.unlink(missing_ok=True)
        return self._segments[-1]

    def _sync(self) -> None:
        try:
            for path in (*self._unsynced, *([self.folder] if self._unsynced else [])):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            self.error = f"Some output may not be kept ({error.strerror})."
        self._unsynced.clear()


def _measured(text: str) -> tuple[str, int]:
    """The text and its bytes; half a surrogate pair, as odd file names have it, is replaced."""
    try:
        return text, len(text.encode())
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
        return data.decode(), len(data)


def _fitting(lines: list[tuple[int, bytes]], room: int) -> int:
    """How many of the lines fit, one at least."""
    for count, (_, line) in enumerate(lines):
        room -= len(line)
        if room < 0:
            return max(1, count)
    return len(lines)


def _gap(length: int, time: float) -> dict[str, Any]:
    return {"stream": "agent", "time": time, "gap": length, "text": f"… {length} bytes dropped …\n"}


def _starts(folder: Path) -> list[int]:
    try:
        return sorted(int(path.stem) for path in folder.iterdir() if path.suffix == ".jsonl" and path.stem.isdigit())
    except OSError:
        return []


def _lines(folder: Path, start: int, skipped: int = 0) -> list[bytes]:
    """The whole lines of a segment after so many bytes of it; none when it has gone meanwhile."""
    try:
        with (folder / f"{start:016}.jsonl").open("rb") as file:
            file.seek(skipped)
            return file.read().split(b"\n")[:-1]  # after the last newline: half a line
    except OSError:
        return []


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line's record; ``None`` for what a crash of the whole machine left of one."""
    try:
        record: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record


def _records(folder: Path, offset: int, place: _Place | None = None) -> Iterator[tuple[dict[str, Any], _Place]]:
    """The lines in which ``offset`` and what follows can be, each with the place after it.

    ``place`` is the one where the line of ``offset`` begins, if that is known.
    """
    starts = _starts(folder)
    first = max((index for index, start in enumerate(starts) if start <= offset), default=0)
    if place is not None:
        starts, first = [start for start in starts if start >= place[0]], 0
    for start in starts[first:]:
        position = place[1] if place is not None and place[0] == start else 0
        for line in _lines(folder, start, position):
            position += len(line) + 1
            if (record := _parsed(line)) is not None:
                yield record, (start, position)


def _end_of(folder: Path) -> int:
    """Where the last line ends."""
    for start in reversed(_starts(folder)):
        for line in reversed(_lines(folder, start)):
            if (record := _parsed(line)) is not None:
                return int(record["at"]) + len(record["text"].encode())
    return 0
