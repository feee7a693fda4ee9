//! Images of figures, drawn by a browser that serves the whole session.

mod base64;
mod chrome;
mod kaleido;

use std::process::Command;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use chrome::Chrome;
use kaleido::Kaleido;
use plotly::Plot;
use serde_json::{Value, json};

use super::{HEIGHT, TOP_MARGIN, WIDTH};
use crate::error::{Error, Result};
use crate::progress;

/// Environment variable with the path of plotly.js. Set by the project's kernel.
pub(crate) const PLOTLY_JS: &str = "LOSS_LANDSCAPE_PLOTLY_JS";

/// Figures take less than a second, surfaces a few seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest side of a PNG in pixels: the limit of a browser's canvas.
const MAX_PIXELS: f64 = 16_384.0;

/// File format of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    Png,
    Svg,
    Pdf,
}

impl ImageFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
            Self::Pdf => "pdf",
        }
    }
}

/// The image to draw. The size is in pixels of the figure.
#[derive(Clone, Copy, Debug)]
struct Drawing {
    format: ImageFormat,
    width: u64,
    height: u64,
    /// Pixels of a PNG per pixel of the figure.
    scale: f64,
}

impl Drawing {
    /// Options of `Plotly.toImage` and of kaleido.
    fn options(&self) -> Value {
        let scale = match self.format {
            ImageFormat::Png => self.scale,
            ImageFormat::Svg | ImageFormat::Pdf => 1.0,
        };
        json!({"format": self.format.name(), "width": self.width, "height": self.height, "scale": scale})
    }
}

/// A running program that draws figures.
trait Painter: Send {
    /// Returns an SVG as text, other formats in base64, or `None` after an error.
    fn draw(&mut self, figure: &Value, drawing: Drawing) -> Option<String>;
}

/// The program, if it runs.
static PAINTER: Mutex<Option<Box<dyn Painter>>> = Mutex::new(None);

/// Starts an installed Chrome or Chromium, or else kaleido. Returns `None` if there is neither.
fn start() -> Option<Box<dyn Painter>> {
    let path = std::env::var_os(PLOTLY_JS);
    let installed = path
        .as_ref()
        .and_then(|path| std::fs::read_to_string(path).ok());
    let plotly_js = installed.unwrap_or_else(embedded_plotly_js);
    match Chrome::start(&plotly_js) {
        Some(chrome) => Some(Box::new(chrome)),
        None => Some(Box::new(Kaleido::start(path?.as_ref())?)),
    }
}

/// plotly.js from the crate, for programs without the kernel.
fn embedded_plotly_js() -> String {
    let scripts = Plot::offline_js_sources();
    let start = scripts.find('>').map_or(0, |at| at + 1);
    let end = scripts.find("</script>").unwrap_or(scripts.len());
    scripts[start..end].to_owned()
}

/// Interrupts of the kernel reach its whole process group. They must not end the program.
fn in_own_group(command: &mut Command) -> &mut Command {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command
}

/// Starts the program in the background, because it takes one to two seconds.
pub(crate) fn start_in_background() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(require_program);
    });
}

/// Starts the program that draws images, unless it runs.
///
/// # Errors
/// No program is installed.
pub(crate) fn require_program() -> Result<()> {
    let mut painter = PAINTER.lock().unwrap_or_else(PoisonError::into_inner);
    started(&mut painter).map(drop)
}

fn started(painter: &mut Option<Box<dyn Painter>>) -> Result<&mut Box<dyn Painter>> {
    if painter.is_none() {
        *painter = start();
    }
    painter.as_mut().ok_or_else(|| {
        Error::invalid(
            "images of figures need a browser, and none of google-chrome, google-chrome-stable, chromium and \
             chromium-browser starts: install Chrome or Chromium, or save the figure as .html",
        )
    })
}

/// Draws the figure as a base64 PNG for a notebook. Returns `None` if no program can draw it; after a failure, no further
/// figure is drawn, because each could take until the time-out.
pub(crate) fn notebook_png(figure: &Value, scale: f64) -> Option<String> {
    static FAILED: Mutex<bool> = Mutex::new(false);
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if *failed {
        return None;
    }
    if require_program().is_err() {
        *failed = true;
        return None;
    }
    let image = draw_encoded(figure, ImageFormat::Png, scale).ok();
    if image.is_none() {
        *failed = true;
        progress::print("note: a figure could not be drawn; figures have no image from now on");
    }
    image
}

/// Draws the figure with `scale` pixels of a PNG per pixel of the figure. SVG and PDF have no pixels.
///
/// # Errors
/// No program is installed or it fails; a PNG would be too large.
pub(super) fn draw(figure: &Value, format: ImageFormat, scale: f64) -> Result<Vec<u8>> {
    let image = draw_encoded(figure, format, scale)?;
    match format {
        ImageFormat::Svg => Ok(image.into_bytes()),
        ImageFormat::Png | ImageFormat::Pdf => base64::decode(&image).ok_or_else(failed),
    }
}

fn failed() -> Error {
    Error::invalid(
        "the browser could not draw the figure within 30 seconds: save it as .html, or with fewer points",
    )
}

fn draw_encoded(figure: &Value, format: ImageFormat, scale: f64) -> Result<String> {
    let layout = &figure["layout"];
    let [width, height] = [("width", WIDTH), ("height", HEIGHT)]
        .map(|(side, default)| layout[side].as_u64().unwrap_or(default as u64));
    let longest = scale * width.max(height) as f64;
    if format == ImageFormat::Png && longest > MAX_PIXELS {
        return Err(Error::invalid(format!(
            "a PNG has at most {MAX_PIXELS} pixels in each direction, found {longest:.0}: \
             use a smaller scale, or save the figure as .svg or .pdf"
        )));
    }
    let drawing = Drawing {
        format,
        width,
        height,
        scale,
    };
    let figure = printed(figure, scale);
    let mut painter = PAINTER.lock().unwrap_or_else(PoisonError::into_inner);
    let image = started(&mut painter)?.draw(&figure, drawing);
    if image.is_none() {
        *painter = None;
    }
    image.ok_or_else(failed)
}

/// The figure without buttons and the space for them, and with surfaces that are as sharp as the rest.
fn printed(figure: &Value, scale: f64) -> Value {
    let mut figure = figure.clone();
    let layout = &mut figure["layout"];
    let buttons = layout["updatemenus"].take();
    let above = |menu: &Value| menu["y"].as_f64().is_some_and(|y| y > 1.0);
    if buttons
        .as_array()
        .is_some_and(|menus| menus.iter().any(above))
    {
        layout["margin"]["t"] = json!(TOP_MARGIN);
    }
    figure["config"]["plotGlPixelRatio"] = json!(scale.clamp(2.0, 4.0));
    figure
}
