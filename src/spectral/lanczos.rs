//! [`Lanczos`]: some eigenvalues of a large matrix known by its products.

use serde::{Deserialize, Serialize};

use super::krylov::{Draws, extend};
use super::probe::{self, Outcome, Threshold};
use super::space::{Ritz, Space};
use super::{Eigenpair, Rank, Spectrum};
use crate::error::{Error, Result, check_finite};
use crate::memory;
use crate::operator::LinearOperator;
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::{largest, norm};

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
///     let found = Lanczos::default().with_which(which)
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
#[non_exhaustive]
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
    /// Indices of the `k` wanted eigenvalues among ascending `values`, most wanted first.
    fn choose(self, values: &[f64], k: usize) -> Vec<usize> {
        let m = values.len();
        let mut indices: Vec<usize> = match self {
            Self::Largest => (0..m).rev().collect(),
            Self::Smallest => (0..m).collect(),
            Self::BothEnds => (0..m)
                .map(|i| if i % 2 == 0 { m - 1 - i / 2 } else { i / 2 })
                .collect(),
            Self::LargestMagnitude => {
                let mut indices: Vec<usize> = (0..m).collect();
                indices.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
                indices
            }
        };
        indices.truncate(k);
        indices
    }

    /// Indices of the `k` wanted among ascending `values`, by the end of the spectrum that they belong to.
    fn by_end(self, values: &[f64], k: usize) -> Vec<(End, Vec<usize>)> {
        let wanted = self.choose(values, k);
        let mut ends = match self {
            Self::Largest => vec![(End::Top, wanted)],
            Self::Smallest => vec![(End::Bottom, wanted)],
            Self::LargestMagnitude => vec![(End::Magnitude, wanted)],
            Self::BothEnds => {
                let half = |first| wanted.iter().skip(first).step_by(2).copied().collect();
                vec![(End::Top, half(0)), (End::Bottom, half(1))]
            }
        };
        ends.retain(|(_, wanted)| !wanted.is_empty());
        ends
    }
}

/// An end of the spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Top,
    Bottom,
    Magnitude,
}

impl End {
    /// The bounds beyond which an eigenvalue would displace one of the wanted `values` of this end by more than `slack`.
    fn thresholds(self, values: &[f64], slack: f64) -> Vec<Threshold> {
        let least = |f: fn(f64) -> f64| values.iter().map(|v| f(*v)).fold(f64::INFINITY, f64::min);
        let above = |bound: f64| Threshold::Above(bound + slack);
        let below = |bound: f64| Threshold::Below(bound - slack);
        match self {
            Self::Top => vec![above(least(|v| v))],
            Self::Bottom => vec![below(-least(|v| -v))],
            Self::Magnitude => vec![above(least(f64::abs)), below(-least(f64::abs))],
        }
    }
}

