//! Figures as files.

use std::path::Path;

use super::Figure;
use super::image::{self, ImageFormat};
use crate::error::{Error, Result};
use crate::files::{WRITABLE, check_writable, write_atomically};

/// File format of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FigureFormat {
    /// Pixels, for slides and documents.
    Png,
    /// Vector graphics, for web pages and drawing programs. Surfaces are pixels inside.
    Svg,
    /// Vector graphics, for papers. Surfaces are pixels inside.
    Pdf,
    /// An interactive page of about 7 MB that needs no network and no other file.
    Html,
}

impl FigureFormat {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Png, Self::Svg, Self::Pdf, Self::Html];

    /// File extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
            Self::Pdf => "pdf",
            Self::Html => "html",
        }
    }

    fn of_path(path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let mut formats = Self::ALL.into_iter();
        formats
            .find(|format| extension == format.extension())
            .ok_or_else(|| {
                let problem = match extension.is_empty() {
                    true => "has no extension".to_owned(),
                    false => format!("has the unknown extension .{}", extension.display()),
                };
                Error::file(
                    path,
                    problem,
                    "A figure is saved as .png, .svg, .pdf or .html",
                )
            })
    }
}

/// Starts the browser that draws PNG, SVG and PDF files, so that a missing one is an error before long work and not after it.
///
/// # Errors
/// Chrome or Chromium is not installed.
pub fn require_images() -> Result<()> {
    image::require_program()
}

impl Figure {
    /// Writes the figure to a .png, .svg, .pdf or .html file. Images need an installed Chrome or Chromium.
    ///
    /// A PNG has 300 dots per inch: 3.125 pixels per pixel of the figure, unless [`Figure::with_scale`] changes that. An HTML page
    /// is interactive and needs no network. A file at `path` is replaced as a whole; on an error it stays as it is.
    ///
    /// ```
    /// # use loss_landscape::ndarray::array;
    /// # use loss_landscape::prelude::*;
    /// # let spectrum = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?.eigen()?;
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("spectrum.html");
    /// let figure = figure::spectrum(&spectrum);
    /// figure.save(&path)?; // such as "spectrum.html"
    /// let error = figure.save("spectrum.gif").unwrap_err();
    /// assert!(error.to_string().contains("unknown extension .gif"));
    /// # #[cfg(any())] {
    /// // 1800 × 1200 pixels:
    /// figure.with_size(900, 600).with_scale(2.0).save("spectrum.png")?;
    /// # }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Another extension; the directory is missing or not writable; no browser is installed, or it fails; a size or a scale of 0, or
    /// a PNG with a side of more than 16,384 pixels.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let format = FigureFormat::of_path(path)?;
        let layout = &self.json["layout"];
        let is_empty = |side: &str| layout[side].as_u64() == Some(0);
        if is_empty("width") || is_empty("height") || !(self.scale.is_finite() && self.scale > 0.0)
        {
            return Err(Error::invalid(format!(
                "width, height and scale of a figure must be positive and finite, found {} × {} and scale {}",
                layout["width"], layout["height"], self.scale
            )));
        }
        check_writable(path, WRITABLE)?;
        let draw = |format| image::draw(&self.json(), format, self.scale);
        let bytes = match format {
            FigureFormat::Html => self.page().into_bytes(),
            FigureFormat::Png => draw(ImageFormat::Png)?,
            FigureFormat::Svg => draw(ImageFormat::Svg)?,
            FigureFormat::Pdf => draw(ImageFormat::Pdf)?,
        };
        write_atomically(path, WRITABLE, |part| std::fs::write(part, &bytes))
    }
}
