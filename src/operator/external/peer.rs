//! [`Peer`]: a process that computes products.
//!
//! Threads read and write its pipes, so that a process that hangs never blocks this one.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::frames::{HEADER, MARK, Numbers, header, shape};
use crate::error::{Error, Result};
use crate::progress;

/// What a process says about its matrix before the first product.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Greeting {
    pub(super) dim: usize,
    pub(super) dtype: Numbers,
    #[serde(default)]
    pub(super) name: String,
    /// Relative rounding error of products; `None` for the machine epsilon of `dtype`.
    #[serde(default)]
    epsilon: Option<f64>,
}

/// First words of the greeting. The version of the protocol follows.
const GREETING: &str = "loss-landscape external ";
const VERSION: &str = "1";

/// Largest number of bytes that a process may print before and in its greeting.
const MAX_GREETING: usize = 1 << 20;

/// Bytes that are read and written at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Maximum number of chunks between the thread that reads standard output and the one that uses them.
const MAX_QUEUED: usize = 8;

/// Number of bytes of standard error that are kept, and of lines that are quoted.
const KEPT_BYTES: usize = 16 << 10;
const QUOTED_LINES: usize = 15;

/// Time between two looks for interrupts and the end of the process.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Time for a process to end after its standard input has ended.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the end of a process that has closed its standard output or was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Peer {
    command: String,
    child: Child,
    timeout: Duration,
    /// Bytes for standard input; `None` after its end.
    requests: Option<Sender<Vec<u8>>>,
    /// Bytes from standard output.
    answers: Receiver<Vec<u8>>,
    /// The current bytes from standard output, and the number of those that were used.
    chunk: Vec<u8>,
    used: usize,
    /// Time of the last request or the last bytes on standard output.
    last_heard: Instant,
    stderr: Arc<Mutex<Stderr>>,
    stderr_thread: JoinHandle<()>,
    /// Whether it waits for a request.
    is_idle: bool,
    has_ended: bool,
}

/// The last bytes on standard error.
struct Stderr {
    bytes: Vec<u8>,
    last_heard: Instant,
}

