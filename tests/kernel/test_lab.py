"""JupyterLab with the kernel: `Run All` stops at an error, progress moves, and the stop button keeps variables."""

import re
import subprocess
import time

import pytest
from conftest import VENV
from test_browser import TOKEN, browser, new_page  # noqa: F401 (a fixture)

TRAINING = "Trainer::adam(0.001).with_batch_size(20).with_epochs(1_000_000).fit(&model, &data, &data)?;"
SETTING = """let data = two_moons(2_000, 0.1, 0, &Device::Cpu)?;
let model = Mlp::new(&[2, 16, 2], Activation::Tanh, 0, &Device::Cpu)?;
let data = data.to_dtype(DType::F32)?;"""


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


def test_the_stop_button_keeps_the_model(lab, browser, notebook, tmp_path):  # noqa: F811
    page = opened(lab, browser, notebook("training", SETTING, TRAINING, "model.parameters().len()"))
    run_all(page)
    line = page.locator(".jp-OutputArea-output", has_text="training: ")
    line.wait_for(timeout=60_000)
    seen = set()
    for _ in range(20):
        seen.add(line.last.text_content())
        page.wait_for_timeout(200)
    assert len(seen) > 3, seen
    page.screenshot(path=tmp_path / "progress.png")
    started = time.monotonic()
    page.evaluate("jupyterapp.commands.execute('notebook:interrupt-kernel')")
    await_prompt(page, 1, "[2]:")
    assert time.monotonic() - started < 2
    page.wait_for_timeout(1000)
    assert prompts(page)[2] == "[ ]:"
    page.locator(".jp-CodeCell").nth(2).click()
    page.evaluate("jupyterapp.commands.execute('notebook:run-cell')")
    page.locator(".jp-OutputArea-output", has_text="82").wait_for(timeout=30_000)
    page.screenshot(path=tmp_path / "stopped.png")
    page.context.close()
