//! [`Hessian`], [`GaussNewton`], [`Fisher`], [`EmpiricalFisher`]: curvature matrices of an objective.

use std::ops::Range;

use candle_core::DType;

use super::{Block, Blocks, LinearOperator, attention_heads, block_pattern, check_restricted};
use crate::checkpoint::fingerprint;
use crate::error::{Error, Result};
use crate::losses::Curvature;
use crate::objective::Objective;

macro_rules! curvature_operator {
    ($(#[$meta:meta])* $name:ident, $curvature:expr, $method:ident, $(#[$of:meta])*) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            pub(super) objective: Objective,
            pub(super) theta: Option<Vec<f64>>,
        }

        impl $name {
            /// The same matrix at a fixed θ, which does not follow the model. The model's parameters do not change.
            /// Running statistics of batch normalisation are those of the model at each product.
            ///
            /// # Errors
            /// A θ of the wrong length or not finite.
            pub fn at(mut self, theta: Vec<f64>) -> Result<Self> {
                self.objective.parameters().check_vector(&theta, "point")?;
                self.theta = Some(theta);
                Ok(self)
            }

            /// The block of the parameters with these names, or with these prefixes: `"layers.0"` means
            /// `layers.0.bias` and `layers.0.weight`.
            ///
            /// # Errors
            /// No names; a name that no parameter has.
            pub fn block(self, names: &[&str]) -> Result<Block<Self>> {
                let ranges = param_ranges(&self.objective, names)?;
                Block::from_ranges(self, ranges)
            }

            /// The diagonal blocks of the parameters whose names match a pattern.
            ///
            /// A pattern consists of segments between dots, like a name. `*` stands for any characters within a segment.
            /// The pattern is matched to the first segments of a name. All parameters with the same matching prefix form a
            /// block, and the prefix is its name:
            ///
            /// | pattern | blocks |
            /// | --- | --- |
            /// | `blocks.*` | one per transformer block |
            /// | `blocks.*.attention.query` | the query's weight and bias together, in each transformer block |
            /// | `*` | one per first segment, such as `blocks`, `norm` and `tokens` |
            /// | `**` | one per parameter |
            /// | `**.weight` | one per weight: `**` stands for one or more segments, and the whole name must match |
            /// | `blocks.*.norm*,blocks.*` | several patterns; a parameter belongs to the first that it matches |
            ///
            /// ```
            /// # use loss_landscape::prelude::*;
            /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
            /// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?;
            /// let data = data.to_dtype(DType::F32)?;
            /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
            #[doc = concat!("let matrix = objective.", stringify!($method), "();")]
            /// assert_eq!(matrix.clone().by_block("layers.*")?.names(), ["layers.0", "layers.1"]);
            /// let weights = matrix.by_block("**.weight")?;
            /// assert_eq!(weights.names(), ["layers.0.weight", "layers.1.weight"]);
            /// # Ok::<(), Error>(())
            /// ```
            ///
            /// # Errors
            /// A pattern that selects no parameters; the message lists all parameters.
            pub fn by_block(self, pattern: &str) -> Result<Blocks<Self>> {
                let blocks = block_pattern::select(pattern, &self.objective.parameters().blocks())?;
                Blocks::new(self, blocks)
            }

            /// The same blocks as [`by_block`](Self::by_block), each split by attention head.
            ///
            /// Head i of a block called `attention` is `attention.head<i>`: the rows of the query, key and value weights and
            /// biases, and the columns of the output weight, that belong to head i. Parameters that belong to no head, such
            /// as the output bias, remain a block of the original name. If a block contains several attention layers, the heads with
            /// the same index form one block.
            ///
            /// # Errors
            /// As [`by_block`](Self::by_block); a model that does not list its layers; no parameters of attention heads.
            pub fn by_head(self, pattern: &str) -> Result<Blocks<Self>> {
                let blocks = block_pattern::select(pattern, &self.objective.parameters().blocks())?;
                let parts = attention_heads::split(&self.objective, blocks)?;
                Blocks::new(self, parts)
            }
        }

        impl Objective {
            $(#[$of])*
            pub fn $method(&self) -> $name {
                $name {
                    objective: self.clone(),
                    theta: None,
                }
            }
        }

        impl LinearOperator for $name {
            fn dim(&self) -> usize {
                self.objective.dim()
            }

            fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
                let theta = self.theta.as_deref();
                Ok(self.objective.products(theta, &[v], $curvature)?.swap_remove(0))
            }

            fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
                self.objective.products(self.theta.as_deref(), vectors, $curvature)
            }

            fn apply_restricted(
                &self,
                ranges: &[Range<usize>],
                vectors: &[Vec<f64>],
            ) -> Result<Vec<Vec<f64>>> {
                check_restricted(ranges, vectors, self.dim())?;
                let theta = self.theta.as_deref();
                self.objective.block_products(theta, vectors, $curvature, Some(ranges))
            }

            fn state(&self) -> Result<u64> {
                Ok(fingerprint(&[&self.objective.point(self.theta.as_deref())?]))
            }

            fn dtype(&self) -> Option<DType> {
                Some(self.objective.parameters().dtype())
            }
        }
    };
}

