//! [`LinearOperator`]: a symmetric matrix known by its products, and its kinds.
//!
//! | operator | matrix |
//! | --- | --- |
//! | [`Hessian`] | ∇²L(θ) |
//! | [`GaussNewton`] | (1/n) Σ JᵢᵀHᵢJᵢ, with Jᵢ the outputs' Jacobian and Hᵢ = ∇²ℓ by the outputs |
//! | [`Fisher`] | the covariance of the score under the model's own predictions; here it equals Gauss–Newton's matrix |
//! | [`EmpiricalFisher`] | (1/n) Σ gᵢgᵢᵀ, with gᵢ = ∇ℓᵢ(θ) |
//! | [`GradientCovariance`] | (1/n) Σ gᵢgᵢᵀ − ggᵀ, with g the mean of the gᵢ |
//! | [`Shifted`], [`Scaled`], [`Block`] | A + λI, DAD with a diagonal D, rows and columns of A |
//! | [`Dense`] | entries in memory |

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array2, ArrayView1};

use crate::error::{Error, Result, check_finite};
use crate::objective::{Curvature, Objective};
use crate::progress::Progress;
use crate::vector::{axpy, dot};

/// A real symmetric n × n matrix A that is known by the products Av.
///
/// What can be asked of it is in [`Spectral`](crate::spectral::Spectral).
///
/// ```
/// use loss_landscape::prelude::*;
///
/// // diag(1, 2, …, n)
/// struct Ramp(usize);
///
/// impl LinearOperator for Ramp {
///     fn dim(&self) -> usize {
///         self.0
///     }
///
///     fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
///         Ok((1..).zip(v).map(|(k, v)| f64::from(k) * v).collect())
///     }
/// }
///
/// let largest = &Ramp(50).top(1)?.pairs[0];
/// assert!((largest.value - 50.0).abs() <= largest.residual);
/// # Ok::<(), Error>(())
/// ```
pub trait LinearOperator {
    /// n, the number of rows.
    fn dim(&self) -> usize;

    /// Av.
    ///
    /// # Errors
    /// A `v` whose length is not [`dim`](Self::dim), or whose entries are not finite; what the
    /// computation of the product runs into.
    fn apply(&self, v: &[f64]) -> Result<Vec<f64>>;

    /// Av for several vectors, which is faster together than one by one where the operator can.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        vectors.iter().map(|v| self.apply(v)).collect()
    }
}

/// Av for several vectors, looked at before anything is built on it.
///
/// # Errors
/// The operator's; answers of another number or length than the questions; numbers that are not finite.
pub(crate) fn images(
    operator: &(impl LinearOperator + ?Sized),
    vectors: &[Vec<f64>],
) -> Result<Vec<Vec<f64>>> {
    let images = operator.apply_block(vectors)?;
    let n = operator.dim();
    if images.len() != vectors.len() || images.iter().any(|image| image.len() != n) {
        return Err(Error::invalid(format!(
            "the operator answers {} vectors of length {n} with {} of lengths {:?}: its apply or \
             apply_block is wrong",
            vectors.len(),
            images.len(),
            images.iter().map(Vec::len).collect::<Vec<_>>()
        )));
    }
    for image in &images {
        check_finite(image, "the matrix-vector product")?;
    }
    Ok(images)
}

macro_rules! curvature_operator {
    ($(#[$meta:meta])* $name:ident, $curvature:expr, $method:ident, $(#[$of:meta])*) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name {
            objective: Objective,
            theta: Option<Vec<f64>>,
        }

        impl $name {
            /// The same matrix at another θ; the model stays where it is.
            ///
            /// # Errors
            /// A θ of the wrong length or not finite.
            pub fn at(mut self, theta: Vec<f64>) -> Result<Self> {
                self.objective.parameters().check_vector(&theta, "point")?;
                self.theta = Some(theta);
                Ok(self)
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
                Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
            }

            fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
                self.objective.products(self.theta.as_deref(), vectors, $curvature)
            }
        }
    };
}

curvature_operator! {
    /// The Hessian H = ∇²L(θ) of an objective where its model stands, n × n for n parameters.
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
    /// let elsewhere = hessian.at(vec![3.0, 3.0])?; // the same: the loss is quadratic
    /// assert_eq!(elsewhere.dense()?.matrix(), array![[2.0, 0.0], [0.0, 8.0]]);
    /// # Ok::<(), Error>(())
    /// ```
    Hessian, Curvature::Hessian, hessian,
    /// The Hessian of this objective, as an operator: nothing is computed yet.
}

