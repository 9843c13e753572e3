"""Reports progress, a result and an artifact, writes a file, starts a tree that tries to get away, and stays.

argv: the run's folder, into which ``events.jsonl`` and ``pids`` go.
"""

import json
import runpy
import sys
from pathlib import Path

folder = Path(sys.argv[1])
with (folder / "events.jsonl").open("a") as events:
    for event in (
        {"event": "progress", "done": 2, "total": 5, "label": "cell 2 of 5"},
        {"event": "result", "name": "mean", "value": 11.5},
        {"event": "artifact", "path": "named.txt"},
    ):
        events.write(json.dumps(event) + "\n")
        events.flush()
    events.write('{"event": "result", "name": "cut off')
(folder / "named.txt").write_text("named")
Path("output.csv").write_text("1,2,3")
print("reported", flush=True)
sys.argv = ["detacher.py", str(folder / "pids")]
runpy.run_path(str(Path(__file__).with_name("detacher.py")))