impl Peer {
    /// Starts a process and waits for its greeting.
    pub(super) fn start(command: &str, timeout: Duration) -> Result<(Self, Greeting)> {
        let words = shlex::split(command).unwrap_or_default();
        let Some((program, arguments)) = words.split_first() else {
            return Err(Error::invalid(format!(
                "`{command}` is not a command line: give a program and its arguments, and close all quotes"
            )));
        };
        let mut process = Command::new(program);
        process
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        in_own_group(&mut process);
        let mut child = process
            .spawn()
            .map_err(|e| Error::invalid(format!("cannot start `{program}` of `{command}`: {e}")))?;
        running().insert(child.id());
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            unreachable!("all three are pipes");
        };
        let (requests, to_write) = channel::<Vec<u8>>();
        thread::spawn(move || {
            for bytes in to_write {
                // If the process does not read, waiting for its answer finds out why.
                if stdin.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        let (sender, answers) = sync_channel(MAX_QUEUED);
        thread::spawn(move || read_all(stdout, |bytes| sender.send(bytes.to_vec()).is_ok()));
        let last = Arc::new(Mutex::new(Stderr {
            bytes: Vec::new(),
            last_heard: Instant::now(),
        }));
        let keep = last.clone();
        let stderr_thread = thread::spawn(move || {
            read_all(stderr, |bytes| {
                lock(&keep).add(bytes);
                true
            });
        });
        let mut peer = Self {
            command: command.to_owned(),
            child,
            timeout,
            requests: Some(requests),
            answers,
            chunk: Vec::new(),
            used: 0,
            last_heard: Instant::now(),
            stderr: last,
            stderr_thread,
            is_idle: false,
            has_ended: false,
        };
        let greeting = peer.greeting()?;
        peer.is_idle = true;
        Ok((peer, greeting))
    }

    /// Reads the greeting. Lines before it count as standard error: programs print while they load a model.
    fn greeting(&mut self) -> Result<Greeting> {
        let mut line = Vec::new();
        for _ in 0..MAX_GREETING {
            let [byte] = self.read("its greeting")?;
            line.push(byte);
            if byte != b'\n' {
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(greeting) = text.strip_prefix(GREETING) {
                return self.parse(greeting.trim_end());
            }
            lock(&self.stderr).add(&line);
            line.clear();
        }
        Err(self.failed(format!(
            "printed {} KiB and no greeting: it must call `serve` of landscape_external.py",
            MAX_GREETING >> 10
        )))
    }

    fn parse(&mut self, greeting: &str) -> Result<Greeting> {
        let (version, json) = greeting.split_once(' ').unwrap_or((greeting, ""));
        if version != VERSION {
            return Err(self.failed(format!(
                "uses version {version} of the protocol, and this program version {VERSION}: use the \
                 landscape_external.py of this program"
            )));
        }
        let problem = match serde_json::from_str::<Greeting>(json) {
            Err(e) => e.to_string(),
            Ok(greeting) if greeting.dim == 0 => "dim is 0".into(),
            Ok(Greeting {
                epsilon: Some(epsilon),
                ..
            }) if !(0.0..1.0).contains(&epsilon) => format!("epsilon is {epsilon}"),
            Ok(greeting) => return Ok(greeting),
        };
        Err(self.failed(format!("sent an invalid greeting ({problem}): {json}")))
    }

    /// The products with these vectors, which have the right length.
    ///
    /// # Errors
    /// After an error no more products can be computed.
    pub(super) fn products(
        &mut self,
        vectors: &[&[f64]],
        numbers: Numbers,
    ) -> Result<Vec<Vec<f64>>> {
        self.is_idle = false;
        self.last_heard = Instant::now();
        let n = vectors.first().map_or(0, |v| v.len());
        let expected = header(vectors.len(), n);
        self.send(expected.to_vec());
        for part in vectors.iter().flat_map(|v| v.chunks(CHUNK_BYTES / 8)) {
            self.send(numbers.encode(part));
        }
        let found = self.header()?;
        if found != expected {
            let [[count, dim], [given, length]] = [shape(&found), shape(&expected)];
            return Err(self.failed(format!(
                "answered {count} products of length {dim} to {given} vectors of length {length}"
            )));
        }
        let mut products = Vec::with_capacity(vectors.len());
        for _ in vectors {
            let product = self.numbers(n, numbers)?;
            if let Some(i) = product.iter().position(|x| !x.is_finite()) {
                return Err(self.failed(format!(
                    "answered a product that is not finite: entry {i} of {n} is {}",
                    product[i]
                )));
            }
            products.push(product);
        }
        if self.used < self.chunk.len() {
            let more = self.chunk.len() - self.used;
            return Err(self.failed(format!("sent {more} bytes or more after its products")));
        }
        self.is_idle = true;
        Ok(products)
    }

    fn send(&self, bytes: Vec<u8>) {
        if let Some(requests) = &self.requests {
            // An error means that the process has ended, which waiting for its answer reports.
            let _ = requests.send(bytes);
        }
    }

    fn header(&mut self) -> Result<[u8; HEADER]> {
        let mut header = [0; HEADER];
        for i in 0..HEADER {
            [header[i]] = self.read("its products")?;
            if i < MARK.len() && header[i] != MARK[i] {
                let rest = &self.chunk[self.used..];
                let text = [&header[..=i], &rest[..rest.len().min(80)]].concat();
                let text = String::from_utf8_lossy(&text).escape_debug().to_string();
                return Err(self.failed(format!(
                    "wrote \"{text}\" to standard output, where products were expected: it must print to standard error"
                )));
            }
        }
        Ok(header)
    }

    /// Reads n numbers.
    fn numbers(&mut self, n: usize, numbers: Numbers) -> Result<Vec<f64>> {
        let size = numbers.size();
        let mut found = Vec::with_capacity(n);
        while found.len() < n {
            let whole = (self.chunk.len() - self.used) / size;
            if whole == 0 {
                // A number that is split between two chunks, or no number.
                let mut number = vec![0; size];
                for byte in &mut number {
                    [*byte] = self.read("the rest of its products")?;
                }
                numbers.decode(&number, &mut found);
                continue;
            }
            let bytes = size * whole.min(n - found.len());
            numbers.decode(&self.chunk[self.used..][..bytes], &mut found);
            self.used += bytes;
        }
        Ok(found)
    }

    /// Reads a byte from standard output.
    fn read(&mut self, what: &str) -> Result<[u8; 1]> {
        while self.used == self.chunk.len() {
            self.wait(what)?;
        }
        let byte = self.chunk[self.used];
        self.used += 1;
        Ok([byte])
    }

    /// Waits for bytes on standard output.
    fn wait(&mut self, what: &str) -> Result<()> {
        let mut has_exited = false;
        loop {
            progress::check()?;
            match self.answers.recv_timeout(POLL_INTERVAL) {
                Ok(chunk) => {
                    (self.chunk, self.used) = (chunk, 0);
                    self.last_heard = Instant::now();
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) if !has_exited => {}
                Err(_) => return Err(self.ended(what)),
            }
            // Its last bytes may still be on the way.
            has_exited = matches!(self.child.try_wait(), Ok(Some(_)));
            let silent = self.last_heard.max(lock(&self.stderr).last_heard).elapsed();
            if silent > self.timeout && !has_exited {
                let problem = format!(
                    "was silent for {:.0} s before {what}: give a longer timeout, or let it report progress on standard error",
                    silent.as_secs_f64()
                );
                return Err(self.failed(problem));
            }
        }
    }

    /// The error after the end of standard output.
    fn ended(&mut self, what: &str) -> Error {
        let problem = match self.exit_status(KILL_TIMEOUT) {
            Some(status) => format!("ended ({status}) before {what}"),
            None => format!("closed its standard output before {what}"),
        };
        self.failed(problem)
    }

    /// Ends the process. Returns an error with its last lines on standard error.
    fn failed(&mut self, problem: String) -> Error {
        self.end(Duration::ZERO);
        wait_until(KILL_TIMEOUT, || self.stderr_thread.is_finished());
        Error::External {
            command: self.command.clone(),
            problem,
            last_lines: lock(&self.stderr).last_lines(),
        }
    }

    /// Ends standard input, waits for the process to end, and kills it and its children if it does not.
    fn end(&mut self, grace: Duration) {
        if std::mem::replace(&mut self.has_ended, true) {
            return;
        }
        self.requests = None;
        self.exit_status(grace);
        kill_group(self.child.id());
        let _ = self.child.kill();
        self.exit_status(KILL_TIMEOUT);
        running().remove(&self.child.id());
    }

    /// Waits for the process to end.
    fn exit_status(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait_until(limit, || matches!(self.child.try_wait(), Ok(Some(_))));
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end(match self.is_idle {
            true => EXIT_TIMEOUT,
            false => Duration::ZERO,
        });
    }
}

impl Greeting {
    pub(super) fn epsilon(&self) -> f64 {
        self.epsilon.unwrap_or(0.0).max(self.dtype.epsilon())
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype.candle().as_str();
        write!(f, "\"{}\" of {} rows in {dtype}", self.name, self.dim)
    }
}

impl Stderr {
    fn add(&mut self, bytes: &[u8]) {
        self.last_heard = Instant::now();
        self.bytes.extend_from_slice(bytes);
        let surplus = self.bytes.len().saturating_sub(KEPT_BYTES);
        self.bytes.drain(..surplus);
    }

    fn last_lines(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        // Progress bars end lines with a carriage return.
        let lines = text
            .split(['\n', '\r'])
            .filter(|line| !line.trim().is_empty());
        let lines: Vec<&str> = lines.collect();
        lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
    }
}

/// Calls `take` with all bytes of a pipe, until its end or until `take` returns false.
fn read_all(mut pipe: impl Read, mut take: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match pipe.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(len) if take(&buffer[..len]) => {}
            Ok(_) => return,
        }
    }
}

fn wait_until(limit: Duration, mut is_done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_done() && started.elapsed() < limit {
        thread::sleep(Duration::from_millis(2));
    }
}

fn lock(stderr: &Mutex<Stderr>) -> MutexGuard<'_, Stderr> {
    stderr.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ids of the processes that are running.
fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn kill_all() {
    for id in running().iter() {
        kill_group(*id);
    }
}

/// Interrupts of a terminal or of the notebooks' kernel reach whole process groups. They must not end this process, which may
/// be needed afterwards.
fn in_own_group(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
}

/// Kills a process and its children. The standard library cannot signal a group; the shell's `kill` can.
fn kill_group(id: u32) {
    if cfg!(unix) {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s KILL -- \"-$0\"", &id.to_string()]);
        kill.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _ = kill.status();
    }
}
