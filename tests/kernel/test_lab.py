"""JupyterLab with the kernel: `Run All` stops at an error."""

import re
import subprocess

import pytest
from conftest import VENV
from test_browser import TOKEN, browser, new_page  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Starts JupyterLab in an empty directory. Returns its address and the directory."""
    folder = tmp_path_factory.mktemp("lab")
    server = subprocess.Popen(
        [VENV / "bin/jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
         "--LabApp.expose_app_in_browser=True", f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={folder}"],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
    yield address, folder
    server.terminate()
    server.wait(timeout=30)


def opened(lab, browser, path):  # noqa: F811
    address, folder = lab
    path.rename(folder / path.name)
    page = new_page(browser)
    page.goto(f"{address}lab/tree/{path.name}?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.wait_for_function("document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle'", timeout=60_000)
    return page


def run_all(page):
    page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")


def await_prompt(page, index, text, timeout=60_000):
    page.wait_for_function(
        "([i, text]) => document.querySelectorAll('.jp-Notebook .jp-CodeCell .jp-InputPrompt')[i]?.textContent === text",
        arg=[index, text], timeout=timeout,
    )


def prompts(page):
    return page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").all_text_contents()


def test_run_all_stops_at_an_error(lab, browser, notebook, tmp_path):  # noqa: F811
    page = opened(lab, browser, notebook("stops", "1 + 1", 'println!("two");', 'Err::<(), _>("stopped here")?', "4", 'panic!("five");'))
    run_all(page)
    await_prompt(page, 2, "[3]:")
    page.wait_for_timeout(1500)
    assert prompts(page) == ["[1]:", "[2]:", "[3]:", "[ ]:", "[ ]:"]
    assert "stopped here" in page.locator(".jp-OutputArea-output").last.text_content()
    page.screenshot(path=tmp_path / "stops.png")
    page.context.close()
