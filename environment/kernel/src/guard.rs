//! The guard: starts the process that runs cells, reads what it prints, and passes it on line by line as JSON.
//!
//! evcxr reads lines of UTF-8 and compares whole lines with its marks. Cells print bytes, and marks can follow text without
//! a newline. So the guard takes the output apart: it passes evcxr's marks on, and sends text and values as events:
//!
//! - `{"running": PID}` before a cell runs
//! - `{"stream": "stdout" | "stderr", "text": …}`
//! - `{"display": {MIME: CONTENT, …}}` and `{"progress": JSON}`
//! - `{"failed": "error" | "panic", "text": …}` after a cell that ended in a `?` error or a panic
//! - `{"ended": REASON}` if the process has ended

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::mem::take;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::exit;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::marks::{BEGIN_CONTENT, BORDER, COMPLETE, END_CONTENT, ERROR, PANIC, PREFIX, SHOWN_ERROR, TYPE_CHANGED, border};
use crate::runner;

/// Text waits this long, so that many short lines become one message.
const DELAY: Duration = Duration::from_millis(5);
/// Text on standard error waits longer: the mark that follows shows that it is an error's message.
const ERROR_DELAY: Duration = Duration::from_millis(40);
/// The mark of a panic follows its message when the stack is unwound.
const UNWINDING: Duration = Duration::from_secs(2);
const CHUNK: usize = 64 << 10;
/// A mark that is longer is text.
const LONGEST_MARK: usize = 512;
const PROGRESS: &str = "application/vnd.loss-landscape.progress+json";

/// Kills this process when its parent ends.
pub fn die_with_parent() {
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Kills all processes of the evaluator when it ends: this one, its child, and compilers. They are its process group.
fn kill_group_with_parent() {
    extern "C" fn kill_group(_: libc::c_int) {
        unsafe { libc::kill(0, libc::SIGKILL) };
    }
    unsafe {
        libc::signal(libc::SIGUSR1, kill_group as *const () as libc::sighandler_t);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1);
    }
}

pub fn run() -> ! {
    // Safe: there are no other threads. evcxr sets the variable, and backtraces would show its own frames.
    unsafe { std::env::remove_var("RUST_BACKTRACE") };
    let secret = secret();
    let (Ok((out, out_writer)), Ok((err, err_writer)), Ok((alive, alive_writer))) = (pipe(), pipe(), pipe()) else {
        eprintln!("There are too many open files.");
        exit(99);
    };
    match unsafe { libc::fork() } {
        -1 => {
            eprintln!("The process that runs cells could not be started: {}", std::io::Error::last_os_error());
            exit(99);
        }
        0 => {
            die_with_parent();
            drop((out, err, alive));
            runner::run(out_writer.into(), err_writer.into(), alive_writer.into(), secret)
        }
        process => {
            kill_group_with_parent();
            drop::<[PipeWriter; 3]>([out_writer, err_writer, alive_writer]);
            Guard::new(process, secret).watch([out, err], &alive)
        }
    }
}

fn secret() -> u64 {
    let mut bytes = [0; 8];
    let _ = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    u64::from_ne_bytes(bytes)
}

enum Item {
    Text(usize, String),
    Display(serde_json::Map<String, Value>),
    Progress(Value),
}

const STREAMS: [&str; 2] = ["stdout", "stderr"];
const OUT: usize = 0;
const ERR: usize = 1;

struct Guard {
    /// The process that runs cells.
    process: i32,
    evcxr: File,
    secret: [u8; BORDER - 2],
    /// Bytes of each stream that are not taken apart yet.
    unread: [Vec<u8>; 2],
    /// The type of the value that the cell is printing, and the number of its bytes that were searched for its end.
    content: Option<(String, usize)>,
    /// What was taken apart and not sent yet, in order, and since when.
    items: Vec<Item>,
    since: Instant,
    /// Whether the end of the cell was seen on each stream.
    ended: [bool; 2],
    /// How the cell failed, and the message.
    failed: Option<(&'static str, String)>,
    /// evcxr runs a cell of its own at the start, and would wait for ever until somebody hears its events.
    muted: bool,
}

impl Guard {
    fn new(process: i32, secret: u64) -> Self {
        // The protocol is what evcxr reads as standard output.
        let evcxr = unsafe { File::from_raw_fd(libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 10)) };
        let mut start = [0; BORDER - 2];
        start.copy_from_slice(&border(secret, ' ').as_bytes()[..BORDER - 2]);
        Self {
            process,
            evcxr,
            secret: start,
            unread: Default::default(),
            content: None,
            items: Vec::new(),
            since: Instant::now(),
            ended: [false; 2],
            failed: None,
            muted: true,
        }
    }

