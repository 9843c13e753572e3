"""On SIGTERM says so, takes argv[1] seconds to tidy up, says that too, and ends with 0."""

import signal
import sys
import time


def tidy(number: int, frame: object) -> None:
    print("asked to stop", flush=True)
    time.sleep(float(sys.argv[1]))
    print("tidied up", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, tidy)
print("ready", flush=True)
time.sleep(600)
