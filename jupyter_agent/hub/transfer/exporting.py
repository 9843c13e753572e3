"""Writing an export of a hub, also while it runs: as it was at one moment, with memory that does not grow with it.

The documents are written within one reading transaction; the contents of files, which never change but may be deleted,
are held by links first. What is written gets its name when it is complete and on the disk.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import orjson

from jupyter_agent import __version__
from jupyter_agent.errors import Conflict, Failed, InvalidInput, NotFound
from jupyter_agent.home import sync
from jupyter_agent.hub.data.documents import Date
from jupyter_agent.hub.data.moving import Snapshot, Stored, snapshot
from jupyter_agent.hub.files import COLLECTION as FILES_COLLECTION
from jupyter_agent.hub.transfer.disk import (
    PartWriter,
    Say,
    Tell,
    Told,
    hash_of,
    private,
    scratch,
    synced,
    unavailable,
)
from jupyter_agent.hub.transfer.layout import CONTENTS, FILES, MANIFEST, PASSWORDS, Manifest, Part

ARCHIVES = (".tar.gz", ".tgz")
OTHER_FORMS = frozenset({".tar", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".json", ".jsonl"})
"""Whoever ends a name so expects no folder."""

ATTEMPTS = 5
TELL = 1000


class _GoneError(Exception):
    """The content of a file was not there any more; its id."""


def is_archive(path: Path) -> bool:
    """Whether this is to be, or is, one file and no folder."""
    return path.name.endswith(ARCHIVES)


def export(hub: Path, target: Path, *, passwords: bool, say: Say) -> Manifest:
    """Export the hub in this folder to ``target``, an archive or a folder that is not there yet.

    Raises `NotFound` when there is no hub, `Conflict` when the target is there, `Failed` when a file of the hub is
    damaged, `Unavailable` when the disk is full; nothing is left then.
    """
    if not (hub / "hub.db").exists():
        raise NotFound(f"There is nothing to export: no hub has run in {hub.parent} so far.")
    if not is_archive(target) and target.suffix.lower() in OTHER_FORMS:
        raise InvalidInput(
            f"{target.name} is neither an archive in .tar.gz nor a folder's name: other forms there are none."
        )
    if target.exists() or target.is_symlink():
        raise Conflict(f"{target} is there already: name a file or folder that is not.")
    if not target.parent.is_dir():
        raise InvalidInput(f"There is no folder {target.parent} to write the export to.")
    with scratch(target.parent) as made, scratch(hub) as held:
        manifest = _taken(hub, made, held, passwords=passwords, say=say)
        _save(made / MANIFEST, manifest.text())
        finished = _packed(made, held, manifest, say) if is_archive(target) else _whole(made, held, say)
        _move(finished, target)
    return manifest


def _taken(hub: Path, made: Path, held: Path, *, passwords: bool, say: Say) -> Manifest:
    """Write all documents of one moment, and hold the contents that they tell of."""
    lost: set[str] = set()
    for _ in range(ATTEMPTS):
        with snapshot(hub / "hub.db") as taken:
            try:
                _hold(taken, hub / "files", held)
            except _GoneError as gone:  # deleted since; if it is wanted again, it is lost
                id_ = str(gone)
                if id_ in lost:
                    raise Failed(
                        f"The content of the file {id_} is missing: delete its document in fs.files, and export again."
                    ) from gone
                lost.add(id_)
                continue
            return _written(taken, made, held, passwords=passwords, say=say)
    raise Conflict("Files are being deleted all the time: try again when less is going on.")


def _hold(taken: Snapshot, files: Path, held: Path) -> None:
    for id_ in taken.ids(FILES_COLLECTION):
        if (held / id_).exists():
            continue
        try:
            try:
                os.link(files / id_, held / id_)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without links
                shutil.copyfile(files / id_, held / id_)
        except FileNotFoundError as error:
            raise _GoneError(id_) from error


def _written(taken: Snapshot, made: Path, held: Path, *, passwords: bool, say: Say) -> Manifest:
    parts = [
        _collection(taken, made, number, collection, say)
        for number, collection in enumerate(taken.collections(), start=1)
    ]
    if passwords:
        with PartWriter(made, PASSWORDS) as writer:
            for id_, hashed in taken.passwords():
                writer.add(orjson.dumps({"id": id_, "hash": hashed}))
            parts.append(writer.finish())
    contents, size = _contents(taken, made, held, say)
    return Manifest(str(Date.now()), __version__, (*parts, contents), contents.lines, size)


def _collection(taken: Snapshot, made: Path, number: int, collection: Stored, say: Say) -> Part:
    with PartWriter(made, f"collections/{number:04}.jsonl") as writer:
        for count, line in enumerate(taken.lines(collection.name)):
            writer.add(line)
            if count % TELL == 0:
                say(f"{collection.name}: {count} documents")
        return writer.finish(collection.name, collection.indexes)


def _contents(taken: Snapshot, made: Path, held: Path, say: Say) -> tuple[Part, int]:
    """Hash the contents, and compare with what their documents say."""
    total = 0
    with PartWriter(made, CONTENTS) as writer:
        for count, line in enumerate(taken.lines(FILES_COLLECTION), start=1):
            length, content = _content(orjson.loads(line), held, partial(say, f"files: reading {count}"))
            writer.add(content)
            total += length
        return writer.finish(), total


def _content(document: dict[str, Any], held: Path, tell: Tell) -> tuple[int, bytes]:
    with (held / document["_id"]).open("rb") as file:
        length, sha256 = hash_of(Told(file, tell))
    if (length, sha256) != (document["length"], document.get("sha256", sha256)):
        raise Failed(
            f"The content of the file {document['_id']} ({document['filename']}) is damaged: "
            "delete its document in fs.files, and export again."
        )
    return length, orjson.dumps({"id": document["_id"], "bytes": length, "sha256": sha256})


def _packed(made: Path, held: Path, manifest: Manifest, say: Say) -> Path:
    """All of it in one archive: the manifest first, the contents last."""
    packed = made / "packed"
    names = [MANIFEST, *(part.name for part in manifest.parts)]
    with private(packed) as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
            for name in names:
                _add(archive, made / name, name, partial(say, f"{name}: packing"))
            for count, id_ in enumerate(_ids(made), start=1):
                tell = partial(say, f"files: packing {count} of {manifest.files}")
                _add(archive, held / id_, FILES + id_, tell)
        file.flush()
        os.fsync(file.fileno())
    return packed


def _add(archive: tarfile.TarFile, path: Path, name: str, tell: Tell) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = path.stat().st_size, int(path.stat().st_mtime), 0o600
    with path.open("rb") as file:
        archive.addfile(entry, cast("IO[bytes]", Told(file, tell)))  # nothing but its `read` is called


def _whole(made: Path, held: Path, say: Say) -> Path:
    """All of it in a folder."""
    folder = made / FILES
    folder.mkdir(mode=0o700)
    for count, id_ in enumerate(_ids(made), start=1):
        with (held / id_).open("rb") as content, private(folder / id_) as copy:
            hash_of(Told(content, partial(say, f"files: copying {count}")), copy)
            copy.flush()
            os.fsync(copy.fileno())
    for each in (folder, made / "collections", made):
        if each.is_dir():
            sync(each)
    return made


def _ids(made: Path) -> Iterator[str]:
    with (made / CONTENTS).open("rb") as file:
        for line in file:
            yield str(orjson.loads(line)["id"])


def _save(path: Path, data: bytes) -> None:
    file = private(path)
    file.write(data)
    synced(file)


def _move(finished: Path, target: Path) -> None:
    try:
        finished.rename(target)
        sync(target.parent)
    except OSError as error:
        if target.exists():
            raise Conflict(f"{target} is there already: name a file or folder that is not.") from error
        raise unavailable(error, target.parent) from error
