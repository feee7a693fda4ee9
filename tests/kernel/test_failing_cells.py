"""A notebook whose cell fails makes the run fail, and the run says which cell and why: both ways of running it."""

import time

import nbformat
import psutil
import pytest
from conftest import PROJECT, run

KILL_THE_KERNEL = """let kernel = std::os::unix::process::parent_id().to_string();
std::process::Command::new("kill").args(["-9", &kernel]).status()?;
std::thread::sleep(std::time::Duration::from_secs(60));"""

# What fails: the cell, and what the run must say about it.
FAILURES = {
    "compile_error": ('let x: i32 = "seven";', "mismatched types"),
    "question_mark": ('std::fs::read_to_string("/no/such/file")?;', "No such file or directory"),
    "shown_error": ('"seven".parse::<i32>().map_err(|e| e.to_string())?', "invalid digit found"),
    "panic": ('panic!("out of cheese");', "out of cheese"),
    "dead_process": ("std::process::exit(3);", "exit status: 3"),
    "dead_kernel": (KILL_THE_KERNEL, "Kernel died"),
    "too_slow": ("loop { std::hint::spin_loop(); }", "ran longer than its limit of 8 seconds"),
}
LIMIT = {"LOSS_LANDSCAPE_CELL_SECONDS": "8"}


@pytest.fixture
def broken(notebook):
    return {
        name: notebook(name, "let fine = 1;", cell, "let never = 2;") for name, (cell, _) in FAILURES.items()
    }


def kernels():
    return {p.pid for p in psutil.process_iter(["name"]) if p.info["name"] == "evcxr_jupyter"}


def assert_said(output, name):
    cell, message = FAILURES[name]
    said = [part for part in output.split("CellFailed") if f"{name}, code cell 2 (`{cell.splitlines()[0]}`)" in part]
    assert said and any(message in part for part in said), output


def test_the_projects_script(broken):
    code, output = run(PROJECT / "environment/notebooks.sh", *broken.values(), **LIMIT)
    assert code == 1, output
    for name in FAILURES:
        assert_said(output, name)
        assert not (PROJECT / f"target/notebooks/{name}.ipynb").exists()
    assert output.rstrip().endswith("failed: " + " ".join(FAILURES)), output


@pytest.mark.parametrize("name", FAILURES)
def test_plain_nbconvert(broken, name, tmp_path):
    before = kernels()
    out = tmp_path / "out"
    code, output = run("jupyter", "nbconvert", "--to", "notebook", "--execute", broken[name], "--output-dir", out, **LIMIT)
    assert code != 0, output
    assert_said(output, name)
    assert not list(out.glob("*.ipynb"))
    deadline = time.monotonic() + 10
    while kernels() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not kernels() - before, "a kernel is left running"


def test_cells_that_may_write_to_standard_error(notebook, tmp_path):
    path = notebook(
        "allowed",
        ('eprintln!("on purpose");', "writes-stderr"),
        ('panic!("on purpose");', "raises-exception"),
        ('let x: i32 = "seven";', "raises-exception"),
        "1 + 1",
    )
    code, output = run("jupyter", "nbconvert", "--to", "notebook", "--execute", path, "--output-dir", tmp_path / "out")
    assert code == 0, output


def test_a_claim_that_is_no_longer_true(tmp_path):
    """The first notebook with one of the claims of its last cell turned round."""
    name = "01_introduction_to_loss_landscapes"
    book = nbformat.read(PROJECT / f"notebooks/{name}.ipynb", as_version=4)
    claims = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert "assert_eq!(" in claims.source
    claims.source = claims.source.replace("assert_eq!(", "assert_ne!(", 1)
    for cell in book.cells:
        cell.source = cell.source.replace('path = ".."', f'path = "{PROJECT}"')
    nbformat.write(book, tmp_path / "broken.ipynb")
    code, output = run("jupyter", "nbconvert", "--to", "notebook", "--execute", tmp_path / "broken.ipynb", "--output-dir", tmp_path / "out")
    assert code != 0, output
    assert "assertion `left != right` failed" in output, output
