//! PNG images of figures, drawn by a program that serves the whole session.

mod chrome;
mod kaleido;

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use chrome::Chrome;
use kaleido::Kaleido;
use serde_json::{Value, json};

use crate::figure::{HEIGHT, WIDTH};
use crate::progress;

/// Environment variable: 0 leaves the images out.
const IMAGES: &str = "LOSS_LANDSCAPE_IMAGES";
/// Environment variable with the path of plotly.js. Set by the project's kernel.
const PLOTLY_JS: &str = "LOSS_LANDSCAPE_PLOTLY_JS";

/// Pixels of the image per pixel of the figure.
const SCALE: u32 = 2;

/// Figures take less than a second, surfaces a few seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A running program that draws figures.
trait Painter: Send {
    /// Draws the figure with the `options` of `Plotly.toImage`. Returns a base64 PNG, or `None` after an error.
    fn draw(&mut self, figure: &Value, options: &Value) -> Option<String>;
}

static PAINTER: OnceLock<Mutex<Option<Box<dyn Painter>>>> = OnceLock::new();

fn painter() -> &'static Mutex<Option<Box<dyn Painter>>> {
    PAINTER.get_or_init(|| Mutex::new(start()))
}

/// An installed Chrome or Chromium, or else kaleido. `None` if there is neither.
fn start() -> Option<Box<dyn Painter>> {
    if std::env::var(IMAGES).is_ok_and(|images| images == "0") {
        return None;
    }
    let plotly_js = std::env::var(PLOTLY_JS).ok()?;
    let plotly_js = Path::new(&plotly_js);
    match Chrome::start(plotly_js) {
        Some(chrome) => Some(Box::new(chrome)),
        None => Some(Box::new(Kaleido::start(plotly_js)?)),
    }
}

/// Interrupts of the kernel reach its whole process group. They must not end the program.
fn in_own_group(command: &mut Command) -> &mut Command {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    command
}

/// Starts the program in the background, because it takes one to two seconds.
pub(in crate::notebook) fn start_in_background() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        thread::spawn(painter);
    });
}

/// Renders the figure as a base64 PNG. Returns `None` if no program can draw it.
pub(super) fn png(figure: &Value) -> Option<String> {
    let mut painter = painter().lock().unwrap_or_else(PoisonError::into_inner);
    let layout = &figure["layout"];
    let options = json!({
        "format": "png",
        "width": layout["width"].as_u64().unwrap_or(WIDTH as u64),
        "height": layout["height"].as_u64().unwrap_or(HEIGHT as u64),
        "scale": SCALE,
    });
    let image = painter.as_mut()?.draw(figure, &options);
    if image.is_none() {
        *painter = None;
        progress::print("note: a figure could not be drawn; figures have no image from now on");
    }
    image
}
