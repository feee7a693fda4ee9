//! kaleido, a headless browser. It reads one figure per line and writes one image per line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::{Drawing, Painter, TIMEOUT, in_own_group};

/// Environment variable with kaleido's `executable` directory. Set by the project's kernel.
const KALEIDO: &str = "LOSS_LANDSCAPE_KALEIDO";

pub(super) struct Kaleido {
    process: Child,
    requests: ChildStdin,
    answers: Receiver<String>,
}

impl Kaleido {
    pub(super) fn start(plotly_js: &Path) -> Option<Self> {
        let home = PathBuf::from(std::env::var_os(KALEIDO)?);
        let mut process = in_own_group(&mut Command::new(home.join("bin/kaleido")))
            .args(["plotly", "--no-sandbox", "--disable-breakpad"])
            .args(["--allow-file-access-from-files", "--disable-dev-shm-usage"])
            .arg(format!("--plotlyjs={}", plotly_js.display()))
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

    /// The next answer, unless it is late or reports an error.
    fn answer(&self) -> Option<Value> {
        let line = self.answers.recv_timeout(TIMEOUT).ok()?;
        let answer: Value = serde_json::from_str(&line).ok()?;
        (answer["code"] == 0).then_some(answer)
    }
}

impl Painter for Kaleido {
    fn draw(&mut self, figure: &Value, drawing: Drawing) -> Option<String> {
        let mut request = drawing.options();
        request["data"] = figure.clone();
        writeln!(self.requests, "{request}").ok()?;
        self.requests.flush().ok()?;
        self.answer()?["result"].as_str().map(str::to_owned)
    }
}

impl Drop for Kaleido {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
