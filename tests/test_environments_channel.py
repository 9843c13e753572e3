"""The channel made from PyPI: real wheels, real archives, real environments installed from it."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_channel_holds_what_was_asked_for_and_what_it_needs(channel: Path) -> None:
    names = {
        record["name"]
        for subdir in ("noarch", "linux-64")
        for record in json.loads((channel / subdir / "repodata.json").read_text())["packages.conda"].values()
    }
    assert {"python", "ipykernel", "numpy", "pandas", "papermill", "pip", "traitlets"} <= names
