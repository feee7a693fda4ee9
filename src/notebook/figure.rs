//! Figures as plotly's JSON, HTML and PNG.

mod png;

use super::table::escape;
use super::{Bundle, Show};
use crate::error::Result;
use crate::figure::{Chart, Figure};

/// plotly's JSON for JupyterLab, HTML for exported pages, PNG for previews in repositories.
///
/// The HTML uses the page's plotly.js, which the project's export templates include; pages without plotly.js show the image.
/// There is no image if kaleido is not installed.
impl Show for Figure {
    fn bundle(&self) -> Result<Bundle> {
        let json = self.json();
        let image = png::png(&json);
        let mut bundle = Bundle::text(format!("Figure: {}", self.title()))
            .with("application/vnd.plotly.v1+json", json.to_string())
            .with("text/html", html(self.title(), &json, image.as_deref()));
        if let Some(image) = image {
            bundle = bundle.with("image/png", image);
        }
        Ok(bundle)
    }

    fn inline(&self) -> Result<String> {
        Ok(format!("Figure: {}", self.title()))
    }
}

impl Show for Chart {
    fn bundle(&self) -> Result<Bundle> {
        self.figure().bundle()
    }

    fn inline(&self) -> Result<String> {
        self.figure().inline()
    }
}

fn html(title: &str, json: &serde_json::Value, image: Option<&str>) -> String {
    let title = escape(title);
    let fallback = match image {
        Some(image) => format!(r#"<img alt="{title}" src="data:image/png;base64,{image}">"#),
        None => format!("{title} (figure; this page has no plotly.js)"),
    };
    // A tag could end the script element.
    let json = json.to_string().replace('<', r"\u003c");
    format!(
        r#"<div>{fallback}</div>
<script>(function (script) {{
  if (!script) return;
  const figure = {json};
  const box = script.previousElementSibling;
  const draw = () => {{
    if (!window.Plotly) return;
    box.replaceChildren();
    window.Plotly.newPlot(box, figure);
  }};
  if (document.readyState === "complete") draw(); else window.addEventListener("load", draw);
}})(document.currentScript);</script>"#
    )
}
