"""The program that evaluates cells, as a child process: requests and replies are lines of JSON (see evaluator.rs)."""

import json
import os
import select
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path


class Broken(Exception):
    """The evaluator could not start, or has ended."""


class Unstarted:
    """Stands for an evaluator that could not start: each request says why."""

    interrupts = 0
    running = False

    def __init__(self, reason):
        self.reason = reason

    def request(self, request, hear):
        raise Broken(self.reason)

    def starts_within(self, seconds):
        pass

    def interrupt(self):
        return 0

    def stop(self):
        pass


class Evaluator:
    def __init__(self, program, environment, log, lock):
        """`log` is a file for messages of the evaluator itself. Its processes keep the file `lock` open."""
        self.log = Path(log)
        self.name = Path(program).name
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, pass_fds=(lock,)
            )
        self.cells = None  # the process that runs cells
        self.running = False
        self.interrupts = 0
        self.state = threading.Lock()
        self.ready = False

    def request(self, request, hear):
        """Sends a request, calls `hear` on each event before the reply, and returns the reply."""
        self.await_ready(hear)
        with self.state:
            # The cells of the start have run.
            self.running, self.interrupts = False, 0
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise Broken(self.reason()) from None
        try:
            return self.await_line("reply", hear)["reply"]
        finally:
            self.running = False

    def starts_within(self, seconds):
        """Waits until the evaluator is ready or broken, at most for some seconds."""
        if not self.ready:
            select.select([self.process.stdout], [], [], seconds)

    def await_ready(self, hear):
        if not self.ready:
            self.await_line("ready", hear)
            self.ready = True

    def await_line(self, key, hear):
        for line in self.process.stdout:
            event = json.loads(line)
            if "running" in event:
                self.begin(event["running"])
            elif "broken" in event:
                raise Broken(event["broken"])
            elif key in event:
                return event
            else:
                hear(event)
        raise Broken(self.reason())

    def begin(self, process):
        with self.state:
            self.cells, self.running = process, True
            if self.interrupts:  # while the cell was compiled
                self.signal(signal.SIGINT)

    def interrupt(self):
        """Asks a cell to stop, and ends the process that runs it if it was asked before. Returns how often it was asked."""
        with self.state:
            self.interrupts += 1
            if not self.running:
                for process in self.compilers():
                    with suppress(ProcessLookupError):
                        os.kill(process, signal.SIGTERM)
            else:
                self.signal(signal.SIGINT if self.interrupts == 1 else signal.SIGKILL)
            return self.interrupts

    def signal(self, number):
        if self.cells:
            with suppress(ProcessLookupError):
                os.kill(self.cells, number)

    def compilers(self):
        """The evaluator's descendants, without those that run cells: the guard, which is the same program, and its own."""
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                name, _, fields = stat.read_text().partition("(")[2].rpartition(") ")
                parent = int(fields.split()[1])
                if (parent, name) != (self.process.pid, self.name):
                    children.setdefault(parent, []).append(int(stat.parent.name))
        found, todo = [], children.get(self.process.pid, [])
        while todo:
            process = todo.pop()
            found.append(process)
            todo += children.get(process, [])
        return found

    def reason(self):
        last = self.log.read_text(errors="replace").strip().splitlines()[-20:]
        return "\n".join(["The program that evaluates cells has ended. Restart the kernel.", *last])

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
