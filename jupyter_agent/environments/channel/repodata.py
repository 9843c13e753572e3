"""A channel's index: ``repodata.json`` of each of its folders, the same bytes for the same archives.

What rattler's own indexer would read out of every archive again is known here already; a test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jupyter_agent.environments.channel.archives import Archive


def write_index(folder: Path, archives: Iterable[Archive], *, subdirs: Iterable[str]) -> None:
    """Write the index of the channel in ``folder``, also for the ``subdirs`` that hold nothing."""
    records: dict[str, dict[str, dict[str, Any]]] = {subdir: {} for subdir in subdirs}
    for archive in archives:
        records.setdefault(archive.subdir, {})[archive.file.name] = archive.record
    for subdir, packages in records.items():
        (folder / subdir).mkdir(parents=True, exist_ok=True)
        index = {
            "info": {"subdir": subdir},
            "packages": {},
            "packages.conda": packages,
            "removed": [],
            "repodata_version": 1,
        }
        (folder / subdir / "repodata.json").write_text(
            json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False), encoding="utf-8"
        )
