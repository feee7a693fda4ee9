//! The evaluator: answers requests on standard input, one JSON object a line, on standard output.
//!
//! Requests: `{"execute": CODE}`, `{"complete": CODE, "position": BYTE}` and `{"inspect": CODE, "position": BYTE}`. Each gets
//! one line `{"reply": …}`. Before it come the guard's events, and at the start `{"ready": true}` or `{"broken": REASON}`.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, exit};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, select, unbounded};
use evcxr::{CommandContext, CompilationError, Error, EvalContext, EvalContextOutputs, EvalOutputs, Theme};
use serde_json::{Value, json};

use crate::guard::die_with_parent;

/// Imports the crate and its prelude.
const LOAD: &str = ":load_config --quiet";

/// Stack for cells that are deeply nested. Only what is used takes memory.
const STACK: usize = 1 << 30;

pub fn run() {
    die_with_parent();
    // The guard kills the group when this process ends.
    unsafe { libc::setpgid(0, 0) };
    match thread::Builder::new().stack_size(STACK).spawn(evaluate) {
        Ok(evaluation) => drop(evaluation.join()),
        Err(_) => evaluate(),
    }
}

fn evaluate() {
    let (answers, receiver) = unbounded();
    let (context, outputs) = match start() {
        Ok(started) => started,
        Err(reason) => {
            println!("{}", json!({ "broken": reason }));
            exit(1);
        }
    };
    let writer = protocol();
    thread::spawn(move || forward(writer, &receiver, &outputs));
    answer(context, &answers);
}

/// A client that runs all cells sends the first one sooner.
const IDLE: Duration = Duration::from_millis(300);
/// Its completion needs the types of the crate.
const WARM_UP: &str = "Mlp::new(";

/// Directory of the standard library's sources, for the analysis.
const LIBRARY: &str = "RUST_SRC_PATH";

/// evcxr first runs the cell `42`, whose analysis needs no library. The analysis reads the library again for the first cell
/// with dependencies.
fn start() -> Result<(CommandContext, EvalContextOutputs), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let library = std::env::var_os(LIBRARY);
    if let Some(library) = &library {
        // Safe: the only other thread waits for this one.
        unsafe { std::env::set_var(LIBRARY, Path::new(library).join("none")) };
    }
    let (context, outputs) = EvalContext::with_subprocess_command(Command::new(program)).map_err(|error| error.to_string())?;
    if let Some(library) = library {
        // Safe: evcxr's threads read only pipes and files.
        unsafe { std::env::set_var(LIBRARY, library) };
    }
    Ok((CommandContext::with_eval_context(context), outputs))
}

/// Moves the protocol away from standard output, where evcxr prints messages of its own. These go to standard error.
fn protocol() -> File {
    unsafe {
        let writer = File::from_raw_fd(libc::fcntl(1, libc::F_DUPFD_CLOEXEC, 10));
        libc::dup2(2, 1);
        writer
    }
}

/// Writes events and replies. When a reply arrives, evcxr has sent all events of its cell.
fn forward(mut writer: File, answers: &Receiver<Value>, outputs: &EvalContextOutputs) {
    let mut write = |line: &str| {
        if writer.write_all(format!("{line}\n").as_bytes()).is_err() {
            exit(0); // The kernel has ended.
        }
    };
    loop {
        select! {
            recv(outputs.stdout) -> line => if let Ok(line) = line { write(&line) },
            // Only what the guard says of itself: a cell's standard error is an event.
            recv(outputs.stderr) -> line => if let Ok(line) = line { write(&json!({ "stream": "stderr", "text": line + "\n" }).to_string()) },
            recv(answers) -> answer => {
                while let Ok(line) = outputs.stdout.try_recv() {
                    write(&line);
                }
                match answer {
                    Ok(answer) => write(&answer.to_string()),
                    Err(_) => exit(0),
                }
            }
        }
    }
}

/// The requests on standard input, until it ends.
fn requests() -> Receiver<Value> {
    let (sender, receiver) = unbounded();
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let request = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            if request.is_none_or(|request| sender.send(request).is_err()) {
                break;
            }
        }
    });
    receiver
}

