// An extension of JupyterLab without plugins: it changes how plotly's extension draws figures.
const FIGURE = "application/vnd.plotly.v1+json";

async function changeRenderer() {
  const module = await window._JUPYTERLAB["jupyterlab-plotly"].get("./mimeExtension");
  const renderer = module().RenderedPlotly.prototype;

  // plotly's extension shows the image until the mouse is over it.
  const {updateImage, createGraph} = renderer;
  renderer.updateImage = function (image) {
    updateImage.call(this, image);
    const style = this.node.querySelector(".plot-img").style;
    style.width = `${this._model.data[FIGURE].layout.width}px`;
    style.maxWidth = "100%";
  };

  renderer.createGraph = function (model) {
    const figure = fitFigure(this.node, model.data[FIGURE]);
    // Without `setData`, plotly's extension would replace the image in the notebook.
    return createGraph.call(this, {data: {...model.data, [FIGURE]: figure}, setData() {}});
  };
  return () => [];
}

(window._JUPYTERLAB ??= {})["loss-landscape"] = {init() {}, get: changeRenderer};
