"""Runs the commands and the Python code of docs/interchange.md."""

import ast
import json
import re
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs/interchange.md"
# Packages of which the page says that they are one way among others: their code runs if they are installed.
OPTIONAL = {"matplotlib", "pandas", "vtkmodules"}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def imported(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def landscape():
    """Builds the program and returns its path."""
    command = ["cargo", "build", "--quiet", "--locked", "--bin", "landscape", "--message-format", "json"]
    lines = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(path for path in (json.loads(line).get("executable") for line in reversed(lines)) if path)


def test_the_pages_code_runs(tmp_path, monkeypatch):
    program = landscape()
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 4
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "landscape"
        subprocess.run([program, *arguments], check=True, capture_output=True)

    names, ran = {}, 0
    for code in blocks("python"):
        if all(find_spec(package) for package in OPTIONAL.intersection(imported(code))):
            exec(compile(code, PAGE, "exec"), names)
            ran += 1
    assert ran >= 7
