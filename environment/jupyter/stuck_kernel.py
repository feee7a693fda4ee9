"""Reports what an unresponsive kernel is doing: its processes, their threads, stacks and open files.

The information comes from Linux's /proc, and stacks in user code from gdb if it is installed.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path

PROC = Path("/proc")
GDB_SECONDS = 30


def report(session: int) -> str:
    """A report on all processes of a session: the kernel, the process that runs the cells, compilers."""
    if not (PROC / "self/stat").exists():
        return "There is no /proc on this system.\n"
    before = {pid: cpu_seconds(pid) for pid in members(session)}
    time.sleep(1)
    pids = members(session)
    ends = pipe_ends()
    load, memory = read(PROC / "loadavg"), read(PROC / "meminfo").splitlines()[:3]
    lines = [f"{time.strftime('%Y-%m-%d %H:%M:%S')}, load average {load}", *memory, "", "# Processes", ""]
    for pid in pids:
        used = cpu_seconds(pid)
        last = used - before.get(pid, 0.0)
        lines.append(f"{pid} (parent {stat(pid)[1]}): {used:.2f} s of CPU, {last:.2f} s in the last second: {command(pid)}")
    for pid in pids:
        lines += ["", f"# Process {pid}: {command(pid)[:100]}", "", *threads(pid), "", *files(pid, ends), "", stacks(pid)]
    return "\n".join(lines) + "\n"


def members(session: int) -> list[int]:
    pids = sorted(int(folder.name) for folder in PROC.glob("[0-9]*"))
    return [pid for pid in pids if stat(pid)[3] == str(session)]


def stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: state, parent, group, session, …; empty for a process that has ended."""
    fields = read(PROC / f"{pid}/stat").rpartition(") ")[2].split()
    return fields if len(fields) > 12 else ["", "", "", "", *["0"] * 9]


def cpu_seconds(pid: int) -> float:
    return sum(map(int, stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


def command(pid: int) -> str:
    return read(PROC / f"{pid}/cmdline").replace("\0", " ").strip()


def threads(pid: int) -> list[str]:
    """One entry per thread: name, state and the kernel function in which it waits."""
    lines = []
    for task in sorted((PROC / f"{pid}/task").glob("*"), key=lambda task: int(task.name)):
        state = read(task / "stat").rpartition(") ")[2][:1]
        lines.append(f"thread {task.name} {read(task / 'comm')}: {state}, waits in {read(task / 'wchan')}, system call {read(task / 'syscall')}")
        lines += [f"    {line}" for line in read(task / "stack").splitlines()]
    return lines


def files(pid: int, ends: dict[str, list[str]]) -> list[str]:
    """One line per open file; for a pipe, also its other ends."""
    lines = []
    for fd, target, mode in opened(pid):
        others = [end for end in ends.get(target, []) if end != f"{pid}/{fd} {mode}"]
        lines.append(f"file {fd} ({mode}): {target}{', other ends: ' + ', '.join(others) if others else ''}")
    return lines


def pipe_ends() -> dict[str, list[str]]:
    """The ends of each pipe, as `PROCESS/FILE MODE`."""
    ends = {}
    for folder in PROC.glob("[0-9]*"):
        for fd, target, mode in opened(int(folder.name)):
            if target.startswith("pipe:"):
                ends.setdefault(target, []).append(f"{folder.name}/{fd} {mode}")
    return ends


def opened(pid: int) -> list[tuple[str, str, str]]:
    """The open files of a process: (number, target, mode)."""
    found = []
    try:
        for fd in sorted(os.listdir(PROC / f"{pid}/fd"), key=int):
            flags = read(PROC / f"{pid}/fdinfo/{fd}").partition("flags:")[2].split()
            mode = ("read", "write", "read and write", "?")[int(flags[0], 8) & 3] if flags else "?"
            found.append((fd, os.readlink(PROC / f"{pid}/fd/{fd}"), mode))
    except OSError:  # the process has ended, or belongs to another user
        pass
    return found


def stacks(pid: int) -> str:
    gdb = shutil.which("gdb")
    if gdb is None:
        return "gdb is not installed: there are no stacks in user code."
    asked = [gdb, "-nx", "-batch", "-p", str(pid), "-ex", "thread apply all bt"]
    try:
        done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=GDB_SECONDS)
    except subprocess.TimeoutExpired:
        return f"gdb did not end within {GDB_SECONDS} seconds."
    return done.stdout if "#0" in done.stdout else done.stdout + done.stderr


def read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as error:
        return f"({error.strerror})"
