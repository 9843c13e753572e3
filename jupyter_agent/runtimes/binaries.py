"""What a file is that the system is to start: which interpreter its first line names, what it was compiled for.

The kernel says "no such file" of a program whose interpreter is missing, and "format error" of one for another
processor; here it is told apart. Refuses to start anything.
"""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

from jupyter_agent.errors import Failed
from jupyter_agent.packages import platform_name

HEAD_BYTES = 4096
"""The kernel looks at 256 bytes for a first line; the table of an ELF file's parts begins at byte 64."""

PROCESSORS = {3: "ia32", 8: "mips", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x64", 183: "arm64", 243: "riscv64"}
"""Node's names by ``e_machine`` of an ELF file (elf(5)); what is not here is not judged."""

MACHO = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe")

COMPATIBLE = {"x64": ("ia32",), "arm64": ("arm",)}
"""What else a processor may run."""

PT_INTERP = 3

ELF = b"\x7fELF"
ELF_HEADER = 64
ELF_64_BIT = 2

OTHER_FORMATS = Path("/proc/sys/fs/binfmt_misc")
"""Where Linux lists the further kinds of programs that it starts through another one (QEMU, Wine, WSL)."""


def first_line(file: Path) -> tuple[str, ...]:
    """The interpreter that the file's first line names, with its one argument; empty when it names none.

    Raises ``Failed`` for a line that ends as Windows ends lines, for which no system has an interpreter.
    """
    line = _head(file).partition(b"\n")[0]
    if not line.startswith(b"#!"):
        return ()
    if line.endswith(b"\r"):
        raise Failed(
            f"{file.name} cannot be started: its lines end as on Windows (CR LF); save it with Unix line ends (LF)."
        )
    return tuple(line[2:].decode("utf-8", "replace").strip().split(maxsplit=1))


def check_program(file: Path) -> None:
    """Raise ``Failed`` with a sentence when the system could not start this file."""
    head = _head(file)
    system, processor = platform_name()
    if not head:
        raise Failed(f"{file.name} cannot be started: it is empty.")
    if head.startswith(b"#!"):
        check_interpreter(file, first_line(file))
        return
    if _starts_other_formats():  # then only the system knows
        return
    made_for = _made_for(head, system)
    if made_for and made_for not in [f"{system}-{name}" for name in (processor, *COMPATIBLE.get(processor, ()))]:
        raise Failed(
            f"{file.name} cannot be started: it is a program for {made_for}, and this is {system}-{processor}; "
            f"add one whose name contains {system}-{processor}."
        )
    if (loader := _loader(head)) and not os.path.exists(loader):  # noqa: PTH110 - also of what can be no path
        raise Failed(
            f"{file.name} cannot be started: it needs {loader}, which is not here; "
            "build it for this system's C library, or link it statically."
        )
    if system == "linux" and not head.startswith(ELF):
        raise Failed(
            f"{file.name} cannot be started: it is neither a program nor a script whose first line "
            "names its interpreter (#!/usr/bin/env ...)."
        )


def check_interpreter(file: Path, words: tuple[str, ...]) -> None:
    """Raise ``Failed`` when a first line's interpreter is not here, also one that ``env`` would look for."""
    interpreter = words[0] if words else ""
    if interpreter and not Path(interpreter).is_absolute():  # it counts from the run's folder, and is seen then
        return
    wanted = _through_env(words[1]) if len(words) > 1 and Path(interpreter).name == "env" else interpreter
    if not interpreter or not all(map(shutil.which, filter(None, (wanted, interpreter)))):
        raise Failed(
            f"{file.name} cannot be started: its first line names the interpreter {wanted or 'nothing'}, "
            "which is not here; install it, or name another one."
        )


def _starts_other_formats() -> bool:
    try:
        return any(path.name not in ("register", "status") for path in OTHER_FORMATS.iterdir())
    except OSError:
        return False


def _through_env(argument: str) -> str:
    """The program of ``env -S deno run``; empty when it cannot be told."""
    words = argument.removeprefix("-S").split()
    program = next((word for word in words if "=" not in word), "")
    return "" if program.startswith("-") else program


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(HEAD_BYTES)
    except OSError as error:
        raise Failed(f"{file.name} cannot be started: it cannot be read ({error.strerror}).") from error


def _made_for(head: bytes, system: str) -> str:
    """``linux-arm64``; empty for what is no compiled program, or none that is known here."""
    if head.startswith(ELF) and len(head) >= ELF_HEADER:
        machine = struct.unpack_from(_order(head) + "H", head, 18)[0]
        return f"linux-{PROCESSORS[machine]}" if machine in PROCESSORS else ""
    if head.startswith(MACHO) and system != "darwin":
        return "macOS"
    if head.startswith(b"MZ") and system != "win32":
        return "Windows"
    return ""


def _order(head: bytes) -> str:
    return "<" if head[5] == 1 else ">"


def _loader(head: bytes) -> str:
    """The dynamic loader that a 64-bit ELF file names; empty when it names none, or further back than the head."""
    if not head.startswith(ELF) or len(head) < ELF_HEADER or head[4] != ELF_64_BIT:
        return ""
    order = _order(head)
    table, size, count = (*struct.unpack_from(order + "Q", head, 32), *struct.unpack_from(order + "HH", head, 54))
    for start in range(table, table + size * count, size or 1):
        if start + 40 > len(head):
            return ""
        if struct.unpack_from(order + "I", head, start)[0] == PT_INTERP:
            offset = struct.unpack_from(order + "Q", head, start + 8)[0]
            length = struct.unpack_from(order + "Q", head, start + 32)[0]
            return head[offset : offset + length].rstrip(b"\0").decode("utf-8", "replace")
    return ""
