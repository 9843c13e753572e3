"""Packages: their manifest, their archives, and their way to and from OpenFlow."""

from __future__ import annotations

from jupyter_agent.packages.archives import Bounds
from jupyter_agent.packages.entries import entry_point, guess_language, package_root, platform_name
from jupyter_agent.packages.exchange import Published, publish, remove
from jupyter_agent.packages.manifest import Manifest
from jupyter_agent.packages.packing import pack
from jupyter_agent.packages.preparations import Preparations
from jupyter_agent.packages.unpacking import unpack
from jupyter_agent.packages.versions import Versions, archive_of

__all__ = [
    "Bounds",
    "Manifest",
    "Preparations",
    "Published",
    "Versions",
    "archive_of",
    "entry_point",
    "guess_language",
    "pack",
    "package_root",
    "platform_name",
    "publish",
    "remove",
    "unpack",
]
