"""What a cell shows: text, values and progress, as messages of Jupyter."""

import html
import json
import tempfile
import uuid
from pathlib import Path

# A cell that prints more than this is cut; a file has all of its text.
LINES = 5_000
CHARACTERS = 1_000_000


class CellOutput:
    def __init__(self, send, count):
        """`send(message_type, content)` publishes a message. `count` is the number of the cell."""
        self.send = send
        self.count = count
        self.value = None  # the last value, which is the cell's result if nothing follows
        self.bars = {}  # id of a task -> display id
        self.free = []  # display ids of tasks that have ended, for the next ones
        self.lines = self.characters = 0
        self.head, self.rest = [], None
        self.problem = None

    def hear(self, event):
        """Shows an event of the evaluator."""
        if "stream" in event:
            self.attempt(self.text, event["stream"], event["text"])
        elif "display" in event:
            self.flush()
            self.value = bundle(event["display"])
        elif "progress" in event:
            self.attempt(self.progress, event["progress"])

    def attempt(self, show, *arguments):
        """A cell can print what cannot be shown, such as a value that is not JSON. All else is shown."""
        try:
            show(*arguments)
        except Exception as problem:
            self.problem = problem

    def text(self, stream, text):
        self.flush()
        kept = text
        if self.rest is None:
            self.head.append(text)
            self.lines += text.count("\n")
            self.characters += len(text)
            if self.lines <= LINES and self.characters <= CHARACTERS:
                self.send("stream", {"name": stream, "text": text})
                return
            self.rest = self.open_file()
            kept = "".join(self.head)
            shown = text[: max(0, len(text) - (self.characters - CHARACTERS))].splitlines(keepends=True)
            shown = shown[: max(0, len(shown) - (self.lines - LINES))]
            self.send("stream", {"name": stream, "text": "".join(shown)})
            self.head.clear()
        self.rest.write(kept)

    def open_file(self):
        folder = Path(tempfile.mkdtemp(prefix="loss-landscape-"))
        return (folder / f"cell-{self.count}.txt").open("w", errors="replace")

    def progress(self, state):
        """One line that is updated in place, and removed when the task has ended."""
        known = self.bars.get(state["id"])
        if state["done"]:
            if known is not None:
                self.remove(state["id"])
        elif known is None and not self.free:
            self.flush()
            known = self.bars[state["id"]] = uuid.uuid4().hex
            self.send("display_data", shown_progress(state, known))
        else:
            known = self.bars[state["id"]] = known or self.free.pop()
            self.send("update_display_data", shown_progress(state, known))

    def remove(self, task):
        display_id = self.bars.pop(task)
        self.free.append(display_id)
        empty = {"data": {"text/plain": ""}, "metadata": {}, "transient": {"display_id": display_id}}
        self.send("update_display_data", empty)

    def flush(self):
        """Shows the value before the next output."""
        value, self.value = self.value, None
        if value:
            self.attempt(self.send, "display_data", {"data": value, "metadata": {}})

    def end(self):
        """Shows the result, and removes what is left of progress."""
        if self.value:
            self.attempt(self.send, "execute_result", {"execution_count": self.count, "data": self.value, "metadata": {}})
        for task in list(self.bars):
            self.remove(task)
        if self.rest:
            self.attempt(self.rest.close)
            notice = f"… The output is longer than {LINES:,} lines or {CHARACTERS:,} characters. All of it is in {self.rest.name}\n"
            self.send("stream", {"name": "stderr", "text": notice})
        if self.problem:
            notice = f"Some of the cell's output cannot be shown: {type(self.problem).__name__}: {self.problem}\n"
            self.send("stream", {"name": "stderr", "text": notice})


def bundle(contents):
    """Values by MIME type, with JSON parsed."""
    data = {}
    for mime, content in contents.items():
        if mime.endswith("json"):
            try:
                content = json.loads(content)
            except ValueError:
                pass
        data[mime] = content
    return data


def shown_progress(state, display_id):
    left = f", {duration(state['left_seconds'])} left" if state["left_seconds"] is not None else ""
    line = f"{state['task']}: {state['status']}{left}"
    bar = ""
    if state["fraction"] is not None:
        style = "width: 12em; margin-left: 0.5em; vertical-align: middle"
        bar = f'<progress value="{state["fraction"]:.4f}" max="1" style="{style}"></progress>'
    data = {"text/plain": line, "text/html": f'{bar}<span style="margin-left: 0.5em">{html.escape(line)}</span>'}
    return {"data": data, "metadata": {}, "transient": {"display_id": display_id}}


def duration(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
