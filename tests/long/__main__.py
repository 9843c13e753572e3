"""``python -m tests.long NAME --budget N``: a long suite with more rounds than the daily run; its result is kept.

NAME is a key of ``budgets.toml``; the tests marked with it are run, in portions, so that a run that was broken off
goes on where it stopped. Each portion gets a seed of its own; seed, count and result go to ``results.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

TESTS = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results.md"
BUDGETS: dict[str, int] = tomllib.loads((TESTS / "budgets.toml").read_text())
SUITES = {
    "hub_kills": "test_hub_durability.py",
    "workitem_kills": "test_hub_workitem_kills.py",
    "mangled_frames": "test_hub_endurance.py",
    "hub_crowds": "test_hub_endurance.py::test_a_thousand_clients_at_once_all_work_and_leave_nothing_behind",
    "mixed_requests": "test_hub_endurance.py::test_long_service_takes_no_more_memory",
    "agent_kills": "test_agent_kills.py",
    "run_storm": "test_runs_storm.py",
    "preparation_kills": "test_preparations.py::test_one_that_is_killed_while_it_makes_leaves_nothing_that_counts",
    "protocol_examples": "test_openflow_protocol.py",
    "client_examples": "test_openflow_chaos.py::test_whatever_a_server_does_the_client_lives_through_it",
    "archive_examples": "test_packages_archives.py",
    "definition_examples": "test_environments_any_spec.py",
    "hub_restarts": "test_agent_endurance.py",
    "agent_messages": "test_agent_messages.py",
    "queue_kills": "test_hub_queues.py::test_kill_9_amid_messages_delivers_each_once",
    "watch_paths": "test_hub_watches.py::test_a_compiled_path_means_what_the_path_means",
    "transfer_examples": "test_hub_transfer.py::test_any_document_comes_back",
    "differential_examples": "differential",
    "planner_filters": "test_hub_sql.py",
    "environment_kills": "test_environments_kills.py",
    "channel_kills": "test_environments_channel_standing.py::test_kill_9_at_any_moment_leaves_a_whole_channel_or_none",
    "restore_kills": "test_backup.py::TestBrokenOff::test_kill_9_at_any_moment_leaves_one_home_or_the_other",
}
PORTIONS = 4


def done_so_far(name: str, target: int) -> int:
    """Rounds of an unfinished run towards this target, read from the table."""
    if not RESULTS.exists():
        return 0
    rows = re.findall(rf"^\| {name} \| (\d+) of {target} \|.*\| passed \|", RESULTS.read_text(), re.MULTILINE)
    last = int(rows[-1]) if rows else 0
    return last if last < target else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.long")
    parser.add_argument("name", choices=sorted(SUITES))
    parser.add_argument("--budget", type=int, required=True)
    given = parser.parse_args()
    done, portion = done_so_far(given.name, given.budget), max(1, given.budget // PORTIONS)
    while done < given.budget:
        count, seed = min(portion, given.budget - done), secrets.randbelow(1 << 31)
        result = run(given.name, count, seed)
        done += count
        with RESULTS.open("a") as table:
            when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
            table.write(f"| {given.name} | {done} of {given.budget} | {seed} | {when} | {result} |\n")
        if result != "passed":
            return 1
    return 0


def run(name: str, count: int, seed: int) -> str:
    environment = {**os.environ, "JUPYTER_AGENT_BUDGET": f"{name}={count}", "JUPYTER_AGENT_SEED": str(seed)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(TESTS / SUITES[name]),
        "-q",
        "--timeout=0",
        f"--hypothesis-seed={seed}",
    ]
    return "passed" if subprocess.run(command, env=environment, check=False).returncode == 0 else "failed"


if __name__ == "__main__":
    sys.exit(main())
