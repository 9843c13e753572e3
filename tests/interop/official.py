"""The official npm client and agent, unchanged, in a Node of their own, and what their scripts have seen."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.openflow_peers import Hub

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
DEADLINE_S = 90


def install() -> None:
    """Fetch exactly what stands in the lock file, once."""
    if not (MODULES / "@openiap" / "nodeagent").exists():
        subprocess.run(["npm", "ci", "--silent"], cwd=HERE, check=True, timeout=300)


def run_script(name: str, hub: Hub, folder: Path, *, url: str = "", **given: Any) -> dict[str, Any]:
    """What a script has seen; its failure is this one's."""
    out = folder / f"{name}.json"
    about = {"folder": str(folder), "out": str(out), **hub.ready, "url": url or hub.url, **given}
    done = subprocess.run(
        ["node", str(HERE / f"{name}.cjs"), json.dumps(about)],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert out.exists(), done.stderr or done.stdout
    seen: dict[str, Any] = json.loads(out.read_text())
    assert "failure" not in seen, f"{seen['failure']}\n{done.stderr}"
    return seen


def public_methods() -> set[str]:
    """The methods of the official client that begin with a capital: its public interface."""
    program = "console.log(JSON.stringify(Object.getOwnPropertyNames(require('@openiap/nodeapi').openiap.prototype)))"
    done = subprocess.run(["node", "-e", program], cwd=HERE, capture_output=True, text=True, check=True, timeout=60)
    return {name for name in json.loads(done.stdout) if name[0].isupper()}
