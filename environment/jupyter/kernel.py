"""The notebooks' kernel: kernel.py EVALUATOR CONNECTION_FILE

ipykernel speaks Jupyter's protocol, for every client. A child process, the evaluator, compiles and runs the cells.
"""

import re
import subprocess
import sys
import threading

import launch
from cell_output import CellOutput
from evaluator import Broken, Unstarted

PANIC = re.compile(r"\n?thread '[^\n]*' (?:\(\d+\) )?panicked at ([^\n]*):(\d+):\d+:\n(.*?)(?:\nnote: run with [^\n]*\n?)?$", re.S)
STDIN = re.compile(r"\bstdin\s*\(\s*\)")
# Brackets are counted outside of these.
IGNORED = re.compile(r"//[^\n]*|/\*.*?\*/|r(#*)\".*?\"\1|\"(?:\\.|[^\"\\])*\"|'(?:\\.[^']*|[^'\\])'", re.S)
PATIENCE_SECONDS = 1.5
# Clients wait for about a minute.
START_SECONDS = 40
STILL_RUNNING = (
    "The cell was asked to stop and still runs: it does not look for interrupts. Interrupt it again to end its process, "
    "which loses all variables, or let its loops call `progress::check()?`.\n"
)
PROCESS_ENDED = "The process that runs cells has ended{reason}. Variables are lost; functions, types and imports remain."
RESTARTED = "The process that runs cells was started again: variables of earlier cells are lost.\n"
NO_STDIN = "A cell cannot read standard input: it is empty. Write the value into the cell.\n"


def kernel_class():
    # Its import takes half a second, in which the evaluator starts.
    from ipykernel.kernelbase import Kernel

    class LandscapeKernel(Kernel):
        implementation = "loss-landscape"
        implementation_version = "0.1.0"
        banner = "Rust, with the crate loss-landscape"
        language_info = {
            "name": "rust",
            "mimetype": "text/rust",
            "file_extension": ".rs",
            "pygments_lexer": "rust",
            "codemirror_mode": "rust",
        }
        help_links = [{"text": "Rust's standard library", "url": "https://doc.rust-lang.org/stable/std/"}]
        lost = False  # whether the variables of earlier cells are lost

        def publish(self, kind, content):
            self.send_response(self.iopub_socket, kind, content)

        def show_error(self, text):
            self.publish("stream", {"name": "stderr", "text": text})

        async def kernel_info_request(self, stream, ident, parent):
            """Answers when cells can run, so that the time limit of the first cell does not include the start."""
            self.evaluator.starts_within(START_SECONDS)
            await super().kernel_info_request(stream, ident, parent)

        async def do_execute(self, code, silent, store_history=True, user_expressions=None, allow_stdin=False, **_):
            output = CellOutput((lambda *_: None) if silent else self.publish, self.execution_count)
            failures = []

            def hear(event):
                if "failed" in event or "ended" in event:
                    failures.append(event)
                else:
                    output.hear(event)

            if self.lost:
                self.show_error(RESTARTED)
                self.lost = False
            if STDIN.search(code):
                self.show_error(NO_STDIN)
            try:
                reply = self.evaluator.request({"execute": code}, hear)
                for event in reply.get("events", ()):
                    hear(event)
                error = self.error_in(reply, failures, code)
                if error is None and reply["display"]:
                    output.hear({"display": reply["display"]})
            except Broken as broken:
                error = ("KernelError", str(broken), [str(broken)])
            output.end()
            if error is None:
                return {"status": "ok", "execution_count": self.execution_count, "payload": [], "user_expressions": {}}
            name, message, traceback = error
            content = {"ename": name, "evalue": message, "traceback": traceback}
            if not silent:
                self.publish("error", content)
            return {"status": "error", "execution_count": self.execution_count, **content}

        def error_in(self, reply, failures, code):
            """The name, message and traceback of the error that ended a cell, or None."""
            interrupted = self.evaluator.interrupts
            ended = next((event["ended"] for event in failures if "ended" in event), None)
            failed = next((event for event in reversed(failures) if "failed" in event), None)
            if ended is not None or reply.get("name") == "ProcessEnded":
                self.lost = True
                reason = " because the cell was interrupted twice" if interrupted > 1 else f" ({described(ended)})"
                text = PROCESS_ENDED.format(reason=reason)
                return ("Interrupted" if interrupted > 1 else "ProcessEnded", text, [text])
            if failed is not None:
                message = failed["text"].strip("\n")
                if failed["failed"] == "panic":
                    message = panic_message(message, code, self.source())
                name = "Interrupted" if interrupted else {"panic": "Panic", "error": "Error"}[failed["failed"]]
                return (name, message, message.splitlines() or [name])
            if reply["status"] == "ok":
                return None
            if interrupted:
                return ("Interrupted", "interrupted", ["interrupted"])
            message = reply.get("message", "The code analysis failed. Run the cell again.")
            return (reply["name"], message, [reply.get("report", message)])

        def source(self):
            """The program that the last cell was compiled from."""
            try:
                return (launch.build_directory() / "cell/src/lib.rs").read_text().splitlines()
            except OSError:
                return []

        def _send_interrupt_children(self):
            """Called by the control thread, while the main thread waits for a cell."""
            if self.evaluator.interrupt() == 1 and self.evaluator.running:
                parent = self.get_parent("shell")
                threading.Timer(PATIENCE_SECONDS, self.warn_if_running, [parent]).start()

        def warn_if_running(self, parent):
            if self.evaluator.running and self.evaluator.interrupts == 1 and self.get_parent("shell") == parent:
                self.session.send(self.iopub_socket, "stream", {"name": "stderr", "text": STILL_RUNNING}, parent=parent)

        def analysis(self, kind, code, position):
            """Asks the code analysis about a position in code, in characters. Its positions are in bytes."""
            try:
                return self.evaluator.request({kind: code, "position": len(code[:position].encode())}, lambda event: None)
            except Broken:
                return {}

        async def do_complete(self, code, cursor_pos):
            found = self.analysis("complete", code, cursor_pos)
            characters = lambda key: len(code.encode()[: found[key]].decode(errors="ignore")) if key in found else cursor_pos
            start, end = characters("start"), characters("end")
            kinds = [
                {"start": start, "end": end, "text": text, "type": kind}
                for text, kind in zip(found.get("matches", []), found.get("kinds", []))
            ]
            return {
                "status": "ok",
                "matches": found.get("matches", []),
                "cursor_start": start,
                "cursor_end": end,
                "metadata": {"_jupyter_types_experimental": kinds},
            }

        async def do_inspect(self, code, cursor_pos, detail_level=0, omit_sections=()):
            word = re.compile(r"\w*").match(code, cursor_pos)
            end = word.end() if word else cursor_pos
            # After an opening bracket, the function before it is wanted.
            while end > 0 and not (code[end - 1].isalnum() or code[end - 1] == "_"):
                end -= 1
            found = self.analysis("inspect", code, end) if end else {}
            data = {"text/plain": found["text"], "text/html": found["html"]} if found.get("found") else {}
            return {"status": "ok", "found": bool(data), "data": data, "metadata": {}}

        async def do_is_complete(self, code):
            bare = IGNORED.sub("", code)
            depth = sum(bare.count(open_) - bare.count(close) for open_, close in ("()", "[]", "{}"))
            return {"status": "incomplete", "indent": "    " * depth} if depth > 0 else {"status": "complete"}

        async def do_shutdown(self, restart):
            self.evaluator.stop()
            return {"status": "ok", "restart": restart}

    return LandscapeKernel


