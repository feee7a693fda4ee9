//! [`Lanczos`]: some eigenvalues of a large matrix known by its products.

use serde::{Deserialize, Serialize};

use super::full::symmetric_eigen;
use super::krylov::{Draws, combine, extend, fresh, orthogonalize};
use super::product::TOGETHER;
use super::{Eigenpair, Spectrum};
use crate::error::{Error, Result, check_finite};
use crate::operator::{LinearOperator, images};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::{axpy, dot, norm, scale};

/// Which eigenvalues are wanted.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&Array1::from_iter(
///     (-9..=5).map(f64::from),
/// )))?;
/// for (which, expected) in [
///     (Which::Largest, [5.0, 4.0]),
///     (Which::Smallest, [-8.0, -9.0]),
///     (Which::BothEnds, [5.0, -9.0]),
///     (Which::LargestMagnitude, [-8.0, -9.0]),
/// ] {
///     let found = Lanczos {
///         which,
///         ..Default::default()
///     }
///     .run(&a, 2)?
///     .values();
///     assert!(
///         found
///             .iter()
///             .zip(expected)
///             .all(|(a, b)| (a - b).abs() < 1e-6)
///     );
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// The largest.
    #[default]
    Largest,
    /// The smallest, that is the most negative.
    Smallest,
    /// Half of them the largest, half the smallest; of an odd number one more of the largest.
    BothEnds,
    /// Those of largest magnitude.
    LargestMagnitude,
}

impl Which {
    /// Places of the wanted ones among ascending `values`, most wanted first.
    fn choose(self, values: &[f64], k: usize) -> Vec<usize> {
        let m = values.len();
        let mut places: Vec<usize> = match self {
            Self::Largest => (0..m).rev().collect(),
            Self::Smallest => (0..m).collect(),
            Self::BothEnds => (0..m)
                .map(|i| if i % 2 == 0 { m - 1 - i / 2 } else { i / 2 })
                .collect(),
            Self::LargestMagnitude => {
                let mut places: Vec<usize> = (0..m).collect();
                places.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
                places
            }
        };
        places.truncate(k);
        places
    }
}

/// Thick-restart Lanczos iteration (Wu and Simon, 2000) with blocks and full reorthogonalisation, twice,
/// so that no eigenvalue comes out more often than it is there.
///
/// A block of b vectors finds eigenvalues of multiplicity up to b; more often than not b = 1 is
/// fastest. Where the Krylov space is exhausted before the matrix is, the iteration goes on from
/// random vectors until a second one finds nothing new.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&Array1::from_iter(
///     (1..=200).map(f64::from),
/// )))?;
/// let found = Lanczos {
///     tolerance: 1e-8,
///     ..Default::default()
/// }
/// .run(&a, 3)?;
/// assert!(found.converged && found.products < 200);
/// for (pair, expected) in found.pairs.iter().zip([200.0, 199.0, 198.0]) {
///     assert!(pair.residual <= 1e-8 * 200.0);
///     assert!((pair.value - expected).abs() <= pair.residual + 1e-12);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Lanczos {
    /// Which eigenvalues.
    pub which: Which,
    /// Largest residual, in units of the largest |λ|, at which a pair counts as found.
    pub tolerance: f64,
    /// Vectors that go through the operator together.
    pub block: usize,
    /// Vectors of length n to keep before a restart, at least k plus two blocks. By default 4k + 40, less where that
    /// would take more than 2 GiB.
    pub max_basis: Option<usize>,
    /// Products after which to give up and return what there is, besides one for each pair.
    pub max_products: usize,
    /// Vectors to start from, such as those of an earlier [`Spectrum`] of a matrix near this one; they are the
    /// first block. Without any it starts from a random one.
    pub start: Vec<Vec<f64>>,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for Lanczos {
    /// The largest eigenvalues, tolerance 10⁻⁴, blocks of 1, at most 2,000 products, seed 0.
    fn default() -> Self {
        Self {
            which: Which::Largest,
            tolerance: 1e-4,
            block: 1,
            max_basis: None,
            max_products: 2_000,
            start: Vec::new(),
            seed: 0,
        }
    }
}

