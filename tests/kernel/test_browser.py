"""The notebooks in a real browser: JupyterLab draws their figures, and exported pages draw them offline."""

import re
import shutil
import subprocess
import time
import urllib.request
import warnings

import nbformat
import pytest
from conftest import PROJECT, VENV, run
from playwright.sync_api import sync_playwright

FIRST = "01_introduction_to_loss_landscapes"
NOTEBOOKS = sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
OUT = PROJECT / "target/notebooks"
TOKEN = "browser-test"


@pytest.fixture(scope="module")
def executed():
    for name in NOTEBOOKS:
        for suffix in (".ipynb", ".html"):
            (OUT / name).with_suffix(suffix).unlink(missing_ok=True)
    code, output = run(PROJECT / "environment/notebooks.sh")
    print(output)
    assert code == 0, output
    for line in output.splitlines():
        if line.startswith("[notebooks] warning: "):
            warnings.warn(line, stacklevel=1)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "Chromium is missing: install it (Debian: apt install chromium)"
    flags = ["--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def new_page(browser, **settings):
    page = browser.new_context(viewport={"width": 1200, "height": 1000}, **settings).new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and page.problems.append(message.text))
    return page


def cells_with_figures(name):
    cells = nbformat.read(OUT / f"{name}.ipynb", as_version=4).cells
    return sum(any(PLOTLY in output.get("data", {}) for output in cell.get("outputs", [])) for cell in cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_exported_pages_draw_figures_offline(executed, browser, name):
    figures = cells_with_figures(name)
    assert figures > 0
    page = new_page(browser, offline=True)
    page.goto((OUT / f"{name}.html").as_uri())
    drawn = "document.querySelectorAll('.js-plotly-plot:has(.main-svg)').length"
    page.wait_for_function(f"{drawn} >= {figures}")
    assert page.locator(".js-plotly-plot").count() == figures
    assert page.problems == []
    if name == FIRST:
        assert page.locator(".js-plotly-plot .contourlayer path").count() > 5
        assert page.locator(".js-plotly-plot .gl-container canvas").count() > 0
    page.screenshot(path=OUT / f"{name}.page.png", full_page=True)
    page.context.close()


@pytest.fixture(scope="module")
def lab(executed):
    """Starts JupyterLab on the executed notebooks and returns its address."""
    server = subprocess.Popen(
        [VENV / "bin/jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
         f"--IdentityProvider.token={TOKEN}", f"--notebook-dir={OUT}"],
        cwd=OUT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    address = None
    for line in server.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
            address = found[0]
            break
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}api?token={TOKEN}")
            break
        except OSError:
            time.sleep(0.2)
    yield address
    server.terminate()
    server.wait(timeout=30)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_jupyterlab_draws_every_figure(lab, browser, name):
    page = new_page(browser)
    page.goto(f"{lab}lab/tree/{name}.ipynb?token={TOKEN}&reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    expected = cells_with_figures(name)
    figures = page.locator(".jp-RenderedPlotly")
    # JupyterLab creates cells when they become visible. A figure is an image until the mouse is over it.
    for at in range(0, 40_000, 500):
        page.evaluate(f"document.querySelector('.jp-WindowedPanel-outer').scrollTop = {at}")
        page.wait_for_timeout(50)
        if figures.count() == expected:
            break
    assert figures.count() == expected
    for figure in figures.all():
        figure.scroll_into_view_if_needed()
        figure.hover(position={"x": 40, "y": 20})
        figure.locator(".main-svg").first.wait_for()
    if name == FIRST:
        for kind, drawn in (("contour", ".contourlayer path"), ("surface", ".gl-container canvas")):
            plot = page.locator(".js-plotly-plot", has=page.locator(drawn)).first
            plot.scroll_into_view_if_needed()
            assert plot.is_visible()
            page.screenshot(path=OUT / f"jupyterlab.{kind}.png")
    page.screenshot(path=OUT / f"{name}.jupyterlab.png")
    assert page.problems == []
    page.context.close()