def described(ended):
    return {"signal 11": "segmentation fault", "signal 6": "abort", "signal 9": "killed, perhaps for lack of memory"}.get(
        ended, ended or "without a reason"
    )


def panic_message(text, code, source):
    """The message of a panic, with the line of the cell if it is known. The compiled program has other line numbers."""
    found = PANIC.search(text)
    if not found:
        return text
    before, file, number, message = text[: found.start()], found[1], int(found[2]), found[3]
    where = ""
    if file.endswith("src/lib.rs") and number <= len(source):
        # A line of the program is a line of the cell, or a statement in it.
        part, numbered = source[number - 1].strip(), list(enumerate(code.splitlines(), 1))
        lines = [i for i, line in numbered if part == line.strip()] or [i for i, line in numbered if part in line]
        where = f" in line {lines[0]}" if part and len(lines) == 1 else ""
    elif not file.endswith("src/lib.rs"):
        where = f" at {file}:{number}"
    return f"{before}panicked{where}: {message}".strip()


def main(program, connection_file):
    try:
        evaluator = launch.start(program)
    except (OSError, subprocess.CalledProcessError) as error:
        evaluator = Unstarted(f"The kernel cannot compile cells: {error}. Install Rust with rustup and run environment/setup.sh.")
    from ipykernel.kernelapp import IPKernelApp

    kernel = kernel_class()
    kernel.evaluator = evaluator
    IPKernelApp.launch_instance(kernel_class=kernel, argv=["-f", connection_file, "--log-level=ERROR"])


if __name__ == "__main__":
    main(*sys.argv[1:])
