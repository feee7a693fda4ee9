"""Other clients than JupyterLab, and other formats than HTML."""

import json
import os
import subprocess

import nbformat
import pypandoc
import pytest
from conftest import INSTALLED, PROJECT, VENV, run
from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file


def test_parameters_of_papermill(notebook, tmp_path):
    path = notebook(
        "parameters",
        ("let lr = 0.5; let steps = 3; let name = String::new();", "parameters"),
        'format!("{lr} {steps} {name} {flag} {big} {widths:?} {options:?} {none:?}")',
    )
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "lr: 1.0e-3\nsteps: -7\nname: 'say \"#é\\n'\nflag: true\nbig: 5000000000\nwidths: [1.5, 2.0]\noptions: {a: 1}\nnone: null\n"
    )
    code, output = run(VENV / "bin/papermill", path, tmp_path / "out.ipynb", "-f", settings)
    assert code == 0, output
    shown = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0]["data"]["text/plain"]
    assert shown == '0.001 -7 say "#é\\n true 5000000000 [1.5, 2.0] {"a": 1} None'


@pytest.mark.parametrize("cell, message", [('Err::<(), _>("stopped here")?', "stopped here"), ('panic!("boom");', "boom")])
def test_papermill_stops_at_an_error(notebook, tmp_path, cell, message):
    path = notebook("stops", "1", cell, 'println!("never");')
    code, output = run(VENV / "bin/papermill", path, tmp_path / "out.ipynb")
    assert code != 0 and message in output, output
    assert nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].get("outputs", []) == []


def test_an_editor_that_reads_no_settings_of_the_shell(tmp_path):
    """As Visual Studio Code does: starts the command of the specification, from any directory and with few variables."""
    specification = json.loads((INSTALLED / "kernel.json").read_text())
    file, _ = write_connection_file(str(tmp_path / "connection.json"))
    command = [word.replace("{connection_file}", file) for word in specification["argv"]]
    kept = {name: os.environ[name] for name in ("HOME", "CARGO_HOME", "RUSTUP_HOME") if name in os.environ}
    environment = {"PATH": "/usr/bin:/bin", **kept, **specification["env"]}
    client = BlockingKernelClient(connection_file=file)
    client.load_connection_file()
    with subprocess.Popen(command, cwd="/", env=environment) as kernel:
        try:
            client.start_channels()
            client.wait_for_ready(timeout=180)
            cell = 'println!("{}", two_moons(9, 0.1, 0, &best_device()?)?.len());'
            printed = []
            reply = client.execute_interactive(cell, timeout=180, output_hook=printed.append)
            assert reply["content"]["status"] == "ok", printed
            assert "9\n" in "".join(message["content"].get("text", "") for message in printed)
            client.shutdown()
            assert kernel.wait(30) == 0
        finally:
            client.stop_channels()
            kernel.kill()


def test_slides(notebook, tmp_path):
    path = notebook("slides", "1 + 1")
    code, output = run("jupyter", "nbconvert", "--to", "slides", "--execute", path, "--output-dir", tmp_path)
    assert code == 0, output
    assert "reveal" in (tmp_path / "slides.slides.html").read_text()


@pytest.mark.parametrize("name", ["01_introduction_to_loss_landscapes", "own_models"])
def test_latex(tmp_path, name):
    pandoc = os.path.dirname(pypandoc.get_pandoc_path())
    source = PROJECT / f"notebooks/{name}.ipynb"
    search = f"{VENV / 'bin'}:{pandoc}:{os.environ['PATH']}"
    code, output = run("jupyter", "nbconvert", "--to", "latex", source, "--output-dir", tmp_path, PATH=search)
    assert code == 0, output
    outputs = [out for cell in nbformat.read(source, as_version=4).cells for out in cell.get("outputs", [])]
    figures = [out for out in outputs if "application/vnd.plotly.v1+json" in out.get("data", {})]
    text = (tmp_path / f"{name}.tex").read_text()
    images = [path.name for path in (tmp_path / f"{name}_files").iterdir()]
    assert len(images) == len(figures) > 0 and all(text.count(image) == 1 for image in images)
    assert "Plotly.newPlot" not in text and "<div" not in text
    # Without these, letters such as θ are missing, and tables do not compile.
    assert r"\setmainfont{DejaVu Sans}" in text and r"\newcounter{none}" in text


def test_jupytext_round_trip(notebook, tmp_path):
    path = notebook("round", "let x = 20;", "x + 1")
    code, output = run(VENV / "bin/jupytext", "--to", "rs:percent", path, "--output", tmp_path / "round.rs")
    assert code == 0, output
    code, output = run(VENV / "bin/jupytext", "--to", "ipynb", "--execute", tmp_path / "round.rs", "--output", tmp_path / "back.ipynb")
    assert code == 0, output
    assert nbformat.read(tmp_path / "back.ipynb", as_version=4).cells[-1].outputs[0]["data"]["text/plain"] == "21"
