//! The process in which cells run: loads each compiled cell and calls it.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::process::exit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering};

use crate::marks::border;

/// The crate's function that asks running work to stop. Null until a cell has loaded the crate.
static INTERRUPT: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The library of the cell that evcxr runs at its start. It has no beginning for the guard.
const FIRST: &[u8] = b"/libcode_1.so";

/// The functions that the crate exports for this process.
#[derive(Default)]
struct Hooks {
    begin: Option<extern "C" fn()>,
    end: Option<extern "C" fn()>,
}

/// Runs the cells that evcxr names on standard input, and never returns. `out` and `err` are the pipes to the guard. The end of
/// `alive` shows the guard that this process has ended.
pub fn run(out: OwnedFd, err: OwnedFd, alive: OwnedFd, secret: u64) -> ! {
    let (commands, mut streams) = redirect(out, err);
    handle_signals();
    handle_forks(alive);
    let mut variables = null_mut();
    let mut hooks = Hooks::default();
    for line in BufReader::new(commands).lines() {
        // `LOAD_AND_RUN PATH FUNCTION`; the path may contain spaces.
        let Some((path, function)) = line.ok().and_then(|line| {
            let rest = line.strip_prefix("LOAD_AND_RUN ")?;
            let (path, function) = rest.rsplit_once(' ')?;
            Some((CString::new(path).ok()?, CString::new(function).ok()?))
        }) else {
            exit(99);
        };
        let cell = load(&path, &function);
        hooks.find(cell.library);
        streams.restore();
        // Before the border: interrupts that come after it are for this cell.
        if let Some(begin) = hooks.begin {
            begin();
        }
        if !path.to_bytes().ends_with(FIRST) {
            streams.border(secret, 'B');
        }
        variables = (cell.run)(variables);
        if let Some(end) = hooks.end {
            end();
        }
        // For text printed by C libraries.
        unsafe { libc::fflush(null_mut()) };
        if IS_FORK.load(Ordering::Relaxed) {
            exit(0);
        }
        streams.border(secret, 'E');
    }
    exit(0)
}

struct Cell {
    library: *mut c_void,
    run: extern "C" fn(*mut c_void) -> *mut c_void,
}

/// Loads a compiled cell. Cells are never unloaded: their variables and threads may outlive them.
fn load(path: &CStr, function: &CStr) -> Cell {
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let run = if library.is_null() { null_mut() } else { libc::dlsym(library, function.as_ptr()) };
        if run.is_null() {
            let reason = libc::dlerror();
            let reason = if reason.is_null() { c"unknown".as_ptr() } else { reason };
            eprintln!("The compiled cell could not be loaded: {}", CStr::from_ptr(reason).to_string_lossy());
            exit(99);
        }
        Cell { library, run: std::mem::transmute::<*mut c_void, extern "C" fn(*mut c_void) -> *mut c_void>(run) }
    }
}

impl Hooks {
    /// Looks for the crate's functions in a cell's library and those that it depends on.
    fn find(&mut self, library: *mut c_void) {
        if self.end.is_some() {
            return;
        }
        let symbol = |name: &CStr| unsafe { libc::dlsym(library, name.as_ptr().cast::<c_char>()) };
        let hook = |name| {
            let found = symbol(name);
            (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, extern "C" fn()>(found) })
        };
        self.begin = hook(c"loss_landscape_begin_cell");
        self.end = hook(c"loss_landscape_end_cell");
        INTERRUPT.store(symbol(c"loss_landscape_interrupt"), Ordering::Relaxed);
    }
}

/// Copies of the pipes to the guard, which remain if a cell closes its own.
struct Streams(File, File);

impl Streams {
    /// Opens standard output and error again if a cell closed them.
    fn restore(&self) {
        for (fd, stream) in [(1, &self.0), (2, &self.1)] {
            unsafe {
                if libc::fcntl(fd, libc::F_GETFD) == -1 {
                    libc::dup2(stream.as_raw_fd(), fd);
                }
            }
        }
    }

    fn border(&mut self, secret: u64, event: char) {
        for stream in [&mut self.0, &mut self.1] {
            // The guard is gone only if this process is about to end too.
            let _ = stream.write_all(border(secret, event).as_bytes());
        }
    }
}

/// Gives cells the guard's pipes as standard output and error and an empty standard input, since the real one has
/// evcxr's commands. Returns the commands, and copies of the pipes.
fn redirect(out: OwnedFd, err: OwnedFd) -> (File, Streams) {
    unsafe {
        let commands = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 10);
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        libc::dup2(nothing, 0);
        libc::dup2(out.as_raw_fd(), 1);
        libc::dup2(err.as_raw_fd(), 2);
        libc::close(nothing);
        (File::from_raw_fd(commands), Streams(File::from(out), File::from(err)))
    }
}

fn handle_signals() {
    extern "C" fn interrupt(_: c_int) {
        let hook = INTERRUPT.load(Ordering::Relaxed);
        if !hook.is_null() {
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn()>(hook)() };
        }
    }
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = interrupt as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGINT, &action, null_mut());
    }
}

static ALIVE: AtomicI32 = AtomicI32::new(-1);
/// Whether a cell forked this process.
static IS_FORK: AtomicBool = AtomicBool::new(false);

/// Makes processes that cells fork end with their cell, and let go of `alive`.
fn handle_forks(alive: OwnedFd) {
    unsafe extern "C" {
        fn pthread_atfork(prepare: Option<extern "C" fn()>, parent: Option<extern "C" fn()>, child: Option<extern "C" fn()>) -> c_int;
    }
    extern "C" fn forked() {
        IS_FORK.store(true, Ordering::Relaxed);
        unsafe { libc::close(ALIVE.load(Ordering::Relaxed)) };
    }
    ALIVE.store(alive.into_raw_fd(), Ordering::Relaxed);
    unsafe { pthread_atfork(None, None, Some(forked)) };
}
