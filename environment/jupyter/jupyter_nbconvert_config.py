"""Settings of the project's own Jupyter: runs that fail when a cell fails, exported pages that draw figures offline."""

import os

from nbconvert.exporters import Exporter

c = get_config()  # noqa: F821

c.Exporter.default_preprocessors = [
    "checked_execution.CheckedExecutePreprocessor" if name.endswith(".ExecutePreprocessor") else name
    for name in Exporter.default_preprocessors.default()
]
# Seconds that a cell may run.
c.ExecutePreprocessor.timeout = int(os.environ.get("LOSS_LANDSCAPE_CELL_SECONDS", 240))
c.ExecutePreprocessor.startup_timeout = 180
# Times of day would make every run of a notebook a change of its file.
c.ExecutePreprocessor.record_timing = False
c.HTMLExporter.template_name = "loss_landscape"
