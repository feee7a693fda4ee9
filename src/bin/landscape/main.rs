//! `landscape`: loss and curvature of networks from the command line, by the crate's own calls.

mod analyze;
mod config_file;
mod connect;
mod density;
mod hvp;
mod mpi_context;
mod network_args;
mod output;
mod path_args;
mod progress_display;
mod sharpness;
mod signals;
mod spectrum;
mod surface;
mod sweep;
mod trace;
mod train;
mod training_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loss_landscape::Error;

use self::config_file::Parsed;

/// The geometry of a neural network's loss: train a network, then look at it from several sides.
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Train a network and save its weights
    Train(train::Train),
    /// Train a network, and write a report of the geometry of its loss
    #[command(args_override_self = true)]
    Analyze(analyze::Analyze),
    /// Eigenvalues, each with its residual
    Spectrum(spectrum::Spectrum),
    /// How all eigenvalues are distributed
    Density(density::Density),
    /// Trace and squared Frobenius norm, with their standard errors
    Trace(trace::Trace),
    /// The loss over a plane through the network's weights
    Surface(surface::Surface),
    /// The paths between two networks, and what stands in their way
    Connect(connect::Connect),
    /// How much the loss rises nearby
    Sharpness(sharpness::Sharpness),
    /// Train at many L2 strengths, each with the spectrum of its Hessian, into a directory of files
    Sweep(sweep::SweepCommand),
    /// Time gradient and Hessian-vector product
    Hvp(hvp::Hvp),
}

fn main() -> ExitCode {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // Batches run side by side; see the crate's `objective`.
        // SAFETY: there is no other thread yet.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
    let parsed = config_file::parse("analyze", |cli: &Cli| match &cli.task {
        Task::Analyze(task) => task.config.as_deref(),
        _ => None,
    });
    mpi_context::run(|| run(parsed?))
}

fn run(parsed: Parsed<Cli>) -> Result<(), Error> {
    let Parsed { cli, given } = parsed;
    refuse_ignored(&cli.task, &given)?;
    progress_display::show();
    signals::listen();
    let report = match cli.task {
        Task::Analyze(task) => task.run(),
        Task::Train(task) => task.run(),
        Task::Spectrum(task) => task.run(),
        Task::Density(task) => task.run(),
        Task::Trace(task) => task.run(),
        Task::Surface(task) => task.run(),
        Task::Connect(task) => task.run(),
        Task::Sharpness(task) => task.run(),
        Task::Sweep(task) => task.run(),
        Task::Hvp(task) => task.run(),
    };
    match report {
        Err(error @ Error::Unfinished { .. }) => output::unfinished_report(&error),
        report => report?,
    }
    .print(cli.json)
}

/// Refuses flags that would change nothing.
fn refuse_ignored(task: &Task, given: &[String]) -> Result<(), Error> {
    let mut rules = match task {
        Task::Train(task) => task.network.ignored(),
        Task::Sweep(task) => task.network.ignored(),
        Task::Analyze(task) => task.ignored(),
        Task::Connect(task) => task.ignored(),
        Task::Surface(task) => task.point.setting.ignored(),
        Task::Spectrum(task) => task.point.setting.ignored(),
        Task::Density(task) => task.point.setting.ignored(),
        Task::Trace(task) => task.point.setting.ignored(),
        Task::Sharpness(task) => task.point.setting.ignored(),
        Task::Hvp(task) => task.point.setting.ignored(),
    }
    .into_iter();
    let ignored = rules.find_map(|(flags, why)| {
        let mut given = given.iter().filter(|name| flags.contains(&name.as_str()));
        given.next().map(|name| (name, why))
    });
    match ignored {
        Some((name, why)) => Err(Error::Invalid(format!(
            "--{name} would change nothing: {why}"
        ))),
        None => Ok(()),
    }
}

/// Flags that change nothing, and why.
type Ignored = Vec<(&'static [&'static str], &'static str)>;
