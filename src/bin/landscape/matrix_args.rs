//! Flags for the matrix that `spectrum`, `density` and `trace` analyse.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Arg, Args, Command, ValueEnum};
use loss_landscape::Error;
use loss_landscape::operator::{Distributed, External, Recorded};
use loss_landscape::prelude::*;
use loss_landscape::serde_json::{Value, json};

use crate::limits::at_least;
use crate::network_args::{OperatorName, PointArgs};
use crate::output::Report;
use crate::path_args::path;
use crate::{Ignored, mpi_context, signals};

/// A curvature matrix of a network, or a matrix of another process.
#[derive(Args)]
pub struct MatrixArgs {
    #[command(flatten)]
    point: PointArgs,
    /// Curvature matrix to analyse
    #[arg(long, value_enum, default_value = "hessian")]
    operator: OperatorName,
    /// Command line of a process that computes matrix–vector products, such as "python hvp.py", instead of a network; docs/external.md describes it
    #[arg(long, value_name = "COMMAND")]
    external: Option<String>,
    /// Time that the process of --external may be silent, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    external_timeout: u64,
    /// Checkpoint file for matrix–vector products, 8 bytes per parameter and product; resumes from it if it exists
    #[arg(long, value_name = "FILE", value_parser = path())]
    resume: Option<PathBuf>,
    /// How work is split across MPI ranks
    #[arg(long, value_enum, default_value = "samples")]
    divide: DivideName,
}

/// How work is split across MPI ranks.
#[derive(Clone, Copy, ValueEnum)]
enum DivideName {
    /// Each rank has a part of the samples
    Samples,
    /// Each rank multiplies a part of the vectors of a block, such as probes
    Vectors,
}

/// A matrix and where it comes from.
pub struct Matrix {
    pub operator: Box<dyn LinearOperator>,
    source: Source,
}

enum Source {
    Network(Box<Objective>),
    External { command: String, name: String },
}

/// Flags of the network, its data and its curvature matrix.
static NETWORK: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let network = PointArgs::augment_args(Command::new("network"));
    let names = network.get_arguments().filter_map(Arg::get_long);
    let names = names.map(|name| -> &'static str { name.to_owned().leak() });
    names.chain(["operator", "divide"]).collect()
});

impl MatrixArgs {
    pub fn ignored(&self) -> Ignored {
        match self.external {
            Some(_) => vec![(
                &NETWORK,
                "the matrix of --external has no network of this program",
            )],
            None => {
                let mut ignored = self.point.ignored();
                ignored.push((&["external-timeout"], "it needs --external"));
                ignored
            }
        }
    }

    pub fn check(&self) -> Result<(), Error> {
        at_least(1, "external-timeout", self.external_timeout as usize)?;
        self.point.setting.check()
    }

    pub fn build(&self) -> Result<Matrix, Error> {
        let (operator, source) = match &self.external {
            Some(command) => self.external(command)?,
            None => self.network()?,
        };
        let operator = match (&self.resume, mpi_context::ranks()) {
            (Some(file), Some(ranks)) => Box::new(Recorded::on_ranks(operator, file, ranks)?),
            (Some(file), None) => Box::new(operator.with_checkpoint(file)?),
            (None, _) => operator,
        };
        signals::on_interrupt(match &self.resume {
            Some(file) => format!(
                "products are saved in {}: run the same command to resume",
                file.display()
            ),
            None => "nothing is saved; use --resume FILE to save products".to_owned(),
        });
        Ok(Matrix { operator, source })
    }

    fn external(&self, command: &str) -> Result<(Box<dyn LinearOperator>, Source), Error> {
        mpi_context::require_single_process("--external")?;
        let timeout = Duration::from_secs(self.external_timeout);
        let external = External::start_with_timeout(command, timeout)?;
        let source = Source::External {
            command: command.to_owned(),
            name: external.name(),
        };
        Ok((Box::new(external), source))
    }

    fn network(&self) -> Result<(Box<dyn LinearOperator>, Source), Error> {
        let objective = match self.divide {
            DivideName::Samples => self.point.distributed()?,
            DivideName::Vectors => self.point.objective()?,
        };
        let operator: Box<dyn LinearOperator> = match self.operator {
            OperatorName::Hessian => Box::new(objective.hessian()),
            OperatorName::Ggn => Box::new(objective.gauss_newton()),
            OperatorName::Fisher => Box::new(objective.fisher()),
        };
        let operator = match (self.divide, mpi_context::ranks()) {
            (DivideName::Vectors, Some(ranks)) => Box::new(Distributed::new(operator, ranks)),
            _ => operator,
        };
        Ok((operator, Source::Network(Box::new(objective))))
    }
}

impl Matrix {
    /// A report on the matrix that also says where it comes from.
    pub fn report(&self, mut text: String, mut json: Value) -> Report {
        let (command, name) = match &self.source {
            Source::Network(objective) => return Report::new(objective, text, json),
            Source::External { command, name } => (command, name),
        };
        json["parameters"] = self.operator.dim().into();
        json["external"] = json!({ "command": command, "name": name });
        text += &match name.is_empty() {
            true => format!("products: {command}\n"),
            false => format!("products: {command}, matrix \"{name}\"\n"),
        };
        Report { text, json }
    }
}