curvature_operator! {
    /// Gauss and Newton's matrix G = (1/n) Σ JᵢᵀHᵢJᵢ + 2λI (Schraudolph, 2002): the Hessian without
    /// the network's own second derivatives. It has no negative eigenvalues.
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
    /// The Fisher information E ∇ln p ∇ln pᵀ of the model's own predictions p ∝ exp(−ℓ), averaged over
    /// the inputs. For cross-entropy and for squared error it equals the Gauss–Newton matrix of the
    /// loss without its L2 term (Martens, "New insights and perspectives on the natural gradient
    /// method", 2020), and is computed so, exactly.
    ///
    /// ```
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
    /// The empirical Fisher matrix (1/n) Σ gᵢgᵢᵀ: the second moment of the samples' gradients. It is
    /// not the Fisher information (Kunstner, Hennig and Balles, 2019).
    ///
    /// ```
    /// use loss_landscape::ndarray::array;
    /// use loss_landscape::prelude::*;
    ///
    /// // The samples' losses (w·x + b)² at x = ±2 have the gradients (0, 0) and (4, 8) where b = 1, w = ½.
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
    /// The second moment of the samples' gradients, as an operator.
}

/// The covariance (1/n) Σ gᵢgᵢᵀ − ggᵀ of the samples' gradients, which for batches of B samples drawn
/// with replacement is B times the covariance of the batch gradient.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// // The samples' gradients are (0, 0) and (4, 8) where b = 1, w = ½.
/// let x = Tensor::new(&[[-2.0], [2.0]], &Device::Cpu)?;
/// let data = Dataset::regression(&x, &x.zeros_like()?)?;
/// let line = Mlp::new(&[1, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// line.parameters().set_flat(&[1.0, 0.5])?;
/// let objective = Objective::of(&line, &data, Loss::Mse)?;
/// let covariance = objective.gradient_covariance()?.dense()?;
/// assert_eq!(covariance.matrix(), array![[4.0, 8.0], [8.0, 16.0]]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GradientCovariance {
    moment: EmpiricalFisher,
    gradient: Vec<f64>,
}

impl Objective {
    /// The covariance of the samples' gradients, as an operator; it takes one gradient.
    ///
    /// # Errors
    /// As [`Objective::gradient`].
    pub fn gradient_covariance(&self) -> Result<GradientCovariance> {
        Ok(GradientCovariance {
            moment: self.empirical_fisher(),
            gradient: self.clone().with_l2(0.0)?.gradient()?,
        })
    }
}

impl LinearOperator for GradientCovariance {
    fn dim(&self) -> usize {
        self.moment.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        Ok(self.apply_block(&[v.to_vec()])?.swap_remove(0))
    }

    fn apply_block(&self, vectors: &[Vec<f64>]) -> Result<Vec<Vec<f64>>> {
        let mut products = self.moment.apply_block(vectors)?;
        for (product, v) in products.iter_mut().zip(vectors) {
            axpy(-dot(&self.gradient, v), &self.gradient, product);
            // One gradient does not vary: what is left is rounding, and of no matrix.
            if self.moment.objective.data().len() == 1 {
                product.fill(0.0);
            }
        }
        Ok(products)
    }
}

impl Objective {
    /// The empirical neural tangent kernel JJᵀ where the model stands, with a row for each output of each sample (Jacot,
    /// Gabriel and Hongler, "Neural Tangent Kernel: Convergence and Generalization in Neural Networks", 2018). For squared
    /// error without an L2 term its eigenvalues but zeros are those of [`GaussNewton`], times half its number of rows.
    ///
    /// ```
    /// # use loss_landscape::prelude::*;
    /// let set = teacher_student(5, &[2, 3, 1], 0.1, 0, &Device::Cpu)?;
    /// let student =
    ///     Mlp::new(&[2, 3, 1], Activation::Tanh, 1, &Device::Cpu)?.to_dtype(DType::F64)?;
    /// let objective = Objective::of(&student, &set.data, Loss::Mse)?;
    /// let kernel = objective.tangent_kernel()?.eigen()?.values(); // 5 × 5
    /// let newton = objective.gauss_newton().dense()?.eigen()?.values(); // 13 × 13
    /// for (k, g) in kernel.iter().zip(&newton) {
    ///     assert!((k - g * 5.0 / 2.0).abs() < 1e-10);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; as [`Objective::jacobian`].
    pub fn tangent_kernel(&self) -> Result<Dense> {
        let jacobian = self.jacobian()?;
        if jacobian.nrows() > Dense::MAX_DIM {
            return Err(Error::invalid(format!(
                "a tangent kernel of {} rows is too large (dense matrices go up to {}): take fewer samples",
                jacobian.nrows(),
                Dense::MAX_DIM
            )));
        }
        Dense::new(jacobian.dot(&jacobian.t()))
    }
}

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
}

