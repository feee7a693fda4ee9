"""JupyterLab with the kernel, in a real browser: "Run All" stops at an error, progress moves, the stop button keeps variables.

Waits have long limits, for slow machines. The tests leave pictures in the light and the dark theme in target/notebooks.
"""

import time
from contextlib import suppress

import pytest
from conftest import PROJECT, TOKEN, jupyterlab, new_page
from playwright.sync_api import TimeoutError

MINUTE = 60_000
# An interrupt takes about a tenth of a second; a busy machine with a browser needs more.
STOP_SECONDS = 5
PICTURES = PROJECT / "target/notebooks"

MODEL = "Mlp::new(&[2, 16, 2], Activation::Tanh, 0, &Device::Cpu)?"
SETTING = f"let data = two_moons(2_000, 0.1, 0, &Device::Cpu)?.to_dtype(DType::F32)?;\nlet model = {MODEL};"
TRAINING = "Trainer::adam(0.001).with_batch_size(20).with_epochs(1_000_000).fit(&model, &data, &data)?;"
IS_TRAINED = f"model.parameters().to_flat()? != {MODEL}.parameters().to_flat()?"
SLOW = """struct Slow;
impl LinearOperator for Slow {
    fn dim(&self) -> usize { 100 }
    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Ok(v.to_vec())
    }
}
Dense::from_operator(&Slow)?.dim()"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Starts JupyterLab in an empty directory. Returns its address and the directory."""
    folder = tmp_path_factory.mktemp("notebooks")
    with jupyterlab(folder, tmp_path_factory.mktemp("lab"), "--LabApp.expose_app_in_browser=True") as address:
        yield address, folder


@pytest.fixture
def opened(lab, browser, notebook):
    """Opens a notebook with some cells, and waits until its kernel is ready."""
    address, folder = lab
    pages = []

    def open_(name, *cells):
        path = notebook(name, *cells)
        path.rename(folder / path.name)
        page = new_page(browser)
        pages.append(page)
        page.goto(f"{address}lab/tree/{path.name}?token={TOKEN}&reset", timeout=3 * MINUTE)
        page.wait_for_function(
            """[...window.jupyterapp?.shell.widgets("main") ?? []].some(
                panel => panel.sessionContext?.isReady && panel.sessionContext.session?.kernel?.status === "idle")""",
            timeout=3 * MINUTE,
        )
        return page

    yield open_
    for page in pages:
        page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        page.context.close()


def run_all(page):
    start = "window.done = false; jupyterapp.commands.execute('notebook:run-all-cells').then(() => { window.done = true; })"
    page.evaluate(f"() => {{ {start} }}")


def await_run(page):
    page.wait_for_function("window.done", timeout=3 * MINUTE)


def prompts(page):
    return page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-prompt").all_text_contents()


def output(page, cell):
    return "".join(page.locator(".jp-Notebook .jp-CodeCell").nth(cell).locator(".jp-OutputArea-output").all_text_contents())


def watch(page, task):
    """Waits until a task has shown four states, each as one line."""
    states, deadline = set(), time.monotonic() + 120
    while len(states) < 4:
        shown = page.locator(".jp-OutputArea-output").all_text_contents()
        lines = [text for text in shown if text.strip().startswith(f"{task}: ")]
        assert len(lines) <= 1, shown
        states.update(lines)
        assert not page.evaluate("window.done") and time.monotonic() < deadline, (states, shown)
        page.wait_for_timeout(50)


def screenshot(page, name):
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"lab.{name}.png")


def screenshots(page, name):
    for theme in ("Dark", "Light"):
        page.evaluate("theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme}")
        page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=f"JupyterLab {theme}", timeout=MINUTE)
        page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=MINUTE)
        screenshot(page, f"{name}.{theme.lower()}")


def test_run_all_stops_at_an_error(opened):
    page = opened("stops", "1 + 1", 'println!("two");', 'Err::<(), _>("stopped here")?', "4", 'panic!("five");')
    run_all(page)
    await_run(page)
    screenshots(page, "stops")
    assert prompts(page) == ["[1]:", "[2]:", "[3]:", "[ ]:", "[ ]:"]
    assert [output(page, cell).strip() for cell in range(5)] == ["2", "two", "stopped here", "", ""]


def test_the_stop_button_keeps_variables(opened):
    page = opened("training", SETTING, TRAINING, IS_TRAINED)
    run_all(page)
    watch(page, "training")
    screenshots(page, "progress")
    started = time.monotonic()
    page.locator(".jp-NotebookPanel-toolbar [data-jp-item-name=interrupt] jp-button").click()
    await_run(page)
    assert time.monotonic() - started < STOP_SECONDS
    screenshots(page, "stopped")
    assert prompts(page) == ["[1]:", "[2]:", "[ ]:"]
    assert output(page, 1).strip() == "interrupted"
    page.locator(".jp-CodeCell .cm-content").nth(2).click()
    page.keyboard.press("Shift+Enter")
    page.locator(".jp-OutputArea-output", has_text="true").wait_for(timeout=MINUTE)


def test_progress_is_gone_when_the_cell_ends(opened):
    page = opened("slow", SLOW)
    run_all(page)
    watch(page, "dense matrix")
    await_run(page)
    screenshots(page, "done")
    assert output(page, 0).strip() == "100"


def test_completion_and_documentation(opened):
    page = opened("editor", f"{SETTING}\nlet objective = Objective::of(&model, &data, Loss::CrossEntropy)?;")
    run_all(page)
    await_run(page)
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    page.keyboard.type("objective.grad")
    # JupyterLab marks the editor as one that can complete after the last key, and ignores answers after five seconds.
    completion = page.locator(".jp-Completer-item", has_text="gradient_norm")
    for _ in range(10):
        page.locator(".jp-mod-active .jp-mod-completer-enabled").wait_for(timeout=MINUTE)
        page.keyboard.press("Tab")
        with suppress(TimeoutError):
            completion.wait_for(timeout=MINUTE / 10)
            break
    screenshot(page, "completion")
    completion.click()
    page.keyboard.press("Shift+Tab")
    page.locator(".jp-Tooltip", has_text="gradient_norm").wait_for(timeout=MINUTE)
    screenshot(page, "documentation")
    assert page.locator(".jp-CodeCell .cm-content").nth(1).text_content() == "objective.gradient_norm()"
