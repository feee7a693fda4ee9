//! `landscape`: the command line of the crate.

mod analyze;
mod blocks;
mod classes;
mod compare;
mod config_file;
mod connect;
mod data;
mod dataset;
mod density;
mod figure_args;
mod hvp;
mod influence;
mod inspect;
mod limits;
mod llc;
mod matrix_args;
mod mpi_context;
mod network;
mod network_args;
mod output;
mod path_args;
mod progress_display;
mod sharpness;
mod signals;
mod spectrum;
mod stability;
mod surface;
mod sweep;
mod trace;
mod train;
mod training_args;
mod view;
mod weight_args;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loss_landscape::Error;

use self::config_file::Parsed;

/// Analyse the loss landscape of a neural network
#[derive(Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
    /// Print the result as one JSON object to stdout
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Train a network and save its weights
    Train(train::Train),
    /// Train a network and write a report on its loss landscape
    #[command(args_override_self = true)]
    Analyze(analyze::Analyze),
    /// Compare networks: reports of `analyze` in one table
    Compare(compare::Compare),
    /// Extreme eigenvalues of a curvature matrix, with residuals
    Spectrum(spectrum::Spectrum),
    /// Spectral density by stochastic Lanczos quadrature
    Density(density::Density),
    /// Trace and squared Frobenius norm, with standard errors
    Trace(trace::Trace),
    /// Spectra of the diagonal blocks of a curvature matrix, such as layers or attention heads, and how they differ
    Blocks(blocks::Blocks),
    /// Loss on a plane through the weights
    Surface(surface::Surface),
    /// Mode connectivity: loss barriers and low-loss paths between two networks
    Connect(connect::Connect),
    /// Sharpness: how much the loss increases within a given radius
    Sharpness(sharpness::Sharpness),
    /// Local learning coefficient: how degenerate a minimum is
    Llc(llc::Llc),
    /// Train a network and compare its sharpness with the threshold of the optimizer: the edge of stability
    Stability(stability::StabilityCommand),
    /// Class structure: which outliers of the Gauss–Newton matrix come from classes and pairs of classes
    Classes(classes::Classes),
    /// Influence of each training sample on the loss of test samples
    Influence(influence::InfluenceCommand),
    /// Train at many L2 strengths and compute the Hessian spectrum at each
    Sweep(sweep::SweepCommand),
    /// Time loss, gradient and Hessian-vector product
    Hvp(hvp::Hvp),
    /// Inputs, parameters and operators of an ONNX file, and whether its derivatives are hand-derived
    Inspect(inspect::Inspect),
    /// List and download public datasets
    Data(data::Data),
    /// Write one page with all figures of a directory of results, linked with each other
    View(view::View),
}

fn main() -> ExitCode {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // Batches run in parallel; see the crate's `objective`.
        // SAFETY: no other thread is running yet.
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
    refuse_invalid(&cli.task)?;
    progress_display::show();
    signals::listen();
    let report = match cli.task {
        Task::Analyze(task) => task.run(),
        Task::Compare(task) => task.run(),
        Task::Train(task) => task.run(),
        Task::Spectrum(task) => task.run(),
        Task::Density(task) => task.run(),
        Task::Trace(task) => task.run(),
        Task::Blocks(task) => task.run(),
        Task::Surface(task) => task.run(),
        Task::Connect(task) => task.run(),
        Task::Sharpness(task) => task.run(),
        Task::Llc(task) => task.run(),
        Task::Influence(task) => task.run(),
        Task::Stability(task) => task.run(),
        Task::Classes(task) => task.run(),
        Task::Sweep(task) => task.run(),
        Task::Hvp(task) => task.run(),
        Task::Inspect(task) => task.run(),
        Task::Data(task) => task.run(),
        Task::View(task) => task.run(),
    };
    match report {
        Err(error @ Error::Unfinished { .. }) => output::unfinished_report(&error),
        report => report?,
    }
    .print(cli.json)
}

/// Rejects flags that have no effect with the other flags.
fn refuse_ignored(task: &Task, given: &[String]) -> Result<(), Error> {
    let mut rules = match task {
        Task::Train(task) => task.ignored(),
        Task::Stability(task) => task.ignored(),
        Task::Sweep(task) => task.ignored(),
        Task::Analyze(task) => task.ignored(),
        Task::Connect(task) => task.ignored(),
        Task::Surface(task) => task.ignored(),
        Task::Spectrum(task) => task.ignored(),
        Task::Density(task) => task.ignored(),
        Task::Trace(task) => task.matrix.ignored(),
        Task::Blocks(task) => task.ignored(),
        Task::Sharpness(task) => task.point.ignored(),
        Task::Llc(task) => task.point.ignored(),
        Task::Influence(task) => task.ignored(),
        Task::Classes(task) => task.ignored(),
        Task::Hvp(task) => task.point.ignored(),
        Task::Compare(_) | Task::Inspect(_) | Task::Data(_) | Task::View(_) => Vec::new(),
    }
    .into_iter();
    let ignored = rules.find_map(|(flags, why)| {
        let mut given = given.iter().filter(|name| flags.contains(&name.as_str()));
        given.next().map(|name| (name, why))
    });
    match ignored {
        Some((name, why)) => Err(Error::Invalid(format!("--{name} has no effect: {why}"))),
        None => Ok(()),
    }
}

/// Rejects values out of range.
fn refuse_invalid(task: &Task) -> Result<(), Error> {
    match task {
        Task::Train(task) => task.check(),
        Task::Sweep(task) => task.check(),
        Task::Analyze(task) => task.check(),
        Task::Connect(task) => task.check(),
        Task::Surface(task) => task.check(),
        Task::Spectrum(task) => task.check(),
        Task::Density(task) => task.check(),
        Task::Trace(task) => task.check(),
        Task::Blocks(task) => task.check(),
        Task::Sharpness(task) => task.check(),
        Task::Llc(task) => task.check(),
        Task::Influence(task) => task.check(),
        Task::Stability(task) => task.check(),
        Task::Classes(task) => task.check(),
        Task::Hvp(task) => task.check(),
        Task::Compare(_) | Task::Inspect(_) | Task::Data(_) | Task::View(_) => Ok(()),
    }
}

/// Flags that have no effect, and the reason.
type Ignored = Vec<(&'static [&'static str], &'static str)>;
