//! Figures as plotly's JSON and a PNG.

use super::{Bundle, Show};
use crate::error::Result;
use crate::figure::{Chart, Figure, image};

/// Environment variable: 0 leaves the images out.
const IMAGES: &str = "LOSS_LANDSCAPE_IMAGES";

/// Pixels of an image per pixel of the figure.
const SCALE: f64 = 2.0;

/// Whether cells have images: in the project's kernel, unless the variable leaves them out.
fn has_images() -> bool {
    std::env::var_os(image::PLOTLY_JS).is_some()
        && std::env::var(IMAGES).map_or(true, |images| images != "0")
}

/// Starts the program that draws images, because it takes one to two seconds.
pub(super) fn start_in_background() {
    if has_images() {
        image::start_in_background();
    }
}

/// plotly's JSON for JupyterLab and exported pages, PNG for viewers that show only images.
///
/// There is no image if neither Chrome, Chromium nor kaleido is installed, or if `LOSS_LANDSCAPE_IMAGES=0`.
impl Show for Figure {
    fn bundle(&self) -> Result<Bundle> {
        let json = self.json();
        let mut bundle = Bundle::text(format!("Figure: {}", self.title()))
            .with("application/vnd.plotly.v1+json", json.to_string());
        if has_images()
            && let Some(image) = image::notebook_png(&json, SCALE)
        {
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
