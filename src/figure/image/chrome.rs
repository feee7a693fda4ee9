//! An installed Chrome or Chromium without a window. It executes JavaScript that it reads from a pipe
//! ([Chrome DevTools Protocol](https://chromedevtools.github.io/devtools-protocol/): JSON messages that end with a zero byte).

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use serde_json::{Value, json};

use super::{Drawing, ImageFormat, Painter, TIMEOUT, in_own_group};

const PROGRAMS: [&str; 4] = [
    "google-chrome",
    "google-chrome-stable",
    "chromium",
    "chromium-browser",
];

/// Starts the program with a profile of its own, which is removed in the end. The pipes are the file descriptors 3 and 4.
const START: &str = r#"
home=$(mktemp -d) || exit 1
HOME=$home XDG_CONFIG_HOME=$home XDG_CACHE_HOME=$home "$@" 3<&0 4>&1 </dev/null >/dev/null
rm -rf "$home"
"#;

pub(super) struct Chrome {
    requests: ChildStdin,
    answers: Receiver<Value>,
    /// The id of the last request.
    sent: u64,
    /// The page with plotly.js. Empty before there is one.
    session: String,
}

impl Chrome {
    pub(super) fn start(plotly_js: &str) -> Option<Self> {
        PROGRAMS.iter().find_map(|program| {
            let mut chrome = Self::spawn(program)?;
            chrome.open_page(plotly_js)?;
            Some(chrome)
        })
    }

    fn spawn(program: &str) -> Option<Self> {
        let mut process = in_own_group(&mut Command::new("sh"))
            .args(["-c", START, "sh", program])
            .args(["--headless", "--no-sandbox", "--remote-debugging-pipe"])
            .args(["--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
            .args(["--disable-extensions", "--disable-background-networking"])
            .args(["--no-first-run", "--disable-dev-shm-usage"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let requests = process.stdin.take()?;
        let messages = BufReader::new(process.stdout.take()?).split(0);
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for message in messages.map_while(Result::ok) {
                let message = serde_json::from_slice(&message).unwrap_or_default();
                if send.send(message).is_err() {
                    break;
                }
            }
            // The browser ends when its pipes are closed.
            let _ = process.wait();
        });
        Some(Self {
            requests,
            answers,
            sent: 0,
            session: String::new(),
        })
    }

    fn open_page(&mut self, plotly_js: &str) -> Option<()> {
        let page = self.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let target = json!({"targetId": page["targetId"], "flatten": true});
        let attached = self.call("Target.attachToTarget", target)?;
        attached["sessionId"]
            .as_str()?
            .clone_into(&mut self.session);
        self.evaluate(&format!("{plotly_js}\n;''")).map(drop)
    }

    /// The value of a JavaScript expression, or of its promise, if it is a string and nothing is thrown.
    fn evaluate(&mut self, expression: &str) -> Option<String> {
        let parameters =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", parameters)?;
        if answer.get("exceptionDetails").is_some() {
            return None;
        }
        answer["result"]["value"].as_str().map(str::to_owned)
    }

    /// The result of a method of the protocol, unless it is late or an error.
    fn call(&mut self, method: &str, parameters: Value) -> Option<Value> {
        self.sent += 1;
        let mut request = json!({"id": self.sent, "method": method, "params": parameters});
        if !self.session.is_empty() {
            request["sessionId"] = json!(self.session);
        }
        write!(self.requests, "{request}\0").ok()?;
        self.requests.flush().ok()?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut message = self.answers.recv_timeout(left).ok()?;
            // Other messages report events.
            if message["id"] == self.sent {
                let result = message["result"].take();
                return result.is_object().then_some(result);
            }
        }
    }
}

impl Chrome {
    /// Prints an SVG of the drawing's size to a PDF in base64.
    fn print(&mut self, svg: &str, drawing: Drawing) -> Option<String> {
        let style = "<style>@page{margin:0} body{margin:0} svg{display:block}</style>";
        let body = json!(format!("{style}{svg}"));
        self.evaluate(&format!("document.body.innerHTML = {body}; ''"))?;
        // CSS pixels per inch.
        let inches = |pixels: u64| pixels as f64 / 96.0;
        let paper = json!({
            "paperWidth": inches(drawing.width), "paperHeight": inches(drawing.height),
            "marginTop": 0, "marginBottom": 0, "marginLeft": 0, "marginRight": 0,
            "printBackground": true, "pageRanges": "1",
        });
        let printed = self.call("Page.printToPDF", paper)?;
        self.evaluate("document.body.innerHTML = ''")?;
        printed["data"].as_str().map(str::to_owned)
    }
}

impl Painter for Chrome {
    fn draw(&mut self, figure: &Value, drawing: Drawing) -> Option<String> {
        let mut options = drawing.options();
        options["imageDataOnly"] = json!(true);
        if drawing.format == ImageFormat::Pdf {
            options["format"] = json!("svg");
        }
        let image = self.evaluate(&format!("Plotly.toImage({figure}, {options})"))?;
        match drawing.format {
            ImageFormat::Png | ImageFormat::Svg => Some(image),
            ImageFormat::Pdf => self.print(&image, drawing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With a plotly.js that draws nothing. The test needs an installed browser.
    #[test]
    fn a_browser_draws_with_the_options() {
        let toy = "const Plotly = {toImage: async (figure, options) => {
            if (!figure.data) throw 'no data';
            return figure.data + options.format + options.scale;
        }}";
        let Some(mut chrome) = Chrome::start(toy) else {
            let starts = |program: &&str| Command::new(program).arg("--version").output().is_ok();
            assert_eq!(PROGRAMS.iter().find(|p| starts(p)), None);
            return;
        };
        let mut draw = |data: &str, format: ImageFormat| {
            let drawing = Drawing {
                format,
                width: 96,
                height: 192,
                scale: 3.0,
            };
            chrome.draw(&json!({"data": data}), drawing)
        };
        let text = "a\u{2028}</script>";
        assert_eq!(draw(text, ImageFormat::Png), Some(format!("{text}png3")));
        assert_eq!(draw("", ImageFormat::Png), None);
        assert_eq!(draw("b", ImageFormat::Svg), Some("bsvg1".to_owned()));
        // "%PDF-" in base64.
        assert!(draw("c", ImageFormat::Pdf).is_some_and(|pdf| pdf.starts_with("JVBERi0")));
        assert_eq!(draw("d", ImageFormat::Svg), Some("dsvg1".to_owned()));
    }

    #[test]
    fn a_program_that_is_no_browser_does_not_start() {
        let mut chrome = Chrome::spawn("true").unwrap();
        assert!(chrome.open_page("").is_none());
    }
}
