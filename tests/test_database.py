from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyter_agent.database import Database
from jupyter_agent.errors import NewerVersion, Unavailable
from tests.conftest import until


def first(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE thing (name TEXT PRIMARY KEY, size INTEGER)")


def second(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE thing ADD COLUMN colour TEXT")
    connection.execute("UPDATE thing SET colour = 'grey'")


def insert(name: str, size: int = 0) -> Callable[[sqlite3.Connection], str]:
    def job(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO thing (name, size) VALUES (?, ?)", (name, size))
        return name

    return job


def names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM thing")}


def modes(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_what_was_written_is_read_at_once_and_after_reopening(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first]) as database:
        assert await database.write(insert("a")) == "a"
        assert await database.read(names) == {"a"}
    async with Database(tmp_path / "x.db", [first]) as database:
        assert await database.read(names) == {"a"}


async def test_files_are_private_and_durable(tmp_path: Path) -> None:
    os.close(os.open(tmp_path / "x.db", os.O_CREAT, 0o644))
    async with Database(tmp_path / "x.db", [first]) as database:
        await database.write(insert("a"))
        assert modes(tmp_path) == {"x.db": 0o600, "x.db-wal": 0o600, "x.db-shm": 0o600}

        def settings(connection: sqlite3.Connection) -> tuple[str, int]:
            (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
            (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
            return journal, synchronous

        assert await database.write(settings) == ("wal", 2)
    assert modes(tmp_path) == {"x.db": 0o600}  # the log was moved into the file


async def test_an_older_file_is_migrated_with_its_rows(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first]) as database:
        await database.write(insert("a"))
    async with Database(tmp_path / "x.db", [first, second]) as database:
        rows = await database.read(lambda c: c.execute("SELECT name, colour FROM thing").fetchall())
        assert rows == [("a", "grey")]
        assert await database.read(lambda c: c.execute("PRAGMA user_version").fetchone()) == (2,)


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        second(connection)
        raise ValueError("half way")

    async with Database(tmp_path / "x.db", [first]) as database:
        await database.write(insert("a"))
    with pytest.raises(ValueError, match="half way"):
        async with Database(tmp_path / "x.db", [first, broken]):
            pass
    async with Database(tmp_path / "x.db", [first]) as database:
        columns = await database.read(lambda c: c.execute("SELECT * FROM thing").description)
        assert [column[0] for column in columns] == ["name", "size"]


async def test_a_file_of_a_newer_version_is_refused_untouched(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first, second]):
        pass
    connection = sqlite3.connect(tmp_path / "x.db")
    connection.execute("PRAGMA journal_mode = DELETE")  # opening it as ours would change this
    connection.close()
    before = (tmp_path / "x.db").read_bytes()
    with pytest.raises(NewerVersion, match=r"format 2, this one knows 1\): upgrade jupyter_agent"):
        async with Database(tmp_path / "x.db", [first]):
            pass
    assert (tmp_path / "x.db").read_bytes() == before


async def test_a_failing_job_undoes_itself_alone(tmp_path: Path) -> None:
    def failing(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise LookupError("no")

    async with Database(tmp_path / "x.db", [first]) as database:
        jobs = [insert("a"), failing, insert("b"), insert("a"), insert("c")]
        results = await asyncio.gather(*(database.write(job) for job in jobs), return_exceptions=True)
        assert [type(result) for result in results] == [str, LookupError, str, sqlite3.IntegrityError, str]
        assert await database.read(names) == {"a", "b", "c"}


async def test_concurrent_writes_share_commits_and_complete_in_their_order(tmp_path: Path) -> None:
    statements: list[str] = []
    done: list[int] = []
    followed: list[str] = []

    async def one(number: int) -> None:
        await database.write(insert(f"n{number}"), then=followed.append)
        done.append(number)

    async with Database(tmp_path / "x.db", [first]) as database:
        await database.write(lambda connection: connection.set_trace_callback(statements.append))
        statements.clear()
        await asyncio.gather(*(one(number) for number in range(300)))
        stored = await database.read(lambda c: c.execute("SELECT name FROM thing ORDER BY rowid").fetchall())
    commits = statements.count("COMMIT")
    assert 2 <= commits < 60, commits
    assert [f"n{number}" for number in done] == [name for (name,) in stored] == followed


async def test_a_cancelled_write_is_done_and_followed_up_all_the_same(tmp_path: Path) -> None:
    followed: list[str] = []
    async with Database(tmp_path / "x.db", [first]) as database:
        task = asyncio.create_task(database.write(insert("a"), then=followed.append))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await database.write(insert("b"), then=followed.append)
        assert await database.read(names) == {"a", "b"}
    assert task.cancelled()
    assert followed == ["a", "b"]


async def test_a_reader_sees_one_state_and_cannot_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first], readers=1) as database:
        await database.write(insert("a"))
        with pytest.raises(Unavailable, match="not writable"):
            await database.read(insert("b"))
        assert await database.read(names) == {"a"}


async def test_a_full_disk_is_said_and_harms_nothing(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first]) as database:
        await database.write(insert("a"))
        (pages,) = await database.read(lambda c: c.execute("PRAGMA page_count").fetchone())
        await database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone())
        with pytest.raises(Unavailable, match=r"The disk that holds .* is full: free some space"):
            await database.write(insert("big" * 10_000))
        await database.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        await database.write(insert("b"))
        assert await database.read(names) == {"a", "b"}
        assert await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)


