"""Executes notebooks, and fails if a cell fails.

The Rust kernel reports success for a cell that ends in a `?` error or a panic: it answers "ok" and writes the message to
standard error. So here any text on standard error is a failure. A cell that writes there on purpose has the tag
`writes-stderr`, and one that must fail has Jupyter's tag `raises-exception`.

A failure names the notebook, the cell and the message. A cell also fails if it runs longer than
`ExecutePreprocessor.timeout` seconds. NOTEBOOK.timeout.txt, beside the executed notebook, then reports what the kernel's
processes were doing.
"""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from queue import Empty

import stuck_kernel
from jupyter_core.utils import ensure_async, run_sync
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert.preprocessors import ExecutePreprocessor
from nbconvert.utils.exceptions import ConversionException
from traitlets.config import Application

ALLOWED = {"writes-stderr", "raises-exception"}
COLORS = re.compile(r"\x1b\[[0-9;]*m")

# The kernel sends standard error from another thread, so text can arrive after the cell's end.
LATE_SECONDS = 0.03
LAST_LINE = "the end of this notebook"
LAST_LINE_SECONDS = 60


class CellFailed(ConversionException):
    """A cell of a notebook failed."""


class CheckedExecutePreprocessor(ExecutePreprocessor):
    """nbconvert's execution with these checks."""

    def preprocess(self, nb, resources=None, km=None):
        self.ran = {}  # message id of the request -> (number, cell), in order
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != "code" or not cell.source.strip():
            return super().preprocess_cell(cell, resources, index)
        number = len(self.ran) + 1
        try:
            cell, resources = super().preprocess_cell(cell, resources, index)
        except CellTimeoutError:
            self.fail(number, cell, f"it ran longer than its limit of {self.timeout} seconds; {self.report()}")
        except CellExecutionError as error:
            self.fail(number, cell, errors_in(cell) or str(error))
        except DeadKernelError as error:
            self.end_orphans()
            self.fail(number, cell, errors_in(cell) or str(error))
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
        self.check(number, cell)
        if not any(later.cell_type == "code" for later in self.nb.cells[index + 1 :]):
            run_sync(self.await_last_line)()
            for number, cell in self.ran.values():
                self.check(number, cell)
        return cell, resources

    def end_orphans(self):
        """Kills the process that runs the cells. It outlives a dead kernel until its cell ends."""
        group = getattr(self.km.provisioner, "pgid", None)
        if group:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def report(self):
        """Writes a report on the kernel's processes and returns a sentence that names the file."""
        # The nbconvert application, if it is running. Its module creates exporters, which import this module, so it cannot
        # be imported here.
        app = Application.instance() if Application.initialized() else None
        folder = getattr(getattr(app, "writer", None), "build_directory", "") or self.metadata().get("path", "")
        file = Path(folder, f"{self.name()}.timeout.txt")
        file.write_text(stuck_kernel.report(self.km.provisioner.pgid))
        return f"see {file.name} beside the executed notebook"

    def metadata(self):
        return (self.resources or {}).get("metadata", {})

    def name(self):
        return self.metadata().get("name", "notebook")

    def check(self, number, cell):
        if not self.allow_errors and not ALLOWED & set(cell.metadata.get("tags", [])):
            text = standard_error(cell)
            if text is not None:
                self.fail(number, cell, text.strip() or "it wrote an empty line to standard error")

    def fail(self, number, cell, message):
        first_line = cell.source.strip().splitlines()[0]
        raise CellFailed(f"{self.name()}, code cell {number} (`{first_line}`): {COLORS.sub('', message)}") from None

    async def _async_poll_output_msg(self, parent_msg_id, cell, cell_index):
        self.ran[parent_msg_id] = (len(self.ran) + 1, cell)
        await super()._async_poll_output_msg(parent_msg_id, cell, cell_index)
        await self.late_output(LATE_SECONDS)

    async def late_output(self, seconds):
        """Adds late output to its cell, until none arrives for `seconds` or the last line arrives. Returns whether it did."""
        while True:
            try:
                message = await ensure_async(self.kc.iopub_channel.get_msg(timeout=seconds))
            except Empty:
                return False
            if message["msg_type"] != "stream":
                continue
            if LAST_LINE in message["content"]["text"]:
                return True
            _, cell = self.ran.get(message["parent_header"].get("msg_id"), (None, None))
            if cell is not None:
                self.output(cell.outputs, message, None, None)

    async def await_last_line(self):
        """Standard error arrives in order: after the last line, all earlier text has arrived."""
        await ensure_async(self.kc.execute(f'eprintln!("{LAST_LINE}");', store_history=False))
        if not await self.late_output(LAST_LINE_SECONDS):
            raise CellFailed(f"the kernel did not send its last line of standard error; {self.report()}")


def errors_in(cell):
    """The error messages of a cell, from the compiler and from the kernel."""
    found = [output for output in cell.outputs if output.output_type == "error"]
    said = ["\n".join(output.traceback) or output.evalue for output in found]
    text = standard_error(cell)
    return "\n".join(said + ([text] if text else []))


def standard_error(cell):
    """The text that a cell wrote to standard error, or None."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stderr"]
    return "".join(texts) if texts else None
