"""A failing cell makes a run fail. The run reports which cell failed and why, in the project's script and in nbconvert."""

import shutil
import time

import nbformat
import psutil
import pytest
from conftest import PROJECT, run

OUT = PROJECT / "target/notebooks"

# The process that runs cells is a child of the guard, which is a child of the evaluator, which is a child of the kernel.
KILL_THE_KERNEL = """fn parent(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned()
}
let kernel = parent(&parent(&std::os::unix::process::parent_id().to_string()));
std::process::Command::new("kill").args(["-9", &kernel]).status()?;
std::thread::sleep(std::time::Duration::from_secs(60));"""

# Cells that fail, and what the run must report.
FAILURES = {
    "compile_error": ('let x: i32 = "seven";', "mismatched types"),
    "question_mark": ('std::fs::read_to_string("/no/such/file")?;', "No such file or directory"),
    "shown_error": ('"seven".parse::<i32>().map_err(|e| e.to_string())?', "invalid digit found"),
    "panic": ('panic!("out of cheese");', "out of cheese"),
    "dead_process": ("std::process::exit(3);", "exit status 3"),
    "dead_kernel": (KILL_THE_KERNEL, "Kernel died"),
    "too_slow": ("loop { std::hint::spin_loop(); }", "ran longer than its limit of 8 seconds"),
}
LIMIT = {"LOSS_LANDSCAPE_CELL_SECONDS": "8"}


@pytest.fixture
def broken(notebook):
    return {
        name: notebook(name, "let fine = 1;", cell, "let never = 2;") for name, (cell, _) in FAILURES.items()
    }


def kernels(mark):
    """The kernels with a mark in their environment."""
    found = psutil.process_iter(["name", "environ"])
    return [p.pid for p in found if p.info["name"] == "evaluator" and mark in (p.info["environ"] or {}).values()]


def assert_reported(output, name):
    cell, message = FAILURES[name]
    reported = [part for part in output.split("CellFailed") if f"{name}, code cell 2 (`{cell.splitlines()[0]}`)" in part]
    assert reported and any(message in part for part in reported), output


def test_the_projects_script(broken):
    code, output = run(PROJECT / "environment/notebooks.sh", *broken.values(), **LIMIT)
    assert code == 1, output
    for name in FAILURES:
        assert_reported(output, name)
        assert not (OUT / f"{name}.ipynb").exists()
    repeated, failed = output.rstrip().splitlines()[-2:]
    assert repeated.startswith("[notebooks] warning: too_slow was executed twice"), output
    assert failed == "[notebooks] failed: " + " ".join(FAILURES), output
    assert [path.name for path in OUT.glob("*.timeout.txt") if path.name.partition(".")[0] in FAILURES] == ["too_slow.timeout.txt"]


@pytest.mark.parametrize("name", FAILURES)
def test_plain_nbconvert(broken, name, tmp_path):
    out = tmp_path / "out"
    command = ["jupyter", "nbconvert", "--to", "notebook", "--execute", broken[name], "--output-dir", out]
    code, output = run(*command, **LIMIT, MARK=str(tmp_path))
    assert code != 0, output
    assert_reported(output, name)
    assert [path.name for path in out.glob("*")] == (["too_slow.timeout.txt"] if name == "too_slow" else [])
    deadline = time.monotonic() + 10
    while kernels(str(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not kernels(str(tmp_path)), "a kernel is left running"


WAITS_ONCE = """let mark = "{mark}";
if std::fs::metadata(mark).is_err() {{
    std::fs::write(mark, "")?;
    std::process::Command::new("sleep").arg("1000").status()?;
}}"""


def test_a_cell_that_hangs_once(notebook, tmp_path):
    """The notebook is executed again and passes. A report names what hung, and the last line names the report."""
    path = notebook("hangs_once", WAITS_ONCE.format(mark=tmp_path / "mark"), "1 + 1")
    code, output = run(PROJECT / "environment/notebooks.sh", path, **LIMIT)
    assert code == 0, output
    assert "ran longer than its limit of 8 seconds; see hangs_once.timeout.txt beside the executed notebook" in output
    assert output.rstrip().splitlines()[-1] == (
        "[notebooks] warning: hangs_once was executed twice because a cell timed out; "
        "see target/notebooks/hangs_once.timeout.txt"
    )
    assert (OUT / "hangs_once.ipynb").exists() and (OUT / "hangs_once.html").exists()
    report = (OUT / "hangs_once.timeout.txt").read_text()
    processes = [line for line in report.splitlines() if line.startswith("# Process ")]
    kernel, evaluator, guard, cells, program = [line.split()[2].rstrip(":") for line in processes]
    assert processes[4] == f"# Process {program}: sleep 1000"
    # The guard reads the output of the cells' process, and the program writes to the same pipe.
    pipes = [line for line in report.splitlines() if line.startswith("file 1 (write): pipe:")]
    assert any(f" {guard}/" in pipe and " read" in pipe and f" {cells}/1 write" in pipe for pipe in pipes)
    if shutil.which("gdb"):
        assert report.count("#0 ") >= 3

    # The next run starts without the report.
    code, output = run(PROJECT / "environment/notebooks.sh", path, **LIMIT)
    assert code == 0 and "warning" not in output
    assert not (OUT / "hangs_once.timeout.txt").exists()


def test_cells_that_must_fail(notebook, tmp_path):
    path = notebook(
        "allowed",
        'eprintln!("on purpose");',
        ('panic!("on purpose");', "raises-exception"),
        ('let x: i32 = "seven";', "raises-exception"),
        "1 + 1",
    )
    code, output = run("jupyter", "nbconvert", "--to", "notebook", "--execute", path, "--output-dir", tmp_path / "out")
    assert code == 0, output


def test_a_failing_assertion_fails_the_notebook(tmp_path):
    """Negates one assertion in the last cell of the first notebook."""
    name = "01_introduction_to_loss_landscapes"
    book = nbformat.read(PROJECT / f"notebooks/{name}.ipynb", as_version=4)
    assertions = [cell for cell in book.cells if cell.cell_type == "code"][-1]
    assert "assert_eq!(" in assertions.source
    assertions.source = assertions.source.replace("assert_eq!(", "assert_ne!(", 1)
    for cell in book.cells:
        cell.source = cell.source.replace('path = ".."', f'path = "{PROJECT}"')
    nbformat.write(book, tmp_path / "broken.ipynb")
    code, output = run("jupyter", "nbconvert", "--to", "notebook", "--execute", tmp_path / "broken.ipynb", "--output-dir", tmp_path / "out")
    assert code != 0, output
    assert "assertion `left != right` failed" in output, output
