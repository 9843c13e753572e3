"""``python -m jupyter_agent.notebook SPEC``: execute one notebook.

Exit code 0: all cells ran; 1: a cell failed; 2: the kernel died or did not start, or the notebook cannot be executed;
143: stopped by SIGTERM. The output notebook is written in every case in which there is a notebook.
"""

from __future__ import annotations

import sys

# Three quarters of the time that nbformat takes to import go into a checker for a format that notebooks do not have.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import argparse  # noqa: E402 - behind the line above
import asyncio  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

from jupyter_agent.errors import AgentError, InvalidInput  # noqa: E402
from jupyter_agent.notebook.journal import Journal  # noqa: E402
from jupyter_agent.notebook.kernel import Kernel, KernelDied  # noqa: E402
from jupyter_agent.notebook.spec import Spec, check_parameters, complain, read_notebook  # noqa: E402


async def execute(spec: Spec) -> int:
    """Execute what ``spec`` says; the exit code."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with Journal(spec.events) as journal:
        try:
            return await _execute(spec, journal, stopped)
        except AgentError as error:
            if isinstance(error, KernelDied):
                journal.add("kernel_died")
            journal.error(str(error))
            complain(error)
            return 2


async def _execute(spec: Spec, journal: Journal, stopped: asyncio.Event) -> int:
    read_notebook(spec.notebook, language=spec.kernel.language)
    check_parameters(spec.parameters)
    async with Kernel(spec.kernel, cwd=spec.cwd, near=spec.events.parent, timeout_s=spec.kernel_timeout_s) as kernel:
        from jupyter_agent.notebook.executing import Execution  # noqa: PLC0415 - 150 ms, while the kernel starts

        execution = Execution.of(spec, kernel, journal)
        try:
            return await execution.run(stopped)
        finally:
            await kernel.ask_to_end()
            execution.save(spec)


def main(arguments: list[str]) -> int:
    """Execute the notebook that the one argument, a file, tells of."""
    parser = argparse.ArgumentParser("python -m jupyter_agent.notebook", description="Execute one notebook.")
    parser.add_argument("spec", type=Path, metavar="SPEC", help="a JSON file that says what to execute")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # of libraries, about notebooks in older forms
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # what nbclient says there, we say ourselves
    try:
        return asyncio.run(execute(Spec.read(given.spec)))
    except InvalidInput as error:
        complain(error)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
