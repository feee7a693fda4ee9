"""Copies the executed notebooks from target/notebooks/ to notebooks/, for previews without execution."""

from pathlib import Path

import nbformat

PROJECT = Path(__file__).parent.parent


def thin(book):
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            # A line of progress is empty after its task.
            cell.outputs = [output for output in cell.outputs if output.get("data") != {"text/plain": ""}]
    return book


if __name__ == "__main__":
    for source in sorted((PROJECT / "notebooks").glob("*.ipynb")):
        executed = PROJECT / "target/notebooks" / source.name
        nbformat.write(thin(nbformat.read(executed, as_version=4)), source)
        print(f"{source.relative_to(PROJECT)}: {source.stat().st_size // 1024} KiB")
