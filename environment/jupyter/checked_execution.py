"""Executes notebooks. A failure names the notebook, the cell and the message.

A cell also fails if it runs longer than `ExecutePreprocessor.timeout` seconds. NOTEBOOK.timeout.txt, beside the executed
notebook, then reports what the kernel's processes were doing.
"""

import re
from pathlib import Path

import stuck_kernel
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert.preprocessors import ExecutePreprocessor
from nbconvert.utils.exceptions import ConversionException
from traitlets.config import Application

COLORS = re.compile(r"\x1b\[[0-9;]*m")


class CellFailed(ConversionException):
    """A cell of a notebook failed."""


class CheckedExecutePreprocessor(ExecutePreprocessor):
    """nbconvert's execution with these messages."""

    def preprocess(self, nb, resources=None, km=None):
        self.cells = 0
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell, resources, index):
        if cell.cell_type != "code" or not cell.source.strip():
            return super().preprocess_cell(cell, resources, index)
        self.cells += 1
        try:
            return super().preprocess_cell(cell, resources, index)
        except CellTimeoutError:
            self.fail(cell, f"it ran longer than its limit of {self.timeout} seconds; {self.report()}")
        except (CellExecutionError, DeadKernelError) as error:
            tracebacks = ["\n".join(output.traceback) for output in cell.outputs if output.output_type == "error"]
            self.fail(cell, "\n".join(tracebacks) or str(error))

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

    def fail(self, cell, message):
        first_line = cell.source.strip().splitlines()[0]
        raise CellFailed(f"{self.name()}, code cell {self.cells} (`{first_line}`): {COLORS.sub('', message)}") from None
