"""Archives that nobody should have made: a whole folder or nothing, nothing outside, one sentence, bounded in all."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import resource
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages import Bounds, unpack
from tests.conftest import BUDGETS

SMALL = Bounds(files=40, total_bytes=256 << 10, ratio=50, ratio_from_bytes=64 << 10)
MEMORY = Path("/dev/shm")
SCRATCH = MEMORY if os.access(MEMORY, os.W_OK) else None
"""A thousand archives are brought to the disk; there it costs nothing."""

# Archives as anybody might make them


@dataclass(frozen=True)
class Thing:
    """One entry that is put into an archive."""

    name: str
    content: bytes = b""
    kind: str = "file"
    mode: int = 0o644
    target: str = ""
    pax: tuple[tuple[str, str], ...] = ()


PART = st.one_of(
    st.sampled_from(["a", "A", "b", "main.py", "package.json", "lib", "e\u0301", "\u00e9", "n" * 120, "x y", "-"]),
    st.sampled_from(["..", ".", "", "a\\b", "C:", "nul\0", "t\nab", "n" * 300, "\udce4"]),
    st.text(max_size=6),
)
HARMLESS = ("main.py", "lib", "src", "a.txt", "b", "data.csv", "x-y_z", "index.js", "deep", "README")
NAME = st.one_of(PART, st.tuples(PART, PART).map("/".join), st.tuples(PART, PART, PART, PART).map("/".join))
PLAIN = st.sampled_from([*HARMLESS, *(f"{a}/{b}" for a in HARMLESS for b in HARMLESS)])
CONTENT = st.one_of(st.binary(max_size=100), st.integers(0, 300_000).map(bytes))
PAX = st.tuples(
    st.sampled_from(["size", "path", "linkpath", "GNU.sparse.major", "GNU.sparse.map", "mtime", "uid", "comment"]),
    st.one_of(st.sampled_from(["0", "1", "-1", "9" * 30, "../x", "1e3", "nan"]), st.text(max_size=10)),
)
KINDS = ["file"] * 6 + ["folder", "symlink", "hardlink", "fifo", "device", "block", "odd", "sparse"]


@st.composite
def things(draw: st.DrawFn) -> tuple[list[Thing], bool]:
    """What is in an archive, and whether all of it is as it should be."""
    if draw(st.booleans()):
        names = draw(st.lists(PLAIN, min_size=1, max_size=6, unique_by=str.lower))
        good = [name for name in names if not any(name != other and other.startswith(f"{name}/") for other in names)]
        return [Thing(f"package/{name}", draw(st.binary(max_size=60))) for name in good], True
    made = [
        Thing(
            draw(st.one_of(NAME, PLAIN)),
            draw(CONTENT),
            draw(st.sampled_from(KINDS)),
            draw(st.sampled_from([0o644, 0o755, 0, 0o4755, 0o2711, 0o7777])),
            draw(st.one_of(NAME, st.sampled_from(["/etc/passwd", "../../x", "a", "."]))),
            draw(st.one_of(st.just(()), st.tuples(PAX))),
        )
        for _ in range(draw(st.integers(0, 5)))
    ]
    return made, False


TYPES = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "odd": b"Q",
    "sparse": tarfile.GNUTYPE_SPARSE,
}
MODES = {"folder": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "device": stat.S_IFCHR}


def tar_of(made: list[Thing], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape") as tar:
        for thing in made:
            info = tarfile.TarInfo(thing.name)
            info.type, info.mode, info.linkname = TYPES[thing.kind], thing.mode, thing.target
            info.pax_headers = dict(thing.pax) if form == tarfile.PAX_FORMAT else {}
            info.size = len(thing.content) if thing.kind == "file" else 0
            with contextlib.suppress(ValueError, UnicodeError):  # what this tool refuses to make
                tar.addfile(info, io.BytesIO(thing.content))
    return buffer.getvalue()


def zip_of(made: list[Thing], method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as zipped:
        for thing in made:
            with contextlib.suppress(ValueError, UnicodeError), warnings.catch_warnings(action="ignore"):
                info = zipfile.ZipInfo(thing.name)
                info.external_attr = (MODES.get(thing.kind, stat.S_IFREG) | thing.mode) << 16
                info.compress_type = method
                zipped.writestr(info, thing.target if thing.kind == "symlink" else thing.content)
    return buffer.getvalue()


def mangled(data: bytes, dice: random.Random) -> bytes:
    """The bytes, changed, cut, doubled or in another order somewhere."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        where, other = dice.randrange(len(found) + 1), dice.randrange(len(found) + 1)
        length = dice.choice([1, 2, 4, 8, 30, 46, 512])
        match dice.choice(["change", "change", "cut", "remove", "insert", "copy", "fill"]):
            case "change":
                found[where : where + 1] = bytes([dice.randrange(256)])
            case "cut":
                del found[max(where, len(found) // 2) :]
            case "remove":
                del found[where : where + length]
            case "insert":
                found[where:where] = dice.randbytes(length)
            case "copy":
                found[where : where + length] = found[other : other + length]
            case _:
                found[where : where + length] = dice.choice([b"\0", b"\xff", b"7"]) * length
    return bytes(found)


@st.composite
def archives(draw: st.DrawFn) -> tuple[bytes, dict[str, bytes] | None]:
    """An archive, and what it has to become where it was well made; mangled inside its gzip, outside, or not."""
    made, good = draw(things())
    dice = draw(st.randoms(use_true_random=True))
    is_tar, mangling = dice.random() < 0.5, dice.choice(["not", "inside", "outside", "not"])
    if is_tar:
        form = dice.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
        plain = tar_of(made, form)
        data = gzip.compress(mangled(plain, dice) if mangling == "inside" else plain, 1)
    else:
        data = zip_of(made, dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
        good = good and not data.count(b"BZh")
    if mangling == "outside" or (mangling == "inside" and not is_tar):
        data = mangled(data, dice)
    whole = {thing.name.removeprefix("package/"): thing.content for thing in made}
    return data, whole if good and mangling == "not" else None


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@settings(
    max_examples=BUDGETS["archive_examples"],
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(archives())
def test_any_archive_becomes_a_whole_folder_or_nothing(made: tuple[bytes, dict[str, bytes] | None]) -> None:
    data, whole = made
    folder = Path(tempfile.mkdtemp(prefix="ja-", dir=SCRATCH))
    try:
        (folder / "in").mkdir()
        archive, out = folder / "in/x.tgz", folder / "in/out"
        archive.write_bytes(data)
        try:
            with no_file_larger_than(SMALL.total_bytes):
                unpack(archive, out, bounds=SMALL)
        except InvalidInput as error:
            event("refused")
            check_sentence(str(error))
            assert whole is None
            assert not out.exists()
        else:
            event("unpacked")
            check_folder(out)
            if whole is not None:
                event("well made")
                assert {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()} == whole
        assert {path.name for path in (folder / "in").iterdir()} <= {"x.tgz", "out"}
        assert [path.name for path in folder.iterdir()] == ["in"]
        assert archive.read_bytes() == data
    finally:
        shutil.rmtree(folder)


def check_sentence(text: str) -> None:
    assert text.startswith(("x.tgz cannot be unpacked: it ", "x.tgz is not a readable archive: "))
    assert text.endswith(".")
    assert len(text.splitlines()) == 1
    assert len(text) < 5000


def check_folder(out: Path) -> None:
    """Nothing in it leads out, nothing of it is strange, and it is not more than there may be."""
    found = list(out.rglob("*"))
    assert 0 < len(found) <= SMALL.files
    total = 0
    for path in found:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            assert Path(os.path.normpath(path.parent / path.readlink())).is_relative_to(out)
            continue
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert stat.S_IMODE(mode) in ((0o644, 0o755) if stat.S_ISREG(mode) else (0o755, 0o700, 0o777))
        total += path.stat().st_size if stat.S_ISREG(mode) else 0
    assert total <= SMALL.total_bytes


# Archives that are made to harm, each in the one way

CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
END = struct.Struct("<4s4H2LH")


def with_directory(change: Callable[[list[int | bytes]], object], *contents: bytes) -> bytes:
    """A zip whose directory says something else than what is in it, of its first entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for number, content in enumerate(contents or (b"x" * 1000,)):
            zipped.writestr(f"{number}.py", content)
    data = bytearray(buffer.getvalue())
    at = data.index(b"PK\x01\x02")
    fields: list[int | bytes] = list(CENTRAL.unpack_from(data, at))
    change(fields)
    CENTRAL.pack_into(data, at, *fields)
    return bytes(data)


def field(number: int, value: int) -> Callable[[list[int | bytes]], None]:
    return lambda fields: fields.__setitem__(number, value)


FLAGS, METHOD, PACKED, SIZE, ATTRIBUTES, OFFSET = 5, 6, 10, 11, 17, 18


def overlapping() -> bytes:
    """Two entries of one name each, whose bytes are the same."""
    data = bytearray(with_directory(lambda _: None, b"x" * 100, b"x" * 100))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    fields = list(CENTRAL.unpack_from(data, second))
    fields[OFFSET] = 0
    CENTRAL.pack_into(data, second, *fields)
    return bytes(data)


def many_in_a_directory(count: int) -> bytes:
    entry = CENTRAL.pack(b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * count
    end = END.pack(b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), 0, 0)
    return directory.replace(b"PK\x01\x02", b"PK\x03\x04", 1)[:0] + b"PK\x03\x04" + b"\0" * 27 + directory + end


def tar_with(*headers: tuple[bytes, bytes, bytes], files: int = 0) -> bytes:
    """A tar of raw headers (type, name, content), then some empty files."""
    made = bytearray()
    for kind, name, content in headers:
        info = tarfile.TarInfo(name.decode())
        info.type, info.size = kind, len(content)
        made += info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    for number in range(files):
        made += tarfile.TarInfo(f"{number}.py").tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(bytes(made) + bytes(1024), 1)


def pax(**values: str) -> bytes:
    lines = b""
    for key, value in values.items():
        text = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(text) + len(str(len(text) + len(str(len(text)))))
        lines += str(length).encode() + text
    return lines


def deep(count: int) -> bytes:
    """Files in folders of their own, hundreds of levels down."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(count):
            tar.addfile(tarfile.TarInfo("/".join([str(number), *"d" * 450, "x.py"])))
    return gzip.compress(buffer.getvalue(), 1)


def linked(count: int) -> bytes:
    """A file of a megabyte, and links to it: each copy of the package would have it so many times."""
    made = [
        Thing("main.py", bytes(1 << 20)),
        *(Thing(f"{n}.py", kind="hardlink", target="main.py") for n in range(count)),
    ]
    return gzip.compress(tar_of(made, tarfile.PAX_FORMAT), 1)


def harmful() -> dict[str, tuple[bytes, str]]:
    """By what is wrong with each: the archive, and what is told of it."""
    return {
        "encrypted": (with_directory(field(FLAGS, 1)), "it holds '0.py', which is encrypted"),
        "packed with lzma": (with_directory(field(METHOD, 14)), "is packed in an unusual way: pack it with deflate"),
        "less than it says": (with_directory(field(SIZE, 5000)), "is not a readable archive"),
        "more than it says": (with_directory(field(SIZE, 10)), "is not a readable archive: Bad CRC-32"),
        "a directory that says zip64 and has none": (with_directory(field(SIZE, 0xFFFFFFFF)), "unpacks to more than"),
        "far more than it says": (with_directory(field(SIZE, 0xFFFFFFF0)), "unpacks to more than"),
        "overlapping": (overlapping(), "which lies over something else in it"),
        "over its directory": (with_directory(field(PACKED, 100_000)), "which lies over something else in it"),
        "outside itself": (with_directory(field(OFFSET, 0x7FFFFFFF)), "lies over something else in it"),
        "a device in a zip": (
            with_directory(field(ATTRIBUTES, (stat.S_IFBLK | 0o644) << 16), b"x", b"y"),
            "is no file, folder or link",
        ),
        "setuid in a zip": (
            with_directory(field(ATTRIBUTES, (stat.S_IFREG | 0o4755) << 16)),
            "is to run as another user",
        ),
        "very many in a zip": (many_in_a_directory(400_000), "holds more than 100000 files and folders"),
        "sparse": (tar_with((b"S", b"x.py", b"")), "holds a sparse file"),
        "sparse by header": (
            tar_with(
                (b"x", b"h", pax(GNU__sparse__major="1", GNU__sparse__minor="0")), (b"0", b"x", b"9999999\n" * 99)
            ),
            "holds a sparse file",
        ),
        "a header of two megabytes": (
            tar_with((b"x", b"h", b" " * (2 << 20)), files=1),
            "it has a header of 2097152 bytes",
        ),
        "a long header for all": (tar_with((b"g", b"h", pax(a="b" * 20_000)), files=1), "bytes for all its files"),
        "many headers for all": (
            tar_with((b"g", b"h", pax(**{f"k{n}": "" for n in range(900)})), files=2),
            "too many headers for all its files",
        ),
        "headers without end": (tar_with(*[(b"g", b"h", pax(a="b"))] * 2000, files=1), "is not a readable archive"),
        "deep folders": (deep(300), "holds more than 100000 files and folders"),
        "links to one large file": (linked(5000), "unpacks to more than"),
        "a size below nothing": (tar_with((b"x", b"h", pax(size="-5")), files=1), "less than no bytes"),
        "a size beyond all": (tar_with((b"x", b"h", pax(size="9" * 25)), files=1), "unpacks to more than"),
    }


JUDGE = """
import resource, sys
from pathlib import Path
from jupyter_agent.errors import InvalidInput
from jupyter_agent.packages import unpack

resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
folder = Path(sys.argv[1])
for archive in sorted(folder.glob("*.tgz"), key=lambda path: int(path.stem)):
    try:
        unpack(archive, folder / "out")
        print("unpacked")
    except InvalidInput as error:
        print(error)
"""


def test_archives_that_are_made_to_harm_are_refused_in_little_memory(tmp_path: Path) -> None:
    made = harmful()
    for number, (data, _) in enumerate(made.values()):
        (tmp_path / f"{number}.tgz").write_bytes(data)
    command = [sys.executable, "-c", JUDGE, str(tmp_path), str(700 << 20)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(zip(made, done.stdout.splitlines(), strict=True))
    assert {name: told[name] for name, (_, sentence) in made.items() if sentence not in told[name]} == {}
    assert {path.suffix for path in tmp_path.iterdir()} == {".tgz"}


@pytest.mark.parametrize("name", ["x.tgz", "x.tar.gz", "x.zip", "x"])
def test_what_counts_is_what_an_archive_holds_and_not_its_name(tmp_path: Path, name: str) -> None:
    for data in (gzip.compress(tar_of([Thing("a.py", b"1")], tarfile.PAX_FORMAT)), zip_of([Thing("a.py", b"1")], 8)):
        (tmp_path / name).write_bytes(data)
        unpack(tmp_path / name, tmp_path / "out")
        assert (tmp_path / "out/a.py").read_bytes() == b"1"
        shutil.rmtree(tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    from jupyter_agent.errors import AgentError

    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar_of([Thing("a.py", bytes(100_000))], tarfile.PAX_FORMAT)))
    with (
        no_file_larger_than(50_000),
        pytest.raises(AgentError, match=r"^x\.tgz could not be unpacked to .*: File too large\.$"),
    ):
        unpack(tmp_path / "x.tgz", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tgz"]
