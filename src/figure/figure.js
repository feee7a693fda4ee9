// Shared by the pages of `Figure::page`, exported notebooks and JupyterLab.

/** Returns the figure with the width of its box, at most the width in its layout. */
function fitFigure(box, figure) {
  box.style.maxWidth = `${figure.layout.width}px`;
  // The wheel scrolls the page over a surface too. With Ctrl it zooms.
  box.addEventListener("wheel", event => {
    if (!event.ctrlKey && event.target.closest(".gl-container")) event.stopPropagation();
  }, {capture: true});
  const {width, ...layout} = figure.layout;
  return {...figure, layout: {...layout, autosize: true}, config: {...figure.config, responsive: true}};
}