    /// Passes output on until the process ends. Then ends with its exit status, or with 1 after a signal.
    fn watch(mut self, mut streams: [PipeReader; 2], alive: &PipeReader) -> ! {
        for stream in &streams {
            unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        }
        loop {
            let files = [streams[OUT].as_raw_fd(), streams[ERR].as_raw_fd(), alive.as_raw_fd()];
            let [.., gone] = readable(files, self.wait());
            self.read(&mut streams);
            if self.wait() == 0 {
                self.flush(false);
            }
            if gone {
                break;
            }
        }
        self.read(&mut streams);
        self.finish_streams();
        self.flush(true);
        let mut status = 0;
        unsafe { libc::waitpid(self.process, &mut status, 0) };
        let reason = if libc::WIFSIGNALED(status) {
            format!("signal {}", libc::WTERMSIG(status))
        } else {
            format!("exit status {}", libc::WEXITSTATUS(status))
        };
        self.send(&json!({ "ended": reason }));
        exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 })
    }

    /// Milliseconds until text or progress must be sent; -1 without any.
    fn wait(&self) -> i32 {
        if self.items.iter().all(|item| matches!(item, Item::Display(_))) {
            return -1;
        }
        let errors = self.items.iter().map(|item| match item {
            Item::Text(ERR, text) if text.contains("panicked at ") => UNWINDING,
            Item::Text(ERR, _) => ERROR_DELAY,
            _ => DELAY,
        });
        let left = errors.max().unwrap_or(DELAY).saturating_sub(self.since.elapsed());
        left.as_micros().div_ceil(1000) as i32
    }

    /// Reads all that is there, and takes it apart.
    fn read(&mut self, streams: &mut [PipeReader; 2]) {
        loop {
            let start = self.unread[OUT].len();
            // Standard error is read second: then the message of an error is there before the mark that follows it.
            let read = [OUT, ERR].map(|i| read_some(&mut streams[i], &mut self.unread[i]));
            if read == [0, 0] {
                return;
            }
            let marked = find(&self.unread[OUT][start.saturating_sub(PREFIX.len())..], PREFIX).is_some();
            for stream in if marked { [ERR, OUT] } else { [OUT, ERR] } {
                while self.step(stream) {}
            }
        }
    }

    /// Takes the next part off a stream. Returns false if more bytes are needed.
    fn step(&mut self, stream: usize) -> bool {
        if stream == OUT && self.content.is_some() {
            return self.step_content();
        }
        let bytes = &self.unread[stream];
        let mark = if stream == OUT { find(bytes, PREFIX) } else { None };
        let edge = find(bytes, &self.secret);
        let next = [mark, edge].into_iter().flatten().min();
        let Some(start) = next else {
            let whole = bytes.len() - self.unfinished(stream);
            self.text(stream, whole);
            return false;
        };
        if start > 0 {
            self.text(stream, start);
            return true;
        }
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            if bytes.len() < LONGEST_MARK {
                return false;
            }
            self.text(stream, PREFIX.len());
            return true;
        };
        if let Some(edge) = edge.filter(|&edge| 0 < edge && edge < end) {
            self.text(stream, edge);
            return true;
        }
        let line: Vec<u8> = self.unread[stream].drain(..=end).collect();
        match edge {
            Some(0) => self.edge(stream, line[BORDER - 2]),
            _ => self.mark(&line),
        }
        true
    }

    /// Number of bytes at the end that may belong to a mark or a character whose rest is still to come.
    fn unfinished(&self, stream: usize) -> usize {
        let bytes = &self.unread[stream];
        let starts = |pattern: &[u8]| (1..pattern.len().min(bytes.len() + 1)).rev().find(|&n| bytes.ends_with(&pattern[..n]));
        let mark = if stream == OUT { starts(PREFIX) } else { None };
        let character = (1..=3.min(bytes.len())).find(|&n| {
            let lead = bytes[bytes.len() - n];
            (lead >= 0xF0 && n < 4) || (lead >= 0xE0 && n < 3) || (lead >= 0xC2 && n < 2)
        });
        [mark, starts(&self.secret), character].into_iter().flatten().max().unwrap_or(0)
    }

    /// Takes the next part off a value that a cell prints.
    fn step_content(&mut self) -> bool {
        let Some((mime, searched)) = &mut self.content else {
            return false;
        };
        let bytes = &self.unread[OUT];
        let end = format!("{END_CONTENT}\n");
        let panic = format!("{PANIC}\n");
        let from = searched.saturating_sub(end.len().max(panic.len()));
        let found = |pattern: &[u8]| find(&bytes[from..], pattern).map(|at| from + at);
        let (end_at, panic_at, edge_at) = (found(end.as_bytes()), found(panic.as_bytes()), found(&self.secret));
        let Some(at) = [end_at, panic_at, edge_at].into_iter().flatten().min() else {
            *searched = bytes.len();
            return false;
        };
        let mime = take(mime);
        self.content = None;
        let content = String::from_utf8_lossy(&self.unread[OUT][..at]).into_owned();
        self.unread[OUT].drain(..at);
        if Some(at) == end_at {
            self.unread[OUT].drain(..end.len());
            self.value(mime, content.strip_suffix('\n').unwrap_or(&content));
        }
        true
    }

    fn value(&mut self, mime: String, content: &str) {
        if mime == PROGRESS {
            if let Ok(progress) = serde_json::from_str(content) {
                self.item(Item::Progress(progress));
            }
            return;
        }
        match self.items.last_mut() {
            Some(Item::Display(value)) if !value.contains_key(&mime) => {
                value.insert(mime, content.into());
            }
            _ => self.item(Item::Display([(mime, Value::from(content))].into_iter().collect())),
        }
    }

    fn mark(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let text = line.trim_end_matches('\n');
        if [PANIC, ERROR, SHOWN_ERROR].contains(&text) {
            let kind = if text == PANIC { "panic" } else { "error" };
            self.failed = Some((kind, self.last_errors()));
            if text != SHOWN_ERROR {
                self.pass(text);
            }
        } else if text.starts_with(TYPE_CHANGED) {
            self.pass(text);
        } else if let Some(mime) = text.strip_prefix(BEGIN_CONTENT) {
            self.content = Some((mime.to_owned(), 0));
        } else {
            self.item(Item::Text(OUT, line.into_owned()));
        }
    }

    /// The last text on standard error, which has not been sent: the message of an error.
    fn last_errors(&mut self) -> String {
        let mut found = String::new();
        self.items.retain_mut(|item| match item {
            Item::Text(ERR, text) => {
                found.push_str(text);
                false
            }
            _ => true,
        });
        found
    }

    /// The border of a cell.
    fn edge(&mut self, stream: usize, event: u8) {
        if event == b'B' {
            if stream == OUT {
                self.muted = false;
                self.send(&json!({ "running": self.process }));
            }
            return;
        }
        self.ended[stream] = true;
        if self.ended != [true; 2] {
            return;
        }
        self.ended = [false; 2];
        self.flush(true);
        if let Some((kind, text)) = self.failed.take() {
            self.send(&json!({ "failed": kind, "text": text }));
        }
        self.pass(COMPLETE);
    }

    /// Takes what a process that has ended left unfinished as text.
    fn finish_streams(&mut self) {
        self.content = None;
        for stream in [OUT, ERR] {
            self.text(stream, self.unread[stream].len());
        }
    }

    /// Takes the first `end` bytes of a stream as text. Bytes that are not UTF-8 become �.
    fn text(&mut self, stream: usize, end: usize) {
        if end == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&self.unread[stream][..end]).into_owned();
        self.unread[stream].drain(..end);
        match self.items.last_mut() {
            Some(Item::Text(last, all)) if *last == stream => all.push_str(&text),
            _ => self.item(Item::Text(stream, text)),
        }
        if self.items.iter().map(|item| if let Item::Text(_, text) = item { text.len() } else { 0 }).sum::<usize>() > CHUNK {
            self.flush(false);
        }
    }

    fn item(&mut self, item: Item) {
        if self.items.is_empty() {
            self.since = Instant::now();
        }
        self.items.push(item);
    }

    /// Sends what waits. A value at the end may get more types, and waits for the end of the cell.
    fn flush(&mut self, end: bool) {
        let mut items = take(&mut self.items);
        if !end && let Some(Item::Display(_)) = items.last() {
            self.items.extend(items.pop());
        }
        for item in items {
            match item {
                Item::Text(stream, text) => self.send(&json!({ "stream": STREAMS[stream], "text": text })),
                Item::Display(value) => self.send(&json!({ "display": value })),
                Item::Progress(state) => self.send(&json!({ "progress": state })),
            }
        }
    }

    /// Sends an event. evcxr must not find one of its marks in it.
    fn send(&mut self, event: &Value) {
        if self.muted {
            return;
        }
        self.pass(&event.to_string().replace("EVCXR", "\\u0045VCXR"));
    }

    fn pass(&mut self, line: &str) {
        if self.evcxr.write_all(format!("{line}\n").as_bytes()).is_err() {
            exit(0); // The evaluator has ended.
        }
    }
}

/// Appends what can be read at once, up to a limit, and returns the number of bytes.
fn read_some(stream: &mut PipeReader, bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.resize(start + CHUNK, 0);
    let read = stream.read(&mut bytes[start..]).unwrap_or(0);
    bytes.truncate(start + read);
    read
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let first = pattern[0];
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&byte| byte == first) {
        if bytes[from + at..].starts_with(pattern) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Waits until a file can be read or has ended, and returns which. A timeout of -1 waits for ever.
fn readable<const N: usize>(files: [i32; N], timeout: i32) -> [bool; N] {
    let mut polled = files.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
    polled.map(|file| file.revents != 0)
}
