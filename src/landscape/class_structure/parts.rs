//! [`ClassParts`]: the Gauss–Newton matrix as a sum of four operators.

use std::sync::Arc;

use candle_core::DType;

use super::class_gradients::{ClassGradients, outer_products, trace};
use crate::checkpoint::fingerprint;
use crate::error::Result;
use crate::losses::Curvature;
use crate::objective::Objective;
use crate::operator::LinearOperator;
use crate::vector::axpy;

/// The four parts of the Gauss–Newton matrix G of a cross-entropy without its L2 term, at a fixed θ:
///
/// G = class + cross + within + own
///
/// [`ClassStructure`](super::ClassStructure) has the definitions. All parts are positive semidefinite. The running statistics of
/// batch normalisation must not change while the parts are used.
///
/// ```
/// use loss_landscape::landscape::ClassParts;
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let parts = ClassParts::new(&objective)?;
/// let v = direction::gaussian(model.parameters(), 0);
/// let mut sum = vec![0.0; objective.dim()];
/// for part in [&parts.class, &parts.cross, &parts.within, &parts.own] {
///     sum.iter_mut().zip(part.apply(&v)?).for_each(|(s, x)| *s += x);
/// }
/// let whole = objective.gauss_newton().apply(&v)?;
/// assert!(sum.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-12));
/// assert_eq!(parts.cross.trace()?.value, 0.0); // 2 classes
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ClassParts {
    /// Σ_c w_c g_c g_cᵀ: rank at most K.
    pub class: ClassPart,
    /// Σ_{c ≠ c'} w_{c,c'} (g_{c,c'} − g_c)(g_{c,c'} − g_c)ᵀ: rank at most K(K − 2).
    pub cross: ClassPart,
    /// Σ_{c ≠ c'} Σ_i w_{i,c'} (g_{i,c'} − g_{c,c'})(g_{i,c'} − g_{c,c'})ᵀ, over the samples i of class c.
    pub within: ClassPart,
    /// Σ_i w_{i,y} g_{i,y} g_{i,y}ᵀ with the class y of each sample: the terms with c = c'.
    pub own: ClassPart,
}

/// One of the [`ClassParts`], as an operator.
#[derive(Clone, Debug)]
pub struct ClassPart {
    kind: Kind,
    shared: Arc<Shared>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Class,
    Cross,
    Within,
    Own,
}

pub(super) struct Shared {
    pub(super) objective: Objective,
    pub(super) theta: Vec<f64>,
    pub(super) gradients: ClassGradients,
}

/// Without the long vectors.
impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("objective", &self.objective)
            .field("counts", &self.gradients.counts)
            .finish_non_exhaustive()
    }
}

impl ClassParts {
    /// The parts at the model's current θ. Computes the mean gradients of the class and the cross-class part, which takes the time
    /// of K gradients for K classes, and stores K² vectors of the length of θ.
    ///
    /// # Errors
    /// A loss other than cross-entropy; samples that are divided among ranks or read in parts; batch statistics; too little
    /// memory; gradients that are not finite.
    pub fn new(objective: &Objective) -> Result<Self> {
        let theta = objective.parameters().to_flat()?;
        let gradients = ClassGradients::new(objective, &theta)?;
        let shared = Arc::new(Shared {
            objective: objective.clone(),
            theta,
            gradients,
        });
        let part = |kind| ClassPart {
            kind,
            shared: shared.clone(),
        };
        Ok(Self {
            class: part(Kind::Class),
            cross: part(Kind::Cross),
            within: part(Kind::Within),
            own: part(Kind::Own),
        })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.class.shared
    }
}

impl LinearOperator for ClassPart {
    fn dim(&self) -> usize {
        self.shared.objective.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let Shared {
            objective,
            theta,
            gradients,
        } = &*self.shared;
        for v in vectors {
            objective.parameters().check_vector(v, "vector")?;
        }
        match self.kind {
            Kind::Class => Ok(outer_products(gradients.class(), vectors)),
            Kind::Cross => Ok(outer_products(gradients.cross(), vectors)),
            Kind::Own => objective.products(Some(theta), vectors, Curvature::OwnClass),
            Kind::Within => {
                let mut products =
                    objective.products(Some(theta), vectors, Curvature::OtherClasses)?;
                let between = outer_products(gradients.both(), vectors);
                for (product, between) in products.iter_mut().zip(between) {
                    axpy(-1.0, &between, product);
                }
                Ok(products)
            }
        }
    }

    fn state(&self) -> Result<u64> {
        let Shared {
            objective, theta, ..
        } = &*self.shared;
        Ok(fingerprint(&[&objective.point(Some(theta))?]))
    }

    fn dtype(&self) -> Option<DType> {
        Some(self.shared.objective.parameters().dtype())
    }

    fn cancellation(&self) -> Result<f64> {
        Ok(match self.kind {
            Kind::Within => trace(self.shared.gradients.both()),
            _ => 0.0,
        })
    }
}
