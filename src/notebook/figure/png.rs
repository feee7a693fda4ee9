//! PNG images of figures by kaleido, a headless browser with plotly.js. It reads one figure per line and writes one image per
//! line. One process serves a session.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use crate::figure::{HEIGHT, WIDTH};
use crate::progress;

/// Environment variable with kaleido's `executable` directory. Set by the project's kernel.
const KALEIDO: &str = "LOSS_LANDSCAPE_KALEIDO";
/// Environment variable with the path of plotly.js. Set by the project's kernel.
const PLOTLY_JS: &str = "LOSS_LANDSCAPE_PLOTLY_JS";

/// Figures take less than a second, surfaces a few seconds.
const TIMEOUT: Duration = Duration::from_secs(30);

enum State {
    NotStarted,
    Running(Kaleido),
    Absent,
}

/// Renders the figure as a base64 PNG. Returns `None` if kaleido is missing or does not answer.
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
        progress::print("note: kaleido failed; figures have no PNG image from now on");
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

    /// The next answer, unless it is late or reports an error.
    fn answer(&self) -> Option<Value> {
        let line = self.answers.recv_timeout(TIMEOUT).ok()?;
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
