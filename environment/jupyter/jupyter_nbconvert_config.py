"""Settings of the project's Jupyter: runs fail if a cell fails, and exported pages draw figures offline."""

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
# Timestamps would change the file in every run.
c.ExecutePreprocessor.record_timing = False
c.HTMLExporter.template_name = "loss_landscape"
c.LatexExporter.template_name = "loss_landscape_latex"
# The template for HTML has no slides.
c.SlidesExporter.template_name = "reveal"