LIMITED = """
import asyncio, resource, sys
from pathlib import Path
from jupyter_agent.database import Database
from jupyter_agent.errors import Unavailable

async def main():
    async with Database(Path(sys.argv[1]), [lambda c: c.execute("CREATE TABLE thing (name TEXT, size INTEGER)")]) as db:
        await db.write(lambda c: c.execute("INSERT INTO thing VALUES ('a', 1)").rowcount)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            await db.write(lambda c: c.execute("INSERT INTO thing VALUES (zeroblob(5000000), 1)").rowcount)
        except Unavailable as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await db.write(lambda c: c.execute("INSERT INTO thing VALUES ('b', 1)").rowcount)
        print(*await db.read(lambda c: c.execute("SELECT name FROM thing").fetchall()))
        print(*await db.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()))
asyncio.run(main())
"""


def test_a_write_that_the_system_refuses_is_said_and_harms_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "x.db")], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said, rows, integrity = done.stdout.splitlines()
    assert "Nothing was changed." in said
    assert rows == "('a',) ('b',)"
    assert integrity == "ok"


@pytest.mark.parametrize("content", [b"this is no database, but it is long enough to be taken for one" * 20])
async def test_a_file_that_is_no_database_is_refused_untouched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.db").write_bytes(content)
    with pytest.raises(Unavailable, match="is not a database"):
        async with Database(tmp_path / "x.db", [first]):
            pass
    assert (tmp_path / "x.db").read_bytes() == content


async def test_a_path_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"cannot be opened for writing"):
        async with Database(tmp_path / "no such folder" / "x.db", [first]):
            pass
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Unavailable, match=r"cannot be opened for writing"):
        async with Database(tmp_path / "folder.db", [first]):
            pass


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    async with Database(tmp_path / "x.db", [first]) as database:
        pass
    with pytest.raises(Unavailable, match="is closed"):
        await database.write(insert("a"))
    with pytest.raises(Unavailable, match="is closed"):
        await database.read(names)


WRITERS = """
import asyncio, os, sys
from pathlib import Path
from jupyter_agent.database import Database

def first(connection):
    connection.execute("CREATE TABLE thing (name TEXT PRIMARY KEY, size INTEGER)")

async def writer(database, number):
    count = 0
    while True:
        name = f"{sys.argv[2]}-{number}-{count}"
        await database.write(lambda c: c.execute("INSERT INTO thing VALUES (?, 0)", (name,)).rowcount)
        await database.write(lambda c: c.execute("UPDATE thing SET size = 1 WHERE name = ?", (name,)).rowcount)
        os.write(1, f"{name}\\n".encode())
        count += 1

async def main():
    async with Database(Path(sys.argv[1]), [first]) as database:
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(writer(database, number))
asyncio.run(main())
"""


def kill_after(enough: int, path: Path, turn: int) -> set[str]:
    """The names that the writers said are written, until they were killed amid further ones."""
    child = subprocess.Popen([sys.executable, "-c", WRITERS, str(path), str(turn)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(enough)]
    child.kill()
    said += [line for line in child.stdout if line.endswith(b"\n")]
    child.stdout.close()
    child.wait()
    return {line.decode().strip() for line in said}


async def test_kill_9_amid_concurrent_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    seed = time.time_ns()
    acknowledged: set[str] = set()
    for turn in range(5):
        enough = 1 + random.Random(seed + turn).randrange(400)  # noqa: S311 - a moment, no secret
        acknowledged |= kill_after(enough, tmp_path / "x.db", turn)
    assert "" not in acknowledged
    async with Database(tmp_path / "x.db", [first]) as database:
        rows = dict(await database.read(lambda c: c.execute("SELECT name, size FROM thing").fetchall()))
        assert await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    assert {name for name in acknowledged if rows.get(name) != 1} == set(), f"seed {seed}"


async def test_its_threads_end_also_when_closing_is_cancelled(tmp_path: Path) -> None:
    """Else the process that is interrupted in that moment never ends."""

    async def used(path: Path) -> None:
        async with Database(path, [first]) as database:
            await database.read(lambda connection: connection.execute("SELECT 1").fetchall())
            task = asyncio.current_task()
            assert task is not None
            task.cancel()  # which reaches the next thing that is awaited: the end

    for number in range(20):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(used(tmp_path / f"cancelled-{number}.db"))
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("cancelled-")])