/// Thick-restart Lanczos iteration (Wu and Simon, 2000) with full reorthogonalisation, twice, so that no eigenvalue is
/// found more often than it occurs.
///
/// A pair is accepted when its residual is at most `tolerance` times the largest |λ| of the matrix, and at most √`tolerance`
/// times the largest |λ| wanted at its end of the spectrum unless that is itself below `tolerance` times the largest |λ|.
///
/// Small residuals do not prove that the wanted eigenvalues were found: a Krylov space holds only one vector of each
/// eigenspace, and start vectors may be orthogonal to what is wanted. So when all pairs are accepted, a probe searches for
/// missed eigenvalues. Let μ be the last wanted eigenvalue, moved outwards by the largest residual that is accepted. A has as
/// many eigenvalues beyond μ as T = QᵀAQ and the Schur complement B of A − μ, plus μ, together (Haynsworth, 1968), Q
/// being the basis of the space. A random unit vector u in the d dimensions of B starts a Lanczos recurrence with
/// orthonormal polynomials pᵢ. If B has an eigenvector x with an eigenvalue beyond μ, then |uᵀx| ≤ 1/maxᵢ |pᵢ(μ)|, which has
/// a probability of at most √(2d/π)/maxᵢ |pᵢ(μ)|. The recurrence ends when this probability is at most 10⁻³, or when it has
/// found such an eigenvalue, which then joins the space. Only a run whose probes found nothing has
/// [converged](Spectrum::converged).
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
///
/// let a = Dense::new(Array2::from_diag(&Array1::from_iter(
///     (1..=200).map(f64::from),
/// )))?;
/// let found = Lanczos::default().with_tolerance(1e-8)
/// .run(&a, 3)?;
/// assert!(found.converged);
/// for (pair, expected) in found.pairs.iter().zip([200.0, 199.0, 198.0]) {
///     assert!(pair.residual <= 1e-8 * 200.0);
///     assert!((pair.value - expected).abs() <= pair.residual + 1e-12);
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Lanczos {
    /// Which eigenvalues are computed.
    pub which: Which,
    /// Largest residual of an accepted pair, relative to the largest |λ|.
    pub tolerance: f64,
    /// Number of vectors multiplied by the operator at once.
    pub block_size: usize,
    /// Number of basis vectors of length n before a restart, at least k plus two blocks. `None` means 4k + 40 and at
    /// least 160, or as many as fit into 2 GiB if that is less.
    pub max_basis: Option<usize>,
    /// Number of products after which the iteration stops, converged or not.
    pub max_products: usize,
    /// Start vectors, such as the eigenvectors of a similar matrix. They can save products; they do not change which
    /// eigenvalues are found. Empty means a random block.
    pub start_vectors: Vec<Vec<f64>>,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for Lanczos {
    /// The largest eigenvalues, tolerance 10⁻⁴, blocks of 1, at most 2,000 products, seed 0.
    fn default() -> Self {
        Self {
            which: Which::Largest,
            tolerance: 1e-4,
            block_size: 1,
            max_basis: None,
            max_products: 2_000,
            start_vectors: Vec::new(),
            seed: 0,
        }
    }
}

/// Memory for a basis whose size was not set.
const BASIS_BYTES: usize = 2 << 30;

impl Lanczos {
    /// Sets which eigenvalues are computed.
    #[must_use]
    pub fn with_which(mut self, which: Which) -> Self {
        self.which = which;
        self
    }

    /// Sets the largest residual of an accepted pair, relative to the largest |λ|.
    #[must_use]
    pub fn with_tolerance(mut self, tolerance: f64) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Sets the number of vectors multiplied by the operator at once.
    #[must_use]
    pub fn with_block_size(mut self, block_size: usize) -> Self {
        self.block_size = block_size;
        self
    }

    /// Sets the number of basis vectors before a restart; `None` for the default.
    #[must_use]
    pub fn with_max_basis(mut self, max_basis: impl Into<Option<usize>>) -> Self {
        self.max_basis = max_basis.into();
        self
    }

    /// Sets the number of products after which the iteration stops, converged or not.
    #[must_use]
    pub fn with_max_products(mut self, max_products: usize) -> Self {
        self.max_products = max_products;
        self
    }

    /// Sets the start vectors, such as the eigenvectors of a similar matrix.
    #[must_use]
    pub fn with_start_vectors(mut self, start_vectors: Vec<Vec<f64>>) -> Self {
        self.start_vectors = start_vectors;
        self
    }

    /// Sets the seed of the random vectors.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Computes `k` eigenpairs of A = `operator`, with their residuals ‖Av − λv‖. They follow from the products so far; one
    /// more product, with a random combination of the vectors, shows how far rounding moves them, and is added.
    ///
    /// # Errors
    /// `k` = 0, `k` > n; a block of size 0; more memory than there is; start vectors of a wrong length or not finite; products that
    /// fail or are not finite. Running out of products is no error: the result then says that
    /// it has not [converged](Spectrum::converged).
    pub fn run(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Spectrum> {
        let n = operator.dim();
        if k == 0 || k > n {
            return Err(Error::invalid(format!(
                "{k} eigenvalues of a {n} × {n} matrix cannot be computed: ask for 1 to {n}"
            )));
        }
        if self.block_size == 0 {
            return Err(Error::invalid("a block needs at least one vector"));
        }
        // The eigenvectors, and a basis that holds at least as many vectors.
        let numbers = 2.0 * k as f64 * n as f64;
        memory::check(8.0 * numbers, &format!("{k} eigenvectors and a basis"))?;
        for v in &self.start_vectors {
            if v.len() != n {
                return Err(Error::invalid(format!(
                    "a start vector has {} entries but the matrix has {n} columns",
                    v.len()
                )));
            }
            check_finite(v, "the start vector")?;
        }
        let found = self.iterate(operator, k)?;
        let mut pairs = found.pairs;
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        let converged = found.settled && pairs.iter().all(|p| found.rounding <= p.limit.residual);
        let eigenpair = |(i, pair): (usize, Pair)| Eigenpair {
            value: pair.value,
            residual: pair.residual + found.rounding,
            vector: pair.vector,
            rank: converged.then_some(Rank {
                index: match pair.limit.end {
                    End::Bottom => n - k + i + 1,
                    End::Magnitude if pair.value < 0.0 => n - k + i + 1,
                    _ => i + 1,
                },
                error: pair.limit.rank_error,
            }),
        };
        Ok(Spectrum {
            pairs: pairs.into_iter().enumerate().map(eigenpair).collect(),
            dim: n,
            products: found.products,
            converged,
        })
    }

    fn iterate(&self, operator: &(impl LinearOperator + ?Sized), k: usize) -> Result<Found> {
        let n = operator.dim();
        let width = self.block_size.max(self.start_vectors.len()).min(n);
        let by_memory = BASIS_BYTES / (8 * n);
        let limit = self
            .max_basis
            .unwrap_or((4 * k + 40).max(160).min(by_memory));
        let limit = limit.max(k + 2 * width).min(n);

        let mut progress = Progress::start("Lanczos");
        let mut draws = Draws::new(Purpose::Lanczos, self.seed);
        let mut space = Space::new(n);
        let mut next = self.first_block(&space, width, &mut draws);
        let mut products = 0;
        let mut next_look = 0;
        loop {
            products += next.len();
            space.expand(operator, next)?;
            let m = space.len();
            let full = limit < n && m + self.block_size > limit;
            let spent = m >= k && products >= self.max_products;
            if m < next_look && space.pending() > 0 && !(spent || full) {
                next = space.take(self.block_size);
                continue;
            }
            // A look costs m³ operations.
            next_look = m + (m / 40).max(1);
            let mut look = self.look(&space, k)?;
            progress.tick(|| {
                let found = m.min(k) - look.open().len();
                format!("{products} products, {found} of {k} eigenvalues found")
            });

            let mut missed = None;
            let mut settled = m == n;
            if !settled && m >= k && look.open().is_empty() {
                let budget = self.max_products.saturating_sub(products);
                let (outcome, more) = look.search(operator, &space, budget, &mut draws)?;
                products += more;
                match outcome {
                    Outcome::Nothing => settled = true,
                    Outcome::Found(vector) => missed = Some(vector),
                    Outcome::Unknown => {}
                }
            }
            if settled || (m >= k && products >= self.max_products) {
                let wanted = look.wanted();
                return Ok(Found {
                    pairs: look.pairs(&space),
                    rounding: space.check(operator, &look.ritz, &wanted, &mut draws)?,
                    products: products + 1,
                    settled,
                });
            }
            if full || (missed.is_some() && m + space.pending() >= limit) {
                let keep = k + limit.saturating_sub(k + width) / 2;
                space.restart(&look.ritz, &self.which.choose(&look.ritz.values, keep));
                look = self.look(&space, k)?;
            }
            let room = limit - space.len();
            next = match missed {
                Some(vector) => space.take_with(vector, room),
                None => space.take_residuals(&look.ritz, &look.open(), self.block_size, room)?,
            };
            // The space is closed: it contains every eigenvector that its vectors have components along.
            if next.is_empty() {
                next = space.fill(Vec::new(), self.block_size.min(room), &mut draws);
            }
        }
    }

    /// The wanted Ritz pairs, and which of them are not accepted.
    fn look(&self, space: &Space, k: usize) -> Result<Look> {
        let ritz = space.ritz()?;
        let size = |i: &usize| ritz.values[*i].abs();
        let largest = largest(&ritz.values);
        let rounding = 4.0 * (space.dim() as f64).sqrt() * f64::EPSILON * largest;
        let mut groups = Vec::new();
        for (end, wanted) in self.which.by_end(&ritz.values, k) {
            let scale = wanted.iter().map(size).fold(0.0, f64::max);
            let residual = match self.tolerance * largest {
                limit if scale <= limit => limit,
                limit => limit.min(self.tolerance.sqrt() * scale),
            };
            let residual = residual.max(rounding);
            let open = wanted.iter().copied();
            groups.push(Group {
                open: open
                    .filter(|i| space.residual(&ritz, *i) > residual)
                    .collect(),
                limit: Limit {
                    end,
                    residual,
                    rank_error: match space.len() == space.dim() {
                        true => 0.0,
                        false => residual,
                    },
                },
                wanted,
            });
        }
        Ok(Look { ritz, groups })
    }

    /// Orthonormal vectors from [`Lanczos::start_vectors`], and random ones if they do not fill a block.
    fn first_block(&self, space: &Space, width: usize, draws: &mut Draws) -> Vec<Vec<f64>> {
        let mut block = Vec::new();
        for v in self.start_vectors.iter().take(width) {
            if let (_, _, Some(q)) = extend(v.clone(), &block, 1e-8 * norm(v)) {
                block.push(q);
            }
        }
        space.fill(block, width, draws)
    }
}

struct Found {
    pairs: Vec<Pair>,
    /// How far the products with the vectors may be from what the residuals say.
    rounding: f64,
    products: usize,
    settled: bool,
}

/// A Ritz pair, and what it is held to.
struct Pair {
    value: f64,
    vector: Vec<f64>,
    residual: f64,
    limit: Limit,
}

/// What the pairs at an end of the spectrum are held to.
#[derive(Clone, Copy)]
struct Limit {
    end: End,
    /// Largest residual of an accepted pair.
    residual: f64,
    /// How far beyond the last wanted eigenvalue another one may lie unseen.
    rank_error: f64,
}

/// The wanted Ritz pairs at an end of the spectrum.
struct Group {
    limit: Limit,
    wanted: Vec<usize>,
    /// Those that are not accepted.
    open: Vec<usize>,
}

struct Look {
    ritz: Ritz,
    groups: Vec<Group>,
}

impl Look {
    /// The wanted pairs that are not accepted.
    fn open(&self) -> Vec<usize> {
        let open = self.groups.iter().flat_map(|group| &group.open);
        open.copied().collect()
    }

    /// Searches for eigenvalues beyond the wanted ones, with the number of products that it took.
    fn search(
        &self,
        operator: &(impl LinearOperator + ?Sized),
        space: &Space,
        budget: usize,
        draws: &mut Draws,
    ) -> Result<(Outcome, usize)> {
        let mut products = 0;
        for group in &self.groups {
            let values: Vec<f64> = group.wanted.iter().map(|i| self.ritz.values[*i]).collect();
            for threshold in group.limit.end.thresholds(&values, group.limit.rank_error) {
                let complement = space.complement(&self.ritz, threshold.value());
                let left = budget.saturating_sub(products);
                let (outcome, more) = probe::run(operator, &complement, threshold, left, draws)?;
                products += more;
                if !matches!(outcome, Outcome::Nothing) {
                    return Ok((outcome, products));
                }
            }
        }
        Ok((Outcome::Nothing, products))
    }

    /// The wanted pairs.
    fn wanted(&self) -> Vec<usize> {
        let wanted = self.groups.iter().flat_map(|group| &group.wanted);
        wanted.copied().collect()
    }

    fn pairs(&self, space: &Space) -> Vec<Pair> {
        let pairs = self.groups.iter().flat_map(|group| {
            let vectors = space.vectors(&self.ritz, &group.wanted).into_iter();
            vectors.zip(&group.wanted).map(|(vector, i)| Pair {
                value: self.ritz.values[*i],
                vector,
                residual: space.residual(&self.ritz, *i),
                limit: group.limit,
            })
        });
        pairs.collect()
    }
}
