"""Runs builds of cargo and shows one line about all of them. Everything that cargo prints goes to log files."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

# Cargo's own bar, which it prints again for each package that it has finished.
BAR = re.compile(r"\s*Building \[[=> ]*\] (\d+)/(\d+)")
# What cargo prints about work that succeeds.
STATUS = re.compile(
    r"\s*(Adding|Blocking|Building|Checking|Compiling|Downloaded|Downloading|Finished|Fresh|Locking|Unpacking|Updating|Waiting)\b"
)
# Cargo prints its bar to a pipe too.
SETTINGS = {
    "CARGO_TERM_COLOR": "never",
    "CARGO_TERM_PROGRESS_WHEN": "always",
    "CARGO_TERM_PROGRESS_WIDTH": "200",
    "CARGO_TERM_QUIET": "false",
    "CARGO_TERM_VERBOSE": "false",
}
# The linker's message if rustc reused compiled parts that do not match, as can happen after a build was killed.
MISMATCH = "undefined hidden symbol"
EVERY_SECONDS = 60
# An estimate from the first packages says little: they are small.
ESTIMATE_AFTER_SECONDS = 20
# In this time cargo goes over the packages that are already compiled.
FRESH_SECONDS = 10
# The fraction of the time that a fraction of the packages takes, from builds of this crate. The largest come last.
TIME_SPENT = ((0, 0), (0.5, 0.25), (0.75, 0.4), (0.95, 0.7), (1, 0.8))


@dataclass
class Build:
    """A build of cargo. `name` is shown, as in "the kernel"."""

    name: str
    command: list
    log: Path
    folder: Path = Path("/")
    environment: dict = field(default_factory=dict)
    done: int = 0
    fresh: int = 0
    total: int = 0
    started: float = 0
    code: int | None = None
    process: subprocess.Popen | None = None

    def run(self) -> None:
        """Runs cargo, and once more without rustc's incremental data if they are damaged. Meanwhile another thread can read
        `done` and `total`."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        code = self.run_once()
        if code > 0 and MISMATCH in self.log.read_text() and "CARGO_TARGET_DIR" in self.environment:
            for data in Path(self.environment["CARGO_TARGET_DIR"]).glob("**/incremental"):
                shutil.rmtree(data, ignore_errors=True)
            code = self.run_once()
        self.code = code

    def run_once(self) -> int:
        environment = {**os.environ, **self.environment, **SETTINGS}
        with self.log.open("w", buffering=1) as log:
            log.write(f"{' '.join(map(str, self.command))}\n")
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            try:
                for line in lines(self.process.stdout):
                    self.hear(line, log)
            finally:
                code = self.process.wait()
        return code

    def hear(self, line: str, log) -> None:
        if bar := BAR.match(line):
            self.done, self.total = int(bar[1]), int(bar[2])
            if time.monotonic() - self.started < FRESH_SECONDS:
                self.fresh = self.done
        elif not line.isspace():
            log.write(f"{line.rstrip()}\n")

    def messages(self) -> str:
        """Cargo's JSON messages about a build that has succeeded."""
        command = [*self.command, "--message-format=json", "--quiet"]
        return subprocess.run(
            command, cwd=self.folder, env={**os.environ, **self.environment}, check=True, capture_output=True, text=True
        ).stdout

    def errors(self) -> str:
        """What cargo printed about the failure."""
        printed = self.log.read_text().splitlines()[1:]
        return "\n".join(line for line in printed if not STATUS.match(line))

    def progress(self) -> str:
        return f"{self.name}: {self.done} of {self.total} packages" if self.total else self.name


def lines(stream):
    """The lines of a byte stream. A carriage return ends a line too."""
    rest = b""
    while chunk := stream.read1():
        *whole, rest = re.split(rb"[\r\n]", rest + chunk)
        yield from (line.decode(errors="replace") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def estimate(builds: list[Build]) -> str:
    """The time left until all builds have ended, in words. Empty if it cannot be estimated yet."""
    total = sum(build.total - build.fresh for build in builds)
    if not total or not all(build.total for build in builds):
        return ""
    done = sum(build.done - build.fresh for build in builds)
    return time_left(done / total, time.monotonic() - min(build.started for build in builds))


def time_left(done: float, seconds: float) -> str:
    if seconds < ESTIMATE_AFTER_SECONDS or done <= 0:
        return ""
    left = seconds / time_spent(done) - seconds
    return f", about {round(left / 60)} min left" if left >= 90 else ", about a minute left"


def time_spent(done: float) -> float:
    for (x, y), (next_x, next_y) in zip(TIME_SPENT, TIME_SPENT[1:]):
        if done <= next_x:
            break
    return y + (next_y - y) * (done - x) / (next_x - x)


class Line:
    """A line on standard output that is updated in place on a terminal, and printed once a minute elsewhere."""

    def __init__(self):
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.printed = time.monotonic()

    def show(self, text: str) -> None:
        if self.terminal:
            width = shutil.get_terminal_size().columns
            print(f"\r\033[K{text[: width - 1]}", end="", flush=True)
        elif time.monotonic() - self.printed >= EVERY_SECONDS:
            print(text, flush=True)
            self.printed = time.monotonic()

    def end(self) -> None:
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def run(builds: list[Build], at_once: bool) -> None:
    """Runs builds, all at once or one after the other. Exits with cargo's errors if one fails."""
    for group in [builds] if at_once else [[build] for build in builds]:
        run_together(group)


def run_together(builds: list[Build]) -> None:
    threads = [threading.Thread(target=build.run, daemon=True) for build in builds]
    line = Line()
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads) and not any(build.code for build in builds):
            time.sleep(0.2)
            line.show(f"[set-up] building {', '.join(build.progress() for build in builds)}{estimate(builds)} …")
    finally:
        line.end()
        failed = [build for build in builds if build.code]
        for build in builds:
            if build.code is None and build.process:
                build.process.terminate()
        for thread in threads:
            thread.join()
    for build in failed:
        print(build.errors(), file=sys.stderr)
        sys.exit(f"[set-up] cargo could not build {build.name}; its errors are above, and all its output is in {build.log}.")
