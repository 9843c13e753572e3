"""What a distribution has changed in its own interpreter, and an environment must not have.

Debian's ``site`` and ``sysconfig`` point to ``dist-packages`` and ``local/`` outside of virtual environments; its
ensurepip refuses to work there, has its wheels in the system or is not there at all.
"""

from __future__ import annotations

import re
from pathlib import Path

from jupyter_agent.environments.channel.archives import File

LEFT_OUT = ("EXTERNALLY-MANAGED", "sitecustomize.py", "_distutils_system_mod.py")
"""Files of a library's folder that speak of the system: its package manager, its hooks."""

CHANGED = (
    *("site.py", "sysconfig.py", "sysconfig/__init__.py"),
    *("distutils/command/install.py", "distutils/sysconfig.py"),
)

SITE = '''
def getsitepackages(prefixes=None):
    """The folders of this environment alone."""
    folders = []
    for prefix in PREFIXES if prefixes is None else prefixes:
        for library in dict.fromkeys((sys.platlibdir, "lib")):
            version = "python%d.%d" % sys.version_info[:2]
            folder = os.path.join(prefix, library, version, "site-packages")
            if prefix and folder not in folders:
                folders.append(folder)
    return folders


'''

SYSCONFIG = '''

def _get_preferred_schemes():
    """Where packages go in this environment."""
    return {"prefix": "posix_prefix", "home": "posix_home", "user": "posix_user"}
'''

DISTUTILS = """
INSTALL_SCHEMES["unix_local"] = INSTALL_SCHEMES["deb_system"] = INSTALL_SCHEMES["unix_prefix"]
"""

START = re.compile(r"^if not sys\.flags\.no_site:$", re.MULTILINE)
"""Where ``site`` begins to act."""

ENSUREPIP = '''"""Installs the pip that lies beside this file."""

import os
import runpy
import sys
import tempfile
import zipfile

_FOLDER = os.path.join(os.path.dirname(__file__), "_bundled")
_WHEEL = next(name for name in sorted(os.listdir(_FOLDER)) if name.startswith("pip-"))


def version():
    """The version of pip that is installed."""
    return _WHEEL.split("-")[1]


def bootstrap(*, root=None, upgrade=False, user=False, altinstall=False, default_pip=False, verbosity=0):
    """Install pip into the environment of the running interpreter."""
    options = ["--root", root] if root else []
    options += ["--upgrade"] * upgrade + ["--user"] * user + ["-" + "v" * verbosity] * bool(verbosity)
    wheel = os.path.join(_FOLDER, _WHEEL)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        del os.environ[name]
    os.environ["PIP_CONFIG_FILE"] = os.devnull
    sys.path.insert(0, wheel)
    sys.argv = ["pip", "install", "--no-cache-dir", "--no-index", "--no-deps", *options, wheel]
    try:
        runpy.run_module("pip", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code or 0
    return 0


def _main(arguments=None):
    import argparse

    parser = argparse.ArgumentParser(prog="python -m ensurepip")
    parser.add_argument("--version", action="version", version="pip " + version())
    parser.add_argument("-v", "--verbose", action="count", default=0, dest="verbosity")
    parser.add_argument("-U", "--upgrade", action="store_true")
    parser.add_argument("--user", action="store_true")
    parser.add_argument("--root")
    parser.add_argument("--altinstall", action="store_true")
    parser.add_argument("--default-pip", action="store_true")
    return bootstrap(**vars(parser.parse_args(arguments)))
'''

ENSUREPIP_MAIN = """import sys

import ensurepip

sys.exit(ensurepip._main())
"""


FROZEN = ((b"dist-packages\0", b"site-packages\0"), (b"local/lib\0", b"./././lib\0"))
"""``site`` is frozen into the program from Python 3.11 on: these are its words, and others just as long."""


def thawed(program: bytes) -> bytes:
    """The program whose own ``site`` looks for packages where an environment has them; as it is if it does so."""
    if FROZEN[0][0] not in program:
        return program
    for old, new in FROZEN:
        program = program.replace(old, new)
    return program


def undone(path: str, text: str) -> str:
    """A file of the library (``site.py``) without what a distribution put in; as it is when there is nothing."""
    if path == "site.py" and "dist-packages" in text and (start := START.search(text)):
        return text[: start.start()] + SITE.lstrip("\n") + text[start.start() :]
    if path in ("sysconfig.py", "sysconfig/__init__.py") and "posix_local" in text:
        return text + SYSCONFIG
    if path == "distutils/command/install.py" and "unix_local" in text:
        return text + DISTUTILS
    if path == "distutils/sysconfig.py":
        return text.replace('(prefix, "lib", "python3", "dist-packages")', '(libpython, "site-packages")')
    return text


def has_ensurepip(library: Path) -> bool:
    """Whether it brings its own pip along."""
    return any((library / "ensurepip" / "_bundled").glob("pip-*.whl"))


def ensurepip(folder: str, wheel: Path) -> list[File]:
    """One for an interpreter that has none, with pip's ``wheel``; ``folder`` is the library's below the prefix."""
    data = wheel.read_bytes()
    return [
        File.of(f"{folder}/ensurepip/__init__.py", ENSUREPIP.encode()),
        File.of(f"{folder}/ensurepip/__main__.py", ENSUREPIP_MAIN.encode()),
        File.of(f"{folder}/ensurepip/_bundled/{wheel.name}", data),
    ]
