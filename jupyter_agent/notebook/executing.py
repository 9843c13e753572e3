"""The cells of a notebook, one after the other, their outputs seen as they come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Self

from nbclient import NotebookClient  # noqa: TID251 - notebook/ is where nbclient is used
from nbclient.exceptions import CellExecutionError, DeadKernelError  # noqa: TID251 - as above
from nbformat import NotebookNode

from jupyter_agent.errors import AgentError, InvalidInput
from jupyter_agent.notebook import outputs, parameters
from jupyter_agent.notebook.journal import Journal
from jupyter_agent.notebook.kernel import Kernel, KernelDied
from jupyter_agent.notebook.spec import Spec

SUCCEEDED, CELL_FAILED, NO_KERNEL, STOPPED = 0, 1, 2, 143
"""Exit codes; the last is a shell's for SIGTERM."""

INTERRUPT_S = 3.0
"""How long a kernel is given to give up a cell before it is killed."""

OUTPUT_S = 600
"""How long outputs may lag behind the end of their cell."""

LOG = logging.getLogger(__name__)


class LiveClient(NotebookClient):
    """nbclient, with each output journalled and printed the moment it comes: it has no hook for that."""

    def __init__(self, notebook: NotebookNode, kernel: Kernel, journal: Journal) -> None:
        super().__init__(notebook, km=kernel.manager, timeout=None, iopub_timeout=OUTPUT_S)
        self.kc = kernel.client
        self._journal = journal
        self._console = outputs.Console()

    def process_message(self, message: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Take in one message of the kernel (called by nbclient for those that belong to the running cell)."""
        kind, content = message["msg_type"], message["content"]
        display_id = (content.get("transient") or {}).get("display_id")
        if "data" in content and kind in ("display_data", "execute_result", "update_display_data"):
            self._take_results(content["data"])
        if kind == "execute_input":
            self._journal.add("cell", cell=cell_index, count=content.get("execution_count"))
        elif kind == "update_display_data":
            self._journal.add("updated", display_id=display_id, data=content["data"], metadata=content["metadata"])
        output = super().process_message(message, cell, cell_index)
        if kind == "clear_output" and not content.get("wait"):
            self._journal.add("cleared", cell=cell_index)
        if output:
            self._journal.add("output", cell=cell_index, output=output, display_id=display_id)  # what is shown is kept
            self._console.show(output)
        return output

    def clear_display_id_mapping(self, cell_index: int) -> None:
        """Forget a cell's displays; nbclient calls it whenever it removes a cell's outputs, also later on."""
        self._journal.add("cleared", cell=cell_index)
        super().clear_display_id_mapping(cell_index)

    def _take_results(self, data: Mapping[str, Any]) -> None:
        try:
            for name, value in outputs.results(data).items():
                self._journal.add("result", name=name, value=value)
        except InvalidInput as error:
            self._console.show({"output_type": "stream", "name": "stderr", "text": f"{error}\n"})


class Execution:
    """One notebook in one kernel. ``run`` gives the exit code; what was done so far is in ``notebook`` at any time."""

    def __init__(self, notebook: NotebookNode, kernel: Kernel, journal: Journal) -> None:
        self.notebook = notebook
        self._kernel = kernel
        self._journal = journal
        self._client = LiveClient(notebook, kernel, journal)

    @classmethod
    def of(cls, spec: Spec, kernel: Kernel, journal: Journal) -> Self:
        """The execution that a spec asks for. Raises ``InvalidInput`` for a notebook or parameters that cannot be."""
        notebook = outputs.load(spec.notebook)
        if spec.parameters:
            for name in parameters.inject(notebook, spec.parameters, language=spec.kernel.language):
                LOG.warning("The notebook's cell of parameters does not set %r.", name)
            cell = parameters.tagged(notebook, parameters.INJECTED) or 0
            journal.add("injected", source=notebook.cells[cell].source)
        return cls(notebook, kernel, journal)

    async def run(self, stopped: asyncio.Event) -> int:
        """Execute all cells, or those until ``stopped`` is set: that interrupts the kernel, and kills it if need be."""
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(self._stop(stopped))
            try:
                return await self._cells(stopped)
            finally:
                stopping.cancel()

    def save(self, spec: Spec) -> None:
        """Write the output notebook."""
        self._client.set_widgets_metadata()
        outputs.save(self.notebook, spec.output)
        self._journal.add("artifact", path=spec.output.name)

    async def _stop(self, stopped: asyncio.Event) -> None:
        await stopped.wait()
        await self._kernel.interrupt()
        await asyncio.sleep(INTERRUPT_S)
        await self._kernel.kill()

    async def _cells(self, stopped: asyncio.Event) -> int:
        where = ""
        try:
            self.notebook.metadata["language_info"] = (await self._kernel.ready()).get("language_info", {})
            cells = [index for index, cell in enumerate(self.notebook.cells) if self._is_run(cell)]
            for number, index in enumerate(cells, 1):
                if stopped.is_set():
                    break
                where = f"cell {number} of {len(cells)}"
                self._journal.add("progress", done=number - 1, total=len(cells), label=where)
                await self._client.async_execute_cell(self.notebook.cells[index], index)
                self._journal.add("progress", done=number, total=len(cells), label=where)
        except CellExecutionError as error:
            return STOPPED if stopped.is_set() else self._failed(error, where)
        except (DeadKernelError, KernelDied) as error:
            return STOPPED if stopped.is_set() else await self._died(error, where)
        return STOPPED if stopped.is_set() else SUCCEEDED

    def _is_run(self, cell: NotebookNode) -> bool:
        skipped = self._client.skip_cells_with_tag in cell.metadata.get("tags", [])
        return cell.cell_type == "code" and bool(cell.source.strip()) and not skipped

    def _failed(self, error: CellExecutionError, where: str) -> int:
        if error.ename == "SystemExit" and error.evalue in ("", "0", "None"):
            return SUCCEEDED  # sys.exit(): the notebook ends here because it says so
        reason = f"{error.ename}: {error.evalue}".splitlines()[0]
        self._journal.error(f"{reason} ({where})")
        return CELL_FAILED

    async def _died(self, error: Exception, where: str) -> int:
        end = await self._kernel.end_of_process()
        memory = "; perhaps it ran out of memory" if end == "signal SIGKILL" else ""
        text = str(error) if isinstance(error, AgentError) else f"The kernel died in {where} ({end}{memory})."
        self._journal.add("kernel_died")
        self._journal.error(text)
        outputs.Console().show({"output_type": "stream", "name": "stderr", "text": f"{text}\n"})
        return NO_KERNEL