/// Memory for a basis whose size nobody has set.
const BASIS_BYTES: usize = 2 << 30;

impl Lanczos {
    /// `k` eigenpairs of A = `operator`, with residuals ‖Av − λv‖ that are recomputed by one more
    /// product each.
    ///
    /// # Errors
    /// `k` = 0, `k` > n; a block of none; start vectors of a wrong length or not finite; products that
    /// fail or are not finite. Running out of products is no error: the result then says that
    /// it has not [converged](Spectrum::converged).
    pub fn run(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Spectrum> {
        let n = operator.dim();
        if k == 0 || k > n {
            return Err(Error::invalid(format!(
                "{k} eigenvalues of a {n} × {n} matrix cannot be computed: ask for 1 to {n}"
            )));
        }
        if self.block == 0 {
            return Err(Error::invalid("a block needs at least one vector"));
        }
        for v in &self.start {
            if v.len() != n {
                return Err(Error::invalid(format!(
                    "a start vector has {} entries but the matrix has {n} columns",
                    v.len()
                )));
            }
            check_finite(v, "the start vector")?;
        }
        let ritz = self.iterate(operator, k)?;
        let mut pairs = Vec::with_capacity(k);
        for vectors in ritz.vectors.chunks(TOGETHER) {
            for (v, mut image) in vectors.iter().zip(images(operator, vectors)?) {
                let value = dot(v, &image);
                axpy(-value, v, &mut image);
                pairs.push(Eigenpair {
                    value,
                    residual: norm(&image),
                    vector: v.clone(),
                });
            }
        }
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        Ok(Spectrum {
            products: ritz.products + pairs.len(),
            dim: n,
            converged: ritz.converged,
            pairs,
        })
    }

    fn iterate(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Ritz> {
        let n = operator.dim();
        let width = self.block.max(self.start.len()).min(n);
        let by_memory = BASIS_BYTES / (8 * n);
        let limit = self.max_basis.unwrap_or((4 * k + 40).min(by_memory));
        let limit = limit.max(k + 2 * width).min(n);

        let mut progress = Progress::start("Lanczos");
        let mut draws = Draws::new(Purpose::Lanczos, self.seed);
        let mut space = Space::new();
        let mut next = self.first_block(n, width, &mut draws);
        let mut products = 0;
        let mut next_look = 0;
        let mut exhausted: Option<Vec<f64>> = None;
        loop {
            products += next.len();
            let rest = space.expand(operator, next)?;
            let m = space.basis.len();
            let done = m == n || products >= self.max_products;
            let full = m + rest.vectors.len().max(1) > limit;
            let closed = rest.vectors.is_empty();
            let mut blocks = rest.vectors;

            if done || full || closed || m >= next_look {
                // A look costs m³, a product far more than one.
                next_look = m + (m / 20).max(2);
                let (values, vectors) =
                    symmetric_eigen(m, |i, j| space.projected[i.max(j)][i.min(j)])?;
                let wanted = self.which.choose(&values, k);
                let largest = values[0].abs().max(values[m - 1].abs());
                let error = |i: usize| rest.coupling.residual(&vectors[i]);
                let found = wanted
                    .iter()
                    .take_while(|i| error(**i) <= self.tolerance * largest)
                    .count();
                progress.tick(|| format!("{products} products, {found} of {k} eigenvalues found"));

                // A closed space holds every eigenvalue, but of a multiple one only one copy.
                let chosen: Vec<f64> = wanted.iter().map(|i| values[*i]).collect();
                let settled = match &exhausted {
                    _ if m == n => true,
                    None => !closed && found == k,
                    Some(before) => closed && found == k && same(before, &chosen, largest),
                };
                let pick = |places: &[usize]| -> Vec<Vec<f64>> {
                    places.iter().map(|i| vectors[*i].clone()).collect()
                };
                if settled || (done && m >= k) {
                    let mut vectors = combine(&space.basis, &pick(&wanted));
                    for v in &mut vectors {
                        let length = norm(v);
                        scale(v, 1.0 / length);
                    }
                    return Ok(Ritz {
                        vectors,
                        products,
                        converged: settled,
                    });
                }
                if closed {
                    exhausted = Some(chosen);
                }
                if full {
                    let keep = self.which.choose(&values, k + (limit - k - width) / 2);
                    let kept = keep.iter().map(|i| values[*i]).collect();
                    space.restart(combine(&space.basis, &pick(&keep)), kept);
                    next_look = 0;
                }
            }
            if blocks.is_empty() {
                let m = space.basis.len();
                for _ in 0..width.min(n - m) {
                    let q = fresh(n, &space.basis, &mut draws);
                    space.basis.push(q);
                }
                blocks = space.basis.split_off(m);
            }
            next = blocks;
        }
    }

    /// Orthonormal vectors from [`Lanczos::start`], and random ones where they do not fill a block.
    fn first_block(&self, n: usize, width: usize, draws: &mut Draws) -> Vec<Vec<f64>> {
        let mut block = Vec::new();
        for v in self.start.iter().take(width) {
            if let (_, _, Some(q)) = extend(v.clone(), &block, 1e-8 * norm(v)) {
                block.push(q);
            }
        }
        while block.len() < width {
            block.push(fresh(n, &block, draws));
        }
        block
    }
}

struct Ritz {
    vectors: Vec<Vec<f64>>,
    products: usize,
    converged: bool,
}

/// An orthonormal basis Q with AQ = QT + WB, where the block W comes next.
struct Space {
    basis: Vec<Vec<f64>>,
    /// T's rows up to the diagonal.
    projected: Vec<Vec<f64>>,
    /// Largest ‖Aq‖ so far.
    size: f64,
}

/// What of A times the last block lies outside the space.
struct Rest {
    vectors: Vec<Vec<f64>>,
    coupling: Coupling,
}

/// B: the rest of each of the last block's vectors, by the rest's own basis.
struct Coupling {
    columns: Vec<Vec<f64>>,
}

impl Coupling {
    /// ‖B s‖ for a vector s of T's, which is the residual of its Ritz pair.
    fn residual(&self, s: &[f64]) -> f64 {
        let last = &s[s.len() - self.columns.len()..];
        let rows = self.columns.iter().map(Vec::len).max().unwrap_or(0);
        let mut sum = vec![0.0; rows];
        for (column, s) in self.columns.iter().zip(last) {
            axpy(*s, column, &mut sum);
        }
        norm(&sum)
    }
}

impl Space {
    fn new() -> Self {
        Self {
            basis: Vec::new(),
            projected: Vec::new(),
            size: 0.0,
        }
    }

    /// Takes an orthonormal `block` in, and returns what A makes of it besides.
    fn expand(
        &mut self,
        operator: &(impl LinearOperator + ?Sized),
        block: Vec<Vec<f64>>,
    ) -> Result<Rest> {
        let images = images(operator, &block)?;
        self.basis.extend(block);
        let before = self.projected.len();
        let mut rest = Rest {
            vectors: Vec::new(),
            coupling: Coupling {
                columns: Vec::new(),
            },
        };
        for (i, mut image) in images.into_iter().enumerate() {
            self.size = self.size.max(norm(&image));
            let mut row = orthogonalize(&mut image, &self.basis);
            row.truncate(before + i + 1);
            self.projected.push(row);
            let (mut column, length, q) = extend(image, &rest.vectors, 1e-12 * self.size);
            // Orthogonal to the rest so far, which is orthogonal to the basis but for rounding.
            if let Some(q) = q {
                column.push(length);
                rest.vectors.push(q);
            }
            rest.coupling.columns.push(column);
        }
        Ok(rest)
    }

    /// Goes on with Ritz vectors as the basis.
    fn restart(&mut self, vectors: Vec<Vec<f64>>, values: Vec<f64>) {
        self.basis = vectors;
        let row = |(i, value): (usize, &f64)| [vec![0.0; i], vec![*value]].concat();
        self.projected = values.iter().enumerate().map(row).collect();
    }
}

fn same(a: &[f64], b: &[f64], size: f64) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-10 * size)
}