/// DAD with a diagonal matrix D: A in other units.
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
}

fn check_length(v: &[f64], n: usize) -> Result<()> {
    if v.len() != n {
        return Err(Error::invalid(format!(
            "the vector has {} entries but the matrix has {n} columns",
            v.len()
        )));
    }
    Ok(())
}

/// A symmetric matrix in memory.
///
/// ```
/// use loss_landscape::ndarray::array;
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(array![[2.0, 1.0], [1.0, 2.0]])?;
/// assert_eq!(a.apply(&[1.0, 0.0])?, [2.0, 1.0]);
/// assert_eq!(a.asymmetry(), 0.0);
/// assert_eq!(
///     Dense::of(&Shifted::new(a, 1.0)?)?.matrix(),
///     array![[3.0, 1.0], [1.0, 3.0]]
/// );
/// assert!(Dense::new(array![[0.0, 1.0], [-1.0, 0.0]]).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Dense {
    matrix: Array2<f64>,
    asymmetry: f64,
}

impl Dense {
    /// Rows beyond which a dense matrix and its eigenvalues are not worth their memory and time.
    pub const MAX_DIM: usize = 4096;

    /// The symmetric part (A + Aᵀ)/2 of a `matrix` that is symmetric but for rounding.
    ///
    /// # Errors
    /// A matrix that is empty, not square, not finite, or further from symmetry than rounding in
    /// `f32` can explain.
    pub fn new(matrix: Array2<f64>) -> Result<Self> {
        let (rows, columns) = matrix.dim();
        if rows != columns || rows == 0 {
            return Err(Error::invalid(format!(
                "a {rows} × {columns} matrix is no symmetric operator"
            )));
        }
        for (i, row) in matrix.rows().into_iter().enumerate() {
            check_finite(&row.to_vec(), &format!("row {i} of the matrix"))?;
        }
        let frobenius = |m: &Array2<f64>| m.iter().map(|a| a * a).sum::<f64>().sqrt();
        let size = frobenius(&matrix);
        let asymmetry = frobenius(&(&matrix - &matrix.t())) / 2.0;
        if asymmetry > 1e-3 * size {
            return Err(Error::invalid(format!(
                "the matrix is not symmetric: ‖A − Aᵀ‖/2 = {asymmetry:.1e} where ‖A‖ = {size:.1e}"
            )));
        }
        Ok(Self {
            matrix: (&matrix + &matrix.t()) / 2.0,
            asymmetry,
        })
    }

    /// All entries of `operator`, a column for each product with a unit vector.
    ///
    /// # Errors
    /// More than [`Dense::MAX_DIM`] rows; those of the products and of [`Dense::new`].
    pub fn of(operator: &(impl LinearOperator + ?Sized)) -> Result<Self> {
        let n = operator.dim();
        if n > Self::MAX_DIM {
            return Err(Error::invalid(format!(
                "a dense {n} × {n} matrix would take {:.1} GB and n products: compute the largest \
                 eigenvalues with top(k) instead (dense matrices go up to n = {})",
                (n as f64).powi(2) * 8e-9,
                Self::MAX_DIM
            )));
        }
        const TOGETHER: usize = 16;
        let mut progress = Progress::start("dense matrix");
        let mut matrix = Array2::zeros((n, n));
        for start in (0..n).step_by(TOGETHER) {
            let columns = start..(start + TOGETHER).min(n);
            let unit = |j: usize| (0..n).map(|i| f64::from(u8::from(i == j))).collect();
            let products = images(operator, &columns.clone().map(unit).collect::<Vec<_>>())?;
            for (j, product) in columns.clone().zip(&products) {
                matrix.column_mut(j).assign(&ArrayView1::from(product));
            }
            progress.part(columns.end, n);
        }
        Self::new(matrix)
    }

    /// ‖A − Aᵀ‖_F / 2 of the matrix as it was given: by Weyl's inequality its rounding errors
    /// move no eigenvalue further than that.
    pub fn asymmetry(&self) -> f64 {
        self.asymmetry
    }

    /// The entries.
    pub fn matrix(&self) -> &Array2<f64> {
        &self.matrix
    }
}

impl LinearOperator for Dense {
    fn dim(&self) -> usize {
        self.matrix.nrows()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
        check_length(v, self.dim())?;
        check_finite(v, "the vector")?;
        Ok(self.matrix.dot(&ArrayView1::from(v)).to_vec())
    }
}