/// Answers requests until standard input ends.
fn answer(mut context: CommandContext, answers: &Sender<Value>) {
    let ready = match context.execute(LOAD) {
        Ok(_) => json!({ "ready": true }),
        Err(error) => json!({ "broken": error.to_string() }),
    };
    let _ = answers.send(ready);
    let requests = requests();
    let first = requests.recv_timeout(IDLE);
    if first == Err(RecvTimeoutError::Timeout) {
        // The analysis of the first variable takes more than a second. Most of that is done here, while nobody waits.
        let _ = catch_unwind(AssertUnwindSafe(|| complete(&mut context, WARM_UP, WARM_UP.len())));
    }
    for request in first.into_iter().chain(requests) {
        let position = request["position"].as_u64().unwrap_or(0) as usize;
        // The code analysis can panic. A panic must not end the kernel.
        let reply = catch_unwind(AssertUnwindSafe(|| {
            if let Some(code) = request["execute"].as_str() {
                execute(&mut context, code)
            } else if let Some(code) = request["complete"].as_str() {
                complete(&mut context, code, position)
            } else {
                inspect(&mut context, request["inspect"].as_str().unwrap_or(""), position)
            }
        }));
        let reply = reply.unwrap_or_else(|_| json!({ "status": "error", "name": "AnalysisPanicked" }));
        let _ = answers.send(json!({ "reply": reply }));
    }
    exit(0);
}

fn execute(context: &mut CommandContext, code: &str) -> Value {
    let mut lines = code.lines().map(str::trim);
    // evcxr takes such a cell for an empty one.
    if lines.clone().find(|line| !(line.is_empty() || line.starts_with([':', '!', '/']))).is_some_and(|line| line.starts_with('}')) {
        let message = "unexpected closing delimiter: `}`";
        return json!({ "status": "error", "name": "CompilationError", "message": message });
    }
    let mut result = context.execute(code);
    if result.is_ok() && lines.any(|line| line == ":clear") {
        result = context.execute(LOAD);
    }
    match result {
        Ok(EvalOutputs { content_by_mime_type, timing, .. }) => {
            let seconds = timing.map(|timing| timing.as_secs_f64());
            json!({ "status": "ok", "display": content_by_mime_type, "seconds": seconds })
        }
        Err(Error::CompilationErrors(errors)) => {
            let report: Vec<String> = errors.iter().map(|error| described(error, code)).collect();
            let message = errors.first().map(CompilationError::message).unwrap_or_default();
            json!({ "status": "error", "name": "CompilationError", "message": message, "report": report.join("\n") })
        }
        Err(Error::SubprocessTerminated(rest)) => {
            // The guard's events since the cell before, if the process ended between the cells.
            let events: Vec<Value> = rest.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            json!({ "status": "error", "name": "ProcessEnded", "events": events })
        }
        Err(error) => json!({ "status": "error", "name": "Error", "message": error.to_string() }),
    }
}

/// An error of the compiler, with the lines that it is about.
fn described(error: &CompilationError, code: &str) -> String {
    let file = "cell".to_owned();
    if error.is_from_user_code()
        && let Some(report) = error.build_report(file.clone(), code.to_owned(), Theme::Light)
    {
        let mut text = Vec::new();
        if report.write(ariadne::sources([(file, code)]), &mut text).is_ok() {
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
    let mut lines = vec![error.message()];
    if error.is_from_user_code() {
        for message in error.spanned_messages() {
            lines.extend(message.lines.iter().cloned());
            if let Some(span) = &message.span {
                let (start, end) = (span.start_column, span.end_column.max(span.start_column + 1));
                lines.push(format!("{}{} {}", " ".repeat(start - 1), "^".repeat(end - start), message.label));
            }
        }
        lines.extend(error.help().into_iter().map(|help| format!("help: {help}")));
    }
    lines.join("\n")
}

fn complete(context: &mut CommandContext, code: &str, position: usize) -> Value {
    let Ok(found) = context.completions(code, position) else {
        return json!({ "matches": [], "kinds": [], "start": position, "end": position });
    };
    let (codes, kinds): (Vec<&str>, Vec<&str>) = found.completions.iter().map(|c| (c.code.as_str(), c.kind)).unzip();
    json!({ "matches": codes, "kinds": kinds, "start": found.start_offset, "end": found.end_offset })
}

fn inspect(context: &mut CommandContext, code: &str, position: usize) -> Value {
    match context.hover_at(code, position) {
        Ok((plain, html)) if plain != "No documentation found" => json!({ "found": true, "text": plain, "html": html }),
        _ => json!({ "found": false }),
    }
}
