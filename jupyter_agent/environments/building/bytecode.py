"""Run by an environment's own interpreter (3.7 or later): what it calls bytecode, or bytecode of some sources.

``bytecode.py`` alone prints ``{"tag", "magic", "stdlib", "site"}``; with job files, each done by a process of its own,
it writes each source's bytecode and then the file's ``.done`` with ``{name: sha256}`` of those that could be compiled.
A job's sources are ``[name, source, shown, target, mtime, size]``. By hand, as compileall writes beside the sources
alone, and each file by a temporary one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import os
import struct
import subprocess  # noqa: TID251 - an environment's own interpreter has nothing of ours; what it starts has its tag
import sys
import sysconfig
import warnings
from typing import Any

TOLD = 50
"""Files between two words of how far it is."""


def main() -> None:
    """Do what the arguments say."""
    jobs = sys.argv[1:]
    if not jobs:
        print(json.dumps(about()))  # noqa: T201 - it is a program
        return
    others = [subprocess.Popen([sys.executable, "-I", "-S", "-B", __file__, job]) for job in jobs[1:]]
    work(jobs[0])
    sys.exit(max([other.wait() for other in others], key=abs, default=0))


def about() -> dict[str, str]:
    """What decides where bytecode lies and who can read it; folders are relative to the prefix."""
    blank = {"base": "", "platbase": "", "installed_base": "", "installed_platbase": ""}
    return {
        "tag": str(sys.implementation.cache_tag),
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "stdlib": sysconfig.get_path("stdlib", vars=blank).replace("\\", "/").strip("/"),
        "site": sysconfig.get_path("purelib", vars=blank).replace("\\", "/").strip("/"),
    }


def work(job: str) -> None:
    """Compile what the job file names."""
    warnings.simplefilter("ignore")  # a package's own affair, said at its import again
    with open(job, encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be loaded for this line
        sources = json.load(file)
    sums = {}
    for count, (name, source, shown, target, mtime, size) in enumerate(sources, 1):
        found = compiled(source, shown, mtime, size)
        if found is not None:
            sums[name] = hashlib.sha256(found).hexdigest()
            with open(target, "wb") as file:  # noqa: PTH123 - as above
                file.write(found)
        if count % TOLD == 0:
            print(TOLD, flush=True)  # noqa: T201 - it is a program
    with open(job + ".done", "w", encoding="utf-8") as file:  # noqa: PTH123 - as above
        json.dump(sums, file)


def compiled(source: str, shown: str, mtime: int, size: int) -> bytes | None:
    """What a .pyc of the source is to hold (PEP 552, by time); ``None``: it is none that this Python understands."""
    try:
        with open(source, "rb") as file:  # noqa: PTH123 - as above
            code: Any = compile(file.read(), shown, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError, MemoryError):
        return None
    head = struct.pack("<III", 0, mtime & 0xFFFFFFFF, size & 0xFFFFFFFF)
    return importlib.util.MAGIC_NUMBER + head + marshal.dumps(code)


def is_rewritten(path: str) -> bool:
    """Whether a file is bytecode that Python has written anew for its source as it is, for this prefix alone.

    It does so where a package brings bytecode of a source that has the prefix in it, or whose time was not kept.
    """
    folder, _, name = path.rpartition("/__pycache__/")
    if not folder or not name.endswith(".pyc"):
        return False
    try:
        source = os.stat(folder + "/" + name.partition(".")[0] + ".py")  # noqa: PTH116 - as above
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            told = struct.unpack("<III", file.read(16)[4:])
            alone = os.fstat(file.fileno()).st_nlink == 1
    except (OSError, struct.error):
        return False
    return alone and told == (0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF)


if __name__ == "__main__":
    main()
