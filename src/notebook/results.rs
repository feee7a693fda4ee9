//! Results and other values in a line or two of text.

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::numbers::{float, significant};
use super::{Bundle, Show};
use crate::embedding::{Distances, Encoded};
use crate::error::{Error, Result, counted};
use crate::landscape::{
    AverageSharpness, ClassParts, ClassStructureReport, CriticalSharpness, Curve,
    DiagonalPacBayesBound, ExtremeEigenvalues, FisherRaoNorm, FlatnessReport, HiddenUnits,
    InfluenceReport, KeskarSharpness, LearningCoefficientReport, LearningCoefficientVerdict,
    MSharpness, Matching, NormalizedSharpness, PreconditionedSharpness, RandomSharpness,
    RelativeFlatness, RunningStatistics, SamStep, StableRate, StatisticsSource, StepChange,
    WorstCase,
};
use crate::objective::{DerivativeCheck, Engine, Score};
use crate::operator::LinearOperator;
use crate::spectral::{
    Alignment, BlockSpectrum, Bracket, Count, Density, Diagonal, Eigenpair, Estimate, Followed,
    Inertia, LinearSolution, OutlierCount, PowerLaw, SolverVerdict,
};

macro_rules! show_as_text {
    ($format:literal: $([$($generics:tt)*] $type:ty),+ $(,)?) => {
        $(impl<$($generics)*> Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(Bundle::text(format!($format, self)))
            }
        })+
    };
}
show_as_text!("{}":
    [] Alignment, [] AverageSharpness, [] Bracket, [] ClassStructureReport, [] Count, [] CriticalSharpness,
    [] DerivativeCheck, [] DiagonalPacBayesBound, [] Engine, [] Error, [] Estimate, [] FisherRaoNorm,
    [] FlatnessReport, [] Inertia, [] InfluenceReport, [] KeskarSharpness, [] LearningCoefficientReport,
    [] LearningCoefficientVerdict, [] LinearSolution, [] MSharpness, [] NormalizedSharpness, [] OutlierCount,
    [] PowerLaw, [] PreconditionedSharpness, [] RandomSharpness, [] RelativeFlatness, [] SamStep, [] SolverVerdict,
    [] StableRate, [] StatisticsSource, [] StepChange, [] WorstCase,
);
show_as_text!("{:?}":
    [] Path, [] PathBuf, [T: std::fmt::Debug] Range<T>, [T: std::fmt::Debug] RangeInclusive<T>,
);
show_as_text!("{:.3?}": [] Duration);
show_as_text!("{:#}": [] serde_json::Value);

impl Show for Score {
    fn bundle(&self) -> Result<Bundle> {
        let accuracy = self
            .accuracy
            .map(|accuracy| format!(", accuracy {}", float(accuracy)));
        let loss = float(self.loss);
        Ok(Bundle::text(format!(
            "loss {loss}{}",
            accuracy.unwrap_or_default()
        )))
    }
}

impl Show for ClassParts {
    fn bundle(&self) -> Result<Bundle> {
        let n = self.class.dim();
        Ok(Bundle::text(format!(
            "class, cross-class, within-class and own-class part of the Gauss–Newton matrix, {n} × {n}"
        )))
    }
}

impl Show for Eigenpair {
    fn bundle(&self) -> Result<Bundle> {
        let (value, residual) = (float(self.value), significant(self.residual, 3));
        let vector = match self.vector.is_empty() {
            true => String::new(),
            false => format!(", vector {}", self.vector.inline()?),
        };
        Ok(Bundle::text(format!(
            "eigenvalue {value}, residual {residual}{vector}"
        )))
    }
}

impl Show for Followed {
    fn bundle(&self) -> Result<Bundle> {
        let checked = match self.points_since_check {
            0 => "at this point".to_owned(),
            points => format!("{} ago", counted(points, "point")),
        };
        Ok(Bundle::text(format!(
            "eigenvalues {}\nresiduals {}\nfrom {}, checked for missed eigenvalues {checked}",
            self.spectrum.values().inline()?,
            self.spectrum.residuals().inline()?,
            counted(self.spectrum.products, "product")
        )))
    }
}

