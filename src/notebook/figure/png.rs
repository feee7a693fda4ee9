//! Images of figures, drawn by kaleido: a headless browser with plotly.js that reads a figure a
//! line and writes an image a line. One process serves a session and ends with it.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::figure::{HEIGHT, WIDTH};
use crate::progress;

/// Directory of kaleido's `executable` folder; set by the project's kernel.
const KALEIDO: &str = "LOSS_LANDSCAPE_KALEIDO";
/// The plotly.js file to draw with; set by the project's kernel.
const PLOTLY_JS: &str = "LOSS_LANDSCAPE_PLOTLY_JS";

/// A figure takes tenths of a second, a surface seconds; past this, the browser hangs.
const LIMIT: Duration = Duration::from_secs(30);

enum State {
    NotStarted,
    Running(Kaleido),
    Absent,
}

/// The figure as base64 of a PNG, or nothing where kaleido is not there or does not answer: then
/// the other forms of the figure still show.
pub(super) fn png(figure: &Value) -> Option<String> {
    static STATE: Mutex<State> = Mutex::new(State::NotStarted);
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if let State::NotStarted = *state {
        *state = Kaleido::start().map_or(State::Absent, State::Running);
    }
    let State::Running(kaleido) = &mut *state else {
        return None;
    };
    let image = kaleido.draw(figure);
    if image.is_none() {
        *state = State::Absent;
        progress::print("note: figures come without their image from here on, for kaleido failed");
    }
    image
}

struct Kaleido {
    process: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Kaleido {
    fn start() -> Option<Self> {
        let home = PathBuf::from(std::env::var_os(KALEIDO)?);
        let plotly_js = std::env::var(PLOTLY_JS).ok()?;
        let mut process = Command::new(home.join("bin/kaleido"))
            .args(["plotly", "--no-sandbox", "--disable-breakpad"])
            .args(["--allow-file-access-from-files", "--disable-dev-shm-usage"])
            .arg(format!("--plotlyjs={plotly_js}"))
            .env("LD_LIBRARY_PATH", home.join("lib"))
            .env("FONTCONFIG_PATH", home.join("etc/fonts"))
            .env("XDG_DATA_HOME", home.join("xdg"))
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let requests = process.stdin.take()?;
        let lines = BufReader::new(process.stdout.take()?).lines();
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let kaleido = Self {
            process,
            requests,
            answers,
        };
        kaleido.answer()?;
        Some(kaleido)
    }

    fn draw(&mut self, figure: &Value) -> Option<String> {
        let layout = &figure["layout"];
        let request = json!({
            "format": "png",
            "width": layout["width"].as_u64().unwrap_or(WIDTH as u64),
            "height": layout["height"].as_u64().unwrap_or(HEIGHT as u64),
            "scale": 1,
            "data": figure,
        });
        writeln!(self.requests, "{request}").ok()?;
        self.requests.flush().ok()?;
        self.answer()?["result"].as_str().map(str::to_owned)
    }

    /// The next line, if it comes in time and says that all went well.
    fn answer(&self) -> Option<Value> {
        let line = self.answers.recv_timeout(LIMIT).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        (answer["code"] == 0).then_some(answer)
    }
}

impl Drop for Kaleido {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
