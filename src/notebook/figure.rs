//! Figures as plotly's JSON and a PNG.

mod png;

use super::{Bundle, Show};
use crate::error::Result;
use crate::figure::{Chart, Figure};

pub(super) use png::start_in_background;

/// plotly's JSON for JupyterLab and exported pages, PNG for viewers that show only images.
///
/// There is no image if neither Chrome, Chromium nor kaleido is installed, or if `LOSS_LANDSCAPE_IMAGES=0`.
impl Show for Figure {
    fn bundle(&self) -> Result<Bundle> {
        let json = self.json();
        let mut bundle = Bundle::text(format!("Figure: {}", self.title()))
            .with("application/vnd.plotly.v1+json", json.to_string());
        if let Some(image) = png::png(&json) {
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
