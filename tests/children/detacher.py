"""Starts grandchildren that try to get away, writes their pids to the file named, and stays.

argv: FILE. One left the session (double fork), one is in it below a shell, one has even emptied its environment.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def daemon() -> int:
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        child = subprocess.Popen(
            SLEEPER, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.write(writing, str(child.pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 32))


def below_shell() -> int:
    script = f'"{SLEEPER[0]}" -c "import time; time.sleep(600)" & echo $!; wait'
    shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    return int(shell.stdout.readline())


def nameless() -> int:
    return subprocess.Popen(SLEEPER, env={}, start_new_session=True).pid


pids = {"daemon": daemon(), "below_shell": below_shell(), "nameless": nameless(), "self": os.getpid()}
target = Path(sys.argv[1])
temporary = target.with_suffix(".new")
temporary.write_text(json.dumps(pids))
temporary.rename(target)
time.sleep(600)