impl Show for Density {
    fn bundle(&self) -> Result<Bundle> {
        let probes = counted(self.probes.len(), "probe");
        let (source, nodes_are) = match self.is_exact() {
            true => ("all eigenvalues".to_owned(), "eigenvalues"),
            false => (probes, "nodes"),
        };
        let products = counted(self.products, "product");
        let nodes = || self.probes.iter().flat_map(|probe| &probe.nodes);
        let low = nodes().fold(f64::INFINITY, |low, x| low.min(*x));
        let high = nodes().fold(f64::NEG_INFINITY, |high, x| high.max(*x));
        Ok(Bundle::text(format!(
            "spectral density of a matrix of size {} from {source} and {products}, \
             {nodes_are} from {} to {}",
            self.dim,
            significant(low, 5),
            significant(high, 5)
        )))
    }
}

impl Show for BlockSpectrum {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(format!(
            "{}, {} × {}\nlargest eigenvalue {}\nsmallest eigenvalue {}\ntrace {}",
            self.name,
            self.dim(),
            self.dim(),
            self.largest,
            self.smallest,
            self.trace()
        )))
    }
}

impl Show for Diagonal {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(format!(
            "values {}\nstandard errors {}\nfrom {}",
            self.values.inline()?,
            self.standard_errors.inline()?,
            counted(self.samples, "sample")
        )))
    }
}

impl Show for Curve {
    fn bundle(&self) -> Result<Bundle> {
        let points = self.points();
        Ok(Bundle::text(format!(
            "curve with {} in {}, length {}",
            counted(points.len(), "control point"),
            counted(points[0].len(), "parameter"),
            significant(self.length(), 5)
        )))
    }
}

impl Show for HiddenUnits {
    fn bundle(&self) -> Result<Bundle> {
        self.kinds.concat().bundle()
    }

    fn inline(&self) -> Result<String> {
        let axes = self
            .kinds
            .iter()
            .flatten()
            .map(|a| format!("{} (axis {})", a.parameter, a.axis));
        Ok(axes.collect::<Vec<_>>().join(", "))
    }
}

impl Show for Matching {
    fn bundle(&self) -> Result<Bundle> {
        let sizes: Vec<_> = self.permutations.iter().map(Vec::len).collect();
        Ok(Bundle::text(format!(
            "permutations of hidden layers of {sizes:?} units, similarity {} before and {} after",
            significant(self.similarity_before, 5),
            significant(self.similarity_after, 5)
        )))
    }
}

impl Show for RunningStatistics {
    fn bundle(&self) -> Result<Bundle> {
        let layers = counted(self.values()?.len(), "layer");
        Ok(Bundle::text(format!("running statistics of {layers}")))
    }
}

impl Show for Distances {
    fn bundle(&self) -> Result<Bundle> {
        let count = counted(self.count(), "point");
        Ok(Bundle::text(format!("distances between {count}")))
    }
}

impl Show for Encoded {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(format!(
            "rms error {}, reconstruction error {}; coordinates of shape {:?}",
            significant(self.rms_error, 5),
            significant(self.reconstruction_error, 5),
            self.coordinates.shape()
        )))
    }
}

impl Show for ExtremeEigenvalues {
    fn bundle(&self) -> Result<Bundle> {
        Ok(Bundle::text(format!(
            "smallest: {}\nlargest: {}\nerrors: {}\nchecked for missed eigenvalues: {} of {} points",
            block(&self.smallest)?,
            block(&self.largest)?,
            block(&self.errors)?,
            self.checked.iter().filter(|checked| **checked).count(),
            self.smallest.len()
        )))
    }
}

fn block(values: &impl Show) -> Result<String> {
    let bundle = values.bundle()?;
    Ok(bundle.get("text/plain").unwrap_or_default().to_owned())
}
