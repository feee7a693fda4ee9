//! Operators, by their size.

use super::{Bundle, Show};
use crate::error::Result;
use crate::landscape::ClassPart;
use crate::operator::{
    Block, Blocks, Dense, Distributed, EmpiricalFisher, External, Fisher, GaussNewton,
    GradientCovariance, Hessian, KroneckerFactored, KroneckerInverse, LinearOperator, Recorded,
    Scaled, Shifted,
};

fn size(name: &str, operator: &impl LinearOperator) -> String {
    let n = operator.dim();
    match operator.dtype() {
        Some(dtype) => format!("{name}, {n} × {n} ({dtype:?})"),
        None => format!("{name}, {n} × {n}"),
    }
}

macro_rules! show_size {
    ($($name:literal: [$($generics:tt)*] $type:ty),+ $(,)?) => {
        $(impl<$($generics)*> Show for $type {
            fn bundle(&self) -> Result<Bundle> {
                Ok(Bundle::text(size($name, self)))
            }
        })+
    };
}
show_size!(
    "Hessian": [] Hessian,
    "GaussNewton": [] GaussNewton,
    "Fisher": [] Fisher,
    "EmpiricalFisher": [] EmpiricalFisher,
    "GradientCovariance": [] GradientCovariance,
    "ClassPart": [] ClassPart,
    "Block": [A: LinearOperator] Block<A>,
    "KroneckerFactored": [] KroneckerFactored,
    "KroneckerInverse": [] KroneckerInverse,
    "External": [] External,
    "Distributed": [A: LinearOperator] Distributed<A>,
    "Recorded": [A: LinearOperator] Recorded<A>,
    "Scaled": [A: LinearOperator] Scaled<A>,
    "Shifted": [A: LinearOperator] Shifted<A>,
);

impl<A: LinearOperator> Show for Blocks<A> {
    fn bundle(&self) -> Result<Bundle> {
        let names = self.names().join(", ");
        Ok(Bundle::text(format!(
            "{}: {names}",
            size("Blocks of a matrix", self.operator())
        )))
    }
}

impl Show for Dense {
    fn bundle(&self) -> Result<Bundle> {
        self.matrix().bundle()
    }

    fn inline(&self) -> Result<String> {
        Ok(size("Dense", self))
    }
}
