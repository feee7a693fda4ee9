"""The notebooks in a real browser: JupyterLab draws their figures, and exported pages draw them offline."""

import warnings

import nbformat
import pytest
from conftest import PROJECT, TOKEN, jupyterlab, new_page, run

FIRST = "01_introduction_to_loss_landscapes"
NOTEBOOKS = sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
PLOTLY = "application/vnd.plotly.v1+json"
OUT = PROJECT / "target/notebooks"


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


def cells_with_figures(name):
    cells = nbformat.read(OUT / f"{name}.ipynb", as_version=4).cells
    return sum(any(PLOTLY in output.get("data", {}) for output in cell.get("outputs", [])) for cell in cells)


def check_wheel(page, surface, outer):
    """The wheel over a surface scrolls the page. With Ctrl it zooms."""
    camera = "plot => plot._fullLayout.scene._scene.getCamera().eye.x"
    surface.scroll_into_view_if_needed()
    for ctrl in (False, True):
        surface.hover(position={"x": 250, "y": 200})
        before, top = surface.evaluate(camera), outer.evaluate("e => e.scrollTop")
        if ctrl:
            page.keyboard.down("Control")
        page.mouse.wheel(0, -40)
        page.wait_for_timeout(500)
        if ctrl:
            page.keyboard.up("Control")
        zoomed = abs(surface.evaluate(camera) - before) > 1e-3
        scrolled = outer.evaluate("e => e.scrollTop") != top
        assert (zoomed, scrolled) == (ctrl, not ctrl)


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
        surface = page.locator(".js-plotly-plot", has=page.locator(".gl-container canvas")).first
        check_wheel(page, surface, page.locator("html"))
    page.screenshot(path=OUT / f"{name}.page.png", full_page=True)
    page.set_viewport_size({"width": 600, "height": 1000})
    page.wait_for_function("[...document.querySelectorAll('.js-plotly-plot')].every(plot => plot._fullLayout.width < 600)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 600
    page.context.close()


@pytest.fixture(scope="module")
def lab(executed, tmp_path_factory):
    """Starts JupyterLab on the executed notebooks and returns its address."""
    with jupyterlab(OUT, tmp_path_factory.mktemp("lab")) as address:
        yield address


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
            if kind == "surface":
                check_wheel(page, plot, page.locator(".jp-WindowedPanel-outer"))
            page.screenshot(path=OUT / f"jupyterlab.{kind}.png")
    page.screenshot(path=OUT / f"{name}.jupyterlab.png")
    page.set_viewport_size({"width": 700, "height": 1000})
    fits = "plot => plot._fullLayout.width <= plot.parentElement.clientWidth"
    for plot in page.locator(".jp-RenderedPlotly.js-plotly-plot").all():
        page.wait_for_function(fits, arg=plot.element_handle())
    assert page.problems == []
    page.context.close()