curvature_operator! {
    /// The Hessian H = ∇²L(θ) of an objective at its model's θ, n × n for n parameters.
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// // L(b, w) = b² + 4w².
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let hessian = Objective::of(&line, &data, Loss::Mse)?.hessian();
    /// assert_eq!(hessian.apply(&[1.0, 1.0])?, [2.0, 8.0]);
    /// let fixed = hessian.at(vec![3.0, 3.0])?; // the same matrix, because the loss is quadratic
    /// assert_eq!(fixed.dense()?.matrix(), array![[2.0, 0.0], [0.0, 8.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    Hessian, Curvature::Hessian, hessian,
    /// The Hessian of this objective, as an operator. Computes nothing yet.
}

curvature_operator! {
    /// The generalised Gauss–Newton matrix G = (1/n) Σ JᵢᵀHᵢJᵢ + 2λI (Schraudolph, 2002): the Hessian without the second
    /// derivatives of the network.
    ///
    /// Both losses of [`Loss`](crate::objective::Loss) are convex in the outputs; all eigenvalues of G are then at least 2λ.
    /// With a loss of your own ([`Objective::from_loss`]) that is not convex in the outputs, Hᵢ and G can have negative
    /// eigenvalues, and G is not a Fisher matrix.
    ///
    /// ```
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?.with_l2(0.01)?;
    /// let g = objective.gauss_newton().dense()?.eigen()?.values();
    /// let h = objective.hessian().dense()?.eigen()?.values();
    /// assert!(g[12] > 0.02 - 1e-12); // no eigenvalue below 2λ
    /// assert!(h[12] < 0.02);
    /// # Ok::<(), Error>(())
    /// ```
    GaussNewton, Curvature::GaussNewton, gauss_newton,
    /// The Gauss–Newton matrix of this objective, as an operator.
}

curvature_operator! {
    /// The Fisher information E ∇ln p ∇ln pᵀ of the model's own predictions p ∝ exp(−ℓ), averaged over the inputs. For
    /// cross-entropy and for squared error it equals the Gauss–Newton matrix of the loss without its L2 term (Martens, "New
    /// insights and perspectives on the natural gradient method", 2020), as which it is computed, without sampling.
    ///
    /// ```
    /// use loss_landscape::operator::Shifted;
    /// use loss_landscape::prelude::*;
    ///
    /// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
    /// let model =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?.with_l2(0.01)?;
    /// let v = direction::gaussian(model.parameters(), 0);
    /// let fisher = Shifted::new(objective.fisher(), 2.0 * 0.01)?;
    /// for (a, b) in fisher
    ///     .apply(&v)?
    ///     .iter()
    ///     .zip(objective.gauss_newton().apply(&v)?)
    /// {
    ///     assert!((a - b).abs() < 1e-12);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    Fisher, Curvature::Fisher, fisher,
    /// The Fisher information of this objective's model, as an operator.
}

curvature_operator! {
    /// The empirical Fisher matrix (1/n) Σ gᵢgᵢᵀ: the second moment of the per-sample gradients. It is not the Fisher
    /// information (Kunstner, Hennig and Balles, 2019).
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// // The losses (w·x + b)² at x = ±2 have the gradients (0, 0) and (4, 8) at b = 1, w = ½.
    /// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
    /// let data = Dataset::regression(&x, &x.zeros_like()?)?;
    /// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// line.parameters().set_flat(&[1.0, 0.5])?;
    /// let objective = Objective::of(&line, &data, Loss::Mse)?;
    /// let moment = objective.empirical_fisher().dense()?;
    /// assert_eq!(moment.matrix(), array![[8.0, 16.0], [16.0, 32.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    EmpiricalFisher, Curvature::Gradients, empirical_fisher,
    /// The second moment of the per-sample gradients, as an operator.
}

/// The ranges in θ of the parameters whose name is one of `names` or starts with one of them and a dot, ascending.
fn param_ranges(objective: &Objective, names: &[&str]) -> Result<Vec<Range<usize>>> {
    let blocks = objective.parameters().blocks();
    let is_in = |block: &str, name: &str| {
        let rest = block.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    for name in names {
        if !blocks.iter().any(|(block, _)| is_in(block, name)) {
            let known: Vec<_> = blocks.iter().map(|(block, _)| block.as_str()).collect();
            return Err(Error::invalid(format!(
                "there is no parameter `{name}`; the parameters are {}",
                known.join(", ")
            )));
        }
    }
    let chosen = blocks
        .iter()
        .filter(|(block, _)| names.iter().any(|name| is_in(block, name)));
    Ok(chosen.map(|(_, range)| range.clone()).collect())
}
