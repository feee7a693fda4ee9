//! [`Shifted`], [`Scaled`], [`Block`]: operators made of others.

use std::ops::Range;
use std::sync::Arc;

use super::{LinearOperator, check_length, images};
use crate::error::{Error, Result, check_finite};
use crate::vector::{axpy, largest};

/// An operator that another one holds.
type Shared = Arc<dyn LinearOperator + Send + Sync>;

/// A + λI.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?; // eigenvalues 3 and 1
/// let shifted = Shifted::new(a, -1.0)?;
/// assert_eq!(shifted.apply(&[1.0, 1.0])?, [2.0, 2.0]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Shifted {
    operator: Shared,
    shift: f64,
}

impl Shifted {
    /// `operator` with `shift` added to its diagonal.
    ///
    /// # Errors
    /// A shift that is not finite.
    pub fn new(operator: impl LinearOperator + Send + Sync + 'static, shift: f64) -> Result<Self> {
        check_finite(&[shift], "the shift")?;
        Ok(Self {
            operator: Arc::new(operator),
            shift,
        })
    }
}

impl LinearOperator for Shifted {
    fn dim(&self) -> usize {
        self.operator.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        let mut product = self.operator.apply(v)?;
        axpy(self.shift, v, &mut product);
        Ok(product)
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut products = self.operator.apply_block(vectors)?;
        for (product, v) in products.iter_mut().zip(vectors) {
            axpy(self.shift, v, product);
        }
        Ok(products)
    }

    delegate!(operator: state, dtype, cancelled);
}

/// DAD with a diagonal matrix D: A in other units.
///
/// D stays as it was given. Where it belongs to some θ, as |θ| does in adaptive sharpness, give an operator at that θ:
/// `objective.hessian().at(theta)?`. Otherwise A follows the model and D does not.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[4.0, 2.0], [2.0, 4.0]])?;
/// let scaled = Scaled::new(a, vec![1.0, 0.5])?;
/// assert_eq!(scaled.dense()?.matrix(), array![[4.0, 1.0], [1.0, 1.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scaled<A> {
    operator: A,
    diagonal: Vec<f64>,
}

impl<A: LinearOperator> Scaled<A> {
    /// `operator` between two diagonal matrices with this `diagonal`.
    ///
    /// # Errors
    /// A diagonal of another length than the operator's, or not finite.
    pub fn new(operator: A, diagonal: Vec<f64>) -> Result<Self> {
        check_length(&diagonal, operator.dim())?;
        check_finite(&diagonal, "the diagonal")?;
        Ok(Self { operator, diagonal })
    }

    fn scaled(&self, v: &[f64]) -> Vec<f64> {
        let pairs = v.iter().zip(&self.diagonal);
        pairs.map(|(v, d)| v * d).collect()
    }
}

impl<A: LinearOperator> LinearOperator for Scaled<A> {
    fn dim(&self) -> usize {
        self.diagonal.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        check_length(v, self.dim())?;
        Ok(self.scaled(&self.operator.apply(&self.scaled(v))?))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        for v in vectors {
            check_length(v, self.dim())?;
        }
        let scaled: Vec<_> = vectors.iter().map(|v| self.scaled(v)).collect();
        let products = self.operator.apply_block(&scaled)?;
        Ok(products.iter().map(|p| self.scaled(p)).collect())
    }

    delegate!(operator: state, dtype);

    fn cancelled(&self) -> Result<f64> {
        Ok(largest(&self.diagonal).powi(2) * self.operator.cancelled()?)
    }
}

/// Some neighbouring rows of A and the same columns: the curvature within one layer, say.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let hessian = Objective::of(&model, &data, Loss::CrossEntropy)?.hessian();
/// let range = model.parameters().range("layers.0.weight")?;
/// let block = Block::new(hessian.clone(), range.clone())?;
/// assert_eq!(block.dim(), 3 * 2);
/// let whole = hessian.dense()?;
/// let entry = block.dense()?.matrix()[[0, 1]];
/// assert!((entry - whole.matrix()[[range.start, range.start + 1]]).abs() < 1e-12);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Block {
    operator: Shared,
    range: Range<usize>,
}

impl Block {
    /// The rows and columns `range` of `operator`; [`Parameters::range`] knows a parameter's.
    ///
    /// [`Parameters::range`]: crate::model::Parameters::range
    ///
    /// # Errors
    /// A range that is empty or does not lie within the matrix.
    pub fn new(
        operator: impl LinearOperator + Send + Sync + 'static,
        range: Range<usize>,
    ) -> Result<Self> {
        if range.is_empty() || range.end > operator.dim() {
            return Err(Error::invalid(format!(
                "rows {} to {} are no block of a matrix with {} rows",
                range.start,
                range.end,
                operator.dim()
            )));
        }
        Ok(Self {
            operator: Arc::new(operator),
            range,
        })
    }
}

impl LinearOperator for Block {
    fn dim(&self) -> usize {
        self.range.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let padded = vectors.iter().map(|v| {
            check_length(v, self.dim())?;
            let mut whole = vec![0.0; self.operator.dim()];
            whole[self.range.clone()].copy_from_slice(v);
            Ok(whole)
        });
        let padded = padded.collect::<Result<Vec<_>>>()?;
        let products = images(self.operator.as_ref(), &padded)?;
        Ok(products
            .iter()
            .map(|p| p[self.range.clone()].to_vec())
            .collect())
    }

    delegate!(operator: state, dtype, cancelled);
}
