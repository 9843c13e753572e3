"""On SIGTERM says so, takes argv[1] seconds to tidy up, says that too, and ends with 0."""

import os
import signal
import sys
import time


def tidy(number: int, frame: object) -> None:
    os.write(1, b"asked to stop\n")  # print may have been interrupted, and cannot be entered again
    time.sleep(float(sys.argv[1]))
    os.write(1, b"tidied up\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, tidy)
print("ready", flush=True)
time.sleep(600)
