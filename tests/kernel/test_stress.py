"""Many cells in a row, several kernels at once, and processes that are killed: no output is lost or crossed, no process remains."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import Kernel


def numbered(i):
    """A cell whose outputs have its number, and these outputs."""
    match i % 8:
        case 0:
            return f'print!("out {i}");', {"stdout": f"out {i}"}
        case 1:
            return f'eprint!("err {i}");', {"stderr": f"err {i}"}
        case 2:
            return f"let kept = {i}; kept", {"text/plain": f"{i}"}
        case 3:
            return f'print!("out {i}"); eprint!("err {i}"); {i}', {"stdout": f"out {i}", "stderr": f"err {i}", "text/plain": f"{i}"}
        case 4:
            return f'print!("out {i}"); Err::<(), _>("error {i}")?', {"stdout": f"out {i}", "error": f"error {i}", "ename": "Error"}
        case 5:
            code = f'println!("EVCXR_BEGIN_CONTENT text/markdown\\nshown {i}\\nEVCXR_END_CONTENT"); print!("out {i}");'
            return code, {"text/markdown": f"shown {i}", "stdout": f"out {i}"}
        case 6:
            return f'print!("out {i}"); panic!("{i}");', {"stdout": f"out {i}", "error": f"panicked in line 1: {i}", "ename": "Panic"}
        case _:
            code = f'std::thread::spawn(|| print!("{"x" * 3000} {i}")).join().unwrap(); kept'
            return code, {"stdout": f"{'x' * 3000} {i}", "text/plain": f"{i - 5}"}


def run_numbered(kernel, count):
    """Sends all cells at once, so that each starts as soon as the one before ends."""
    cells, expected = zip(*map(numbered, range(count)))
    for cell, found, wanted in zip(cells, kernel.run_all(cells), expected, strict=True):
        assert found == wanted, cell


def test_many_cells_in_a_row(kernel):
    run_numbered(kernel, 200)


# Cells that take minutes, each in one of its stages.
CELLS = {
    "compiles": "#[allow(long_running_const_eval)] const LATE: u64 = { let mut i = 0; while i < 1 << 33 { i += 1; } i };",
    "runs": 'println!("started"); std::thread::sleep(std::time::Duration::from_secs(1_000));',
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    """A kernel whose processes are killed."""
    kernel = Kernel(tmp_path_factory.mktemp("victim"))
    yield kernel
    kernel.stop()


def build_directory(kernel):
    evaluator = psutil.Process(kernel.manager.provisioner.pid).children()[0]
    return Path(evaluator.environ()["EVCXR_TMPDIR"]).parent


def processes(build):
    """The processes with a build directory in their environment or command line: all of a kernel except kernel.py."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command, environment = ((folder / file).read_bytes() for file in ("cmdline", "environ"))
            if f"{build}/".encode() in command + environment:
                found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def await_end(build, among=None):
    """Waits until the processes of a kernel are gone, or some of them."""
    deadline = time.monotonic() + 10
    while left := {process: name for process, name in processes(build).items() if among is None or process in among}:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def begin(kernel, stage):
    """Starts a cell that takes minutes, and waits for its stage. Returns its request."""
    build = build_directory(kernel)
    request = kernel.client.execute(CELLS[stage])
    if stage == "compiles":
        deadline = time.monotonic() + 60
        while not any("--crate-name ctx" in command for command in processes(build).values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    else:
        await_text(kernel)
    return request


def await_text(kernel):
    while kernel.client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass


def works(kernel):
    """Whether a kernel that was started anew runs cells."""
    kernel.client.wait_for_ready(timeout=180)
    return kernel.shown("2 + 3") == "5"


def test_an_interrupt_of_the_first_cell(victim):
    request = begin(victim, "compiles")
    victim.manager.interrupt_kernel()
    assert victim.outputs(request, 60) == {"ename": "Interrupted", "error": "interrupted"}
    assert victim.shown("1") == "1"


def test_two_kernels_at_once(kernel, victim):
    with ThreadPoolExecutor() as threads:
        list(threads.map(run_numbered, (kernel, victim), (40, 40)))


@pytest.mark.parametrize("generation, stage", [(1, "runs"), (2, "runs"), (0, "runs"), (0, "compiles")], ids=str)
def test_killed_children(victim, generation, stage):
    """0: the evaluator, 1: the guard, 2: the process that runs cells."""
    build = build_directory(victim)
    request = begin(victim, stage)
    killed = psutil.Process(victim.manager.provisioner.pid).children()[0]
    for _ in range(generation):
        killed = next(child for child in killed.children() if child.name() == "evaluator")
    left = [killed, *killed.children(recursive=True)]
    killed.kill()
    # The program that evaluates cells is gone, or only the process that runs them.
    assert victim.outputs(request, 60)["ename"] == ("KernelError" if generation == 0 else "ProcessEnded")
    if generation == 0:
        await_end(build)
        assert victim.run("1")["ename"] == "KernelError"
        victim.manager.restart_kernel(now=True)
        assert works(victim)
    else:
        _, alive = psutil.wait_procs(left, 10)
        assert not alive
        outputs = victim.run("1")
        assert outputs["text/plain"] == "1" and "lost" in outputs["stderr"]


@pytest.mark.parametrize("stage", CELLS)
def test_a_killed_kernel(victim, stage):
    build = build_directory(victim)
    begin(victim, stage)
    os.kill(victim.manager.provisioner.pid, signal.SIGKILL)
    await_end(build)
    victim.manager.restart_kernel(now=True)
    assert works(victim)


@pytest.mark.parametrize("stage", CELLS)
def test_a_restart(victim, stage):
    build = build_directory(victim)
    begin(victim, stage)
    before = processes(build)
    victim.manager.restart_kernel()
    assert works(victim)
    await_end(build, before)


def test_a_client_that_goes_away(victim):
    victim.client.execute('for i in 0.. { println!("line {i}"); progress::check()?; }')
    await_text(victim)
    victim.client.stop_channels()
    victim.client = victim.manager.client()
    victim.client.start_channels()
    victim.manager.interrupt_kernel()
    assert works(victim)


OWNER = """import time
from test_stress import Kernel, begin, build_directory
kernel = Kernel(".")
begin(kernel, "compiles")
print(build_directory(kernel), flush=True)
time.sleep(1000)"""


def test_a_killed_owner_of_a_kernel():
    """As a JupyterLab that is killed. The evaluator ends only when kernel.py has ended."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True)
    build = owner.stdout.readline().strip()
    owner.kill()
    owner.communicate()
    await_end(build)
