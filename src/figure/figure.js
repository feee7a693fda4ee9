// Shared by the pages of `Figure::page`, exported notebooks and JupyterLab.

/** Returns the figure with the width of its box, at most the width in its layout. */
function fitFigure(box, figure) {
  box.style.maxWidth = `${figure.layout.width}px`;
  // Over a surface, the wheel scrolls the page. With Ctrl it zooms.
  box.addEventListener("wheel", event => {
    if (!event.ctrlKey && event.target.closest(".gl-container")) event.stopPropagation();
  }, {capture: true});
  const {width, ...layout} = figure.layout;
  // A surface is as large as its height allows. From further away it also fits into a narrow box.
  const narrow = Math.min(1, box.clientWidth / width) || 1;
  const camera = layout.scene?.camera;
  if (camera?.eye) {
    const eye = Object.fromEntries(Object.entries(camera.eye).map(([axis, at]) => [axis, at / narrow]));
    layout.scene = {...layout.scene, camera: {...camera, eye}};
  }
  return {...figure, layout: {...layout, autosize: true}, config: {...figure.config, responsive: true}};
}
