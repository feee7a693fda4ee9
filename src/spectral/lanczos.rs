//! [`Lanczos`]: some eigenpairs of a large matrix given by its products.

use serde::{Deserialize, Serialize};

use super::missed_eigenvalues::{self, Outcome, Threshold};
use super::orthonormal::extend;
use super::probe_loop::Sampler;
use super::schur_complement::SchurComplement;
use super::thick_restart::{KrylovSpace, Ritz};
use super::{Eigenpair, Rank, Spectrum};
use crate::error::{Error, Result, check_finite, counted};
use crate::memory;
use crate::operator::{Dense, LinearOperator};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::recycled;
use crate::vector::{axpy, largest, norm};

/// Which eigenvalues are computed.
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
    /// The algebraically largest.
    #[default]
    Largest,
    /// The algebraically smallest, such as the most negative.
    Smallest,
    /// Half of them from each end of the spectrum; of an odd number one more of the largest.
    BothEnds,
    /// The largest in magnitude.
    LargestMagnitude,
}

impl Which {
    /// Indices of the `k` wanted eigenvalues among ascending `values`, most wanted first.
    pub(super) fn choose(self, values: &[f64], k: usize) -> Vec<usize> {
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

    /// As [`choose`](Self::choose), grouped by the end of the spectrum.
    pub(super) fn by_end(self, values: &[f64], k: usize) -> Vec<(End, Vec<usize>)> {
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
pub(super) enum End {
    Top,
    Bottom,
    Magnitude,
}

impl End {
    /// Thresholds beyond which an eigenvalue would replace one of the wanted `values` of this end, `slack` further out.
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

/// Settings of thick-restart block Lanczos iteration (Wu and Simon, 2000) with full reorthogonalisation, done twice where once
/// is not precise, so that no eigenvalue is found more often than its multiplicity.
///
/// A pair is accepted if its residual is at most `tolerance` times the largest |λ| of the matrix, and at most √`tolerance` times
/// the largest wanted |λ| at its end of the spectrum, unless that is itself below `tolerance` times the largest |λ|.
///
/// Small residuals do not prove that the wanted eigenvalues were found: a Krylov space contains only one vector of each
/// eigenspace, and start vectors can be orthogonal to the wanted ones. When all pairs are accepted, a random probe therefore
/// searches for missed eigenvalues. Let μ be the last wanted eigenvalue, moved outwards by the largest accepted residual, and Q
/// the basis of the space. A has as many eigenvalues beyond μ as T = QᵀAQ and B together, where B is the Schur complement of
/// A − μ, plus μ (Haynsworth, 1968). A random unit vector u in the d dimensions of B starts a Lanczos recurrence with orthonormal
/// polynomials pᵢ. If B has an eigenvector x with an eigenvalue beyond μ, then |uᵀx| ≤ 1/maxᵢ |pᵢ(μ)|, which has a probability
/// of at most √(2d/π)/maxᵢ |pᵢ(μ)|. The recurrence ends when this probability is at most 10⁻³, or when it finds such an
/// eigenvalue, whose vector is then added to the space. Only a run in which the probes find nothing has
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
    /// Number of vectors multiplied by the operator at once. At least 16 for 200 or more eigenvalues.
    pub block_size: usize,
    /// Number of basis vectors of length n before a restart, at least k plus two blocks. `None` means n up to n = 1,024, and
    /// beyond that 4k + 40 and at least 160, or as many as fit into 2 GiB if that is less, but at least 2k.
    pub max_basis: Option<usize>,
    /// Number of products after which the iteration stops, converged or not. `None` means 4k, at least 2,000.
    pub max_products: Option<usize>,
    /// Start vectors, such as the eigenvectors of a similar matrix. The iteration starts from their sum, or from as many sums as
    /// the block size. They can save products; they do not change which eigenvalues are found. Empty means a random block.
    pub start_vectors: Vec<Vec<f64>>,
    /// Seed of the random vectors.
    pub seed: u64,
}

impl Default for Lanczos {
    /// The largest eigenvalues, tolerance 10⁻⁴, block size 1, seed 0.
    fn default() -> Self {
        Self {
            which: Which::Largest,
            tolerance: 1e-4,
            block_size: 1,
            max_basis: None,
            max_products: None,
            start_vectors: Vec::new(),
            seed: 0,
        }
    }
}

/// Largest default size of a basis in bytes, unless 2k vectors are larger.
const BASIS_BYTES: usize = 2 << 30;

/// Number of rows up to which the basis may grow to the whole space by default.
const WHOLE_SPACE: usize = 1024;

/// For networks, k pairs take about 3k + 20 products, 20 of which search for missed eigenvalues.
const PRODUCTS_PER_PAIR: usize = 3;
const PRODUCTS_FOR_ANY: usize = 20;

/// Number of eigenvalues from which vectors are multiplied and orthogonalised in blocks of at least [`MANY_BLOCK`].
const MANY: usize = 200;
const MANY_BLOCK: usize = 16;

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

    /// Sets the number of products after which the iteration stops, converged or not; `None` for the default.
    #[must_use]
    pub fn with_max_products(mut self, max_products: impl Into<Option<usize>>) -> Self {
        self.max_products = max_products.into();
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

    /// Computes `k` eigenpairs of A = `operator`, with their residuals ‖Av − λv‖. The residuals follow from the recurrence, plus
    /// their rounding error, which one more product with a random combination of the eigenvectors measures.
    ///
    /// If n ≤ 3k + 20, about as many products as the iteration takes, and n is at most [`Dense::MAX_DIM`] and `max_products`,
    /// n products give the whole matrix, and all its eigenvalues are computed, as by [`Dense::eigen`]: none can be missed. A
    /// [`max_basis`](Self::max_basis) rules this out.
    ///
    /// # Errors
    /// `k` = 0 or `k` > n; a block size of 0; not enough memory; start vectors of a wrong length or not finite; products that
    /// fail or are not finite. Reaching `max_products` is not an error: the result has then not
    /// [converged](Spectrum::converged).
    pub fn run(&self, operator: &dyn LinearOperator, k: usize) -> Result<Spectrum> {
        Ok(self.run_with_others(operator, k, 0)?.0)
    }

    /// As [`run`](Self::run). Also returns at most `count` of the other Ritz pairs, those of largest magnitude. Their residuals
    /// are not bounded.
    pub(super) fn run_with_others(
        &self,
        operator: &dyn LinearOperator,
        k: usize,
        count: usize,
    ) -> Result<(Spectrum, Vec<RitzPair>)> {
        let n = operator.dim();
        if k == 0 || k > n {
            return Err(Error::invalid(format!(
                "{k} eigenvalues of a {n} × {n} matrix cannot be computed: ask for 1 to {n}"
            )));
        }
        if self.block_size == 0 {
            return Err(Error::invalid("the block size is 0: give at least 1"));
        }
        for v in &self.start_vectors {
            if v.len() != n {
                return Err(Error::invalid(format!(
                    "a start vector has {} but the matrix has {}",
                    counted(v.len(), "entry"),
                    counted(n, "column")
                )));
            }
            check_finite(v, "the start vector")?;
        }
        let max_products = self.max_products.unwrap_or((4 * k).max(2_000));
        let expected = PRODUCTS_PER_PAIR.saturating_mul(k) + PRODUCTS_FOR_ANY;
        let is_small = n <= expected.min(Dense::MAX_DIM);
        if is_small && n <= max_products && self.max_basis.is_none() {
            return Ok((self.choose_from_all(operator, k)?, Vec::new()));
        }
        let sizes = self.sizes(n, k)?;
        let found = self.iterate(operator, [k, count], &sizes, max_products)?;
        let mut pairs = found.pairs;
        pairs.sort_by(|a, b| b.value.total_cmp(&a.value));
        let converged =
            found.is_complete && pairs.iter().all(|p| found.rounding <= p.limit.residual);
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
        let spectrum = Spectrum {
            pairs: pairs.into_iter().enumerate().map(eigenpair).collect(),
            dim: n,
            products: found.products,
            converged,
        };
        Ok((spectrum, found.others))
    }

    /// Computes all eigenpairs from n products, and returns the wanted ones.
    fn choose_from_all(&self, operator: &dyn LinearOperator, k: usize) -> Result<Spectrum> {
        let dense = Dense::from_noisy(operator)?;
        let mut all = dense.eigen()?;
        let n = all.dim;
        let mut ascending = all.values();
        ascending.reverse();
        let mut is_wanted = vec![false; n];
        for (_, wanted) in self.which.by_end(&ascending, k) {
            let limit = self.largest_residual(&ascending, &wanted);
            // All eigenvalues are those of a symmetric matrix only up to the asymmetry of the products.
            all.converged &= dense.asymmetry() <= limit;
            for i in wanted {
                is_wanted[n - 1 - i] = true;
            }
        }
        let mut is_wanted = is_wanted.into_iter();
        all.pairs.retain(|_| is_wanted.next().unwrap_or(false));
        if !all.converged {
            all.pairs.iter_mut().for_each(|pair| pair.rank = None);
        }
        Ok(all)
    }

    /// Largest residual of an accepted pair, for the `wanted` ones of these `values` at an end of the spectrum.
    pub(super) fn largest_residual(&self, values: &[f64], wanted: &[usize]) -> f64 {
        let size = |i: &usize| values[*i].abs();
        let scale = wanted.iter().map(size).fold(0.0, f64::max);
        match self.tolerance * largest(values) {
            limit if scale <= limit => limit,
            limit => limit.min(self.tolerance.sqrt() * scale),
        }
    }

    /// Computes the sizes of the iteration for `k` eigenpairs of an n × n matrix.
    ///
    /// # Errors
    /// Not enough memory.
    fn sizes(&self, n: usize, k: usize) -> Result<Sizes> {
        let block = self.block_size.max(if k < MANY { 1 } else { MANY_BLOCK });
        let block = block.min(n);
        let smallest = k + 2 * block;
        let by_memory = (BASIS_BYTES / (8 * n)).max(2 * k);
        let basis = self.max_basis.unwrap_or(match n <= WHOLE_SPACE {
            true => n,
            false => (4 * k + 40).max(160).min(by_memory),
        });
        let sizes = Sizes {
            block,
            basis: basis.max(smallest).min(n),
        };
        // The products of a block with their copies, and some vectors in the search for missed eigenvalues.
        let others = 3 * block + 4;
        let bytes = |vectors: usize| 8.0 * vectors as f64 * n as f64;
        let what = format!(
            "{} and {others} others of length {n}",
            counted(sizes.basis, "basis vector")
        );
        memory::check_or(bytes(sizes.basis + others), &what, |available| {
            let fit = ((available / bytes(1)) as usize).saturating_sub(others);
            match (fit >= smallest, fit.saturating_sub(2 * block)) {
                (true, _) => format!(
                    "allow a basis of at most {fit} vectors (max_basis, or --max-basis on the command line), which can take \
                     more products"
                ),
                (false, 0) => "this machine cannot hold the vectors of even one eigenpair".into(),
                (false, most) => format!(
                    "compute at most {} with a basis of {fit} vectors (max_basis, or --max-basis on the command line)",
                    counted(most, "eigenvalue")
                ),
            }
        })?;
        Ok(sizes)
    }

    /// Computes `k` pairs, and at most `others` more from the last basis.
    fn iterate(
        &self,
        operator: &dyn LinearOperator,
        [k, others]: [usize; 2],
        sizes: &Sizes,
        max_products: usize,
    ) -> Result<Found> {
        let n = operator.dim();
        let limit = sizes.basis;
        let _release = recycled::Release;

        let mut progress = Progress::start("Lanczos");
        let mut sampler = Sampler::new(Purpose::Lanczos, self.seed);
        let mut space = KrylovSpace::new(n);
        let mut next = self.first_block(&space, sizes.block, &mut sampler);
        let mut products = 0;
        // Ritz pairs of fewer vectors only choose the order in which pending vectors are multiplied.
        let mut checks = Checks::new(if k < MANY { 0 } else { k });
        loop {
            products += next.len();
            space.expand(operator, next)?;
            let m = space.len();
            // The basis and the kept vectors together need no more memory than `sizes` has checked.
            recycled::keep_at_most(limit.saturating_sub(m));
            let is_full = limit < n && m + sizes.block > limit;
            let is_out_of_products = m >= k && products >= max_products;
            if m < checks.next && !space.pending().is_empty() && !(is_out_of_products || is_full) {
                progress
                    .tick(|| format!("{}, {k} eigenvalues wanted", counted(products, "product")));
                next = space.take(sizes.block);
                continue;
            }
            let mut wanted = self.wanted_pairs(&space, k)?;
            checks.plan(m, wanted.excess);
            progress.tick(|| {
                let found = m.min(k) - wanted.unconverged().len();
                format!(
                    "{}, {found} of {} found",
                    counted(products, "product"),
                    counted(k, "eigenvalue")
                )
            });

            let mut missed = None;
            let mut is_complete = m == n;
            // Without a restart, the rest of the space takes no more products than a search.
            let may_search = limit < n || products + PRODUCTS_FOR_ANY <= n;
            if !is_complete && may_search && m >= k && wanted.unconverged().is_empty() {
                let budget = max_products.saturating_sub(products);
                let (outcome, more) =
                    wanted.search(operator, &space, budget, &mut sampler, &mut progress)?;
                products += more;
                match outcome {
                    Outcome::Nothing => is_complete = true,
                    Outcome::Found(vector) => missed = Some(vector),
                    Outcome::Unknown => {}
                }
            }
            if is_complete || (m >= k && products >= max_products) {
                let indices = wanted.indices();
                let rounding =
                    space.product_error(operator, &wanted.ritz, &indices, &mut sampler)?;
                let (pairs, others) = wanted.into_pairs(space, others)?;
                return Ok(Found {
                    pairs,
                    others,
                    rounding,
                    products: products + 1,
                    is_complete,
                });
            }
            if is_full || (missed.is_some() && m + space.pending().len() >= limit) {
                let keep = k + limit.saturating_sub(k + sizes.block) / 2;
                space.restart(&wanted.ritz, &self.which.choose(&wanted.ritz.values, keep))?;
                wanted = self.wanted_pairs(&space, k)?;
            }
            let room = limit - space.len();
            next = match missed {
                Some(vector) => space.take_with(vector, room),
                None => {
                    let unconverged = wanted.unconverged();
                    space.take_residuals(&wanted.ritz, &unconverged, sizes.block, room)?
                }
            };
            // The Krylov space is exhausted: it contains every eigenvector that its vectors have components along.
            if next.is_empty() {
                next = space.fill(Vec::new(), sizes.block.min(room), &mut sampler);
            }
        }
    }

    /// Computes the wanted Ritz pairs, and which of them are not accepted.
    fn wanted_pairs(&self, space: &KrylovSpace, k: usize) -> Result<WantedPairs> {
        let ritz = space.ritz()?;
        let largest_value = largest(&ritz.values);
        let rounding = 4.0 * (space.dim() as f64).sqrt() * f64::EPSILON * largest_value;
        let (mut groups, mut excess) = (Vec::new(), 0.0f64);
        for (end, wanted) in self.which.by_end(&ritz.values, k) {
            let residual = self.largest_residual(&ritz.values, &wanted).max(rounding);
            let residuals: Vec<f64> = wanted.iter().map(|i| space.residual(&ritz, *i)).collect();
            excess = excess.max(largest(&residuals) / residual);
            let unconverged = wanted.iter().zip(&residuals);
            let unconverged = unconverged.filter(|(_, found)| **found > residual);
            let rank_error = match space.len() == space.dim() {
                true => 0.0,
                false => residual,
            };
            groups.push(Group {
                unconverged: unconverged.map(|(i, _)| *i).collect(),
                limit: Limit {
                    end,
                    residual,
                    rank_error,
                },
                wanted,
            });
        }
        Ok(WantedPairs {
            ritz,
            groups,
            excess,
        })
    }

    /// Orthonormal vectors from sums of [`Lanczos::start_vectors`], extended with random vectors to a full block.
    ///
    /// The Krylov space of a sum of nearly invariant vectors soon contains each of them, and grows by a product at a time, where
    /// a block of them would take as many products for each step.
    fn first_block(
        &self,
        space: &KrylovSpace,
        width: usize,
        sampler: &mut Sampler,
    ) -> Vec<Vec<f64>> {
        let mut sums = vec![vec![0.0; space.dim()]; width.min(self.start_vectors.len())];
        for (i, v) in self.start_vectors.iter().enumerate() {
            let length = norm(v);
            if length > 0.0 {
                axpy(1.0 / length, v, &mut sums[i % width]);
            }
        }
        let mut block = Vec::new();
        for sum in sums {
            let smallest = 1e-8 * norm(&sum);
            block.extend(extend(sum, &block, smallest).2);
        }
        space.fill(block, width, sampler)
    }
}

/// Numbers of vectors.
struct Sizes {
    /// Vectors multiplied at once.
    block: usize,
    /// Largest basis.
    basis: usize,
}

/// Numbers of basis vectors at which Ritz pairs are computed, which costs m³ operations for m vectors.
struct Checks {
    /// Number of vectors at the next check.
    next: usize,
    /// Number of vectors and the largest ratio of a residual and its limit at the last check.
    last: Option<(usize, f64)>,
}

/// Number of vectors up to which checks cost too little to be postponed.
const FEW_VECTORS: usize = 128;

impl Checks {
    fn new(first: usize) -> Self {
        Self {
            next: first,
            last: None,
        }
    }

    /// Chooses the next check after one with m vectors, at which the largest ratio of a residual and its limit was `excess`. A
    /// check that may find convergence comes after m/40 vectors, and every check after at most m/12. In between, it is half as
    /// far away as a constant rate of convergence predicts, once two checks show a rate.
    fn plan(&mut self, m: usize, excess: f64) {
        let soon = (m / 40).max(1);
        let steps = match self.last {
            None => soon,
            _ if m < FEW_VECTORS || excess <= 1.0 => soon,
            Some((before, larger)) if m > before && excess < larger => {
                let rate = (larger / excess).ln() / (m - before) as f64;
                let predicted = excess.ln() / rate;
                (predicted / 2.0) as usize
            }
            _ => usize::MAX,
        };
        self.last = Some((m, excess));
        self.next = m + steps.min(m / 12).max(soon);
    }
}

/// The result of the iteration.
struct Found {
    pairs: Vec<Pair>,
    /// Other Ritz pairs.
    others: Vec<RitzPair>,
    /// Rounding error of the residuals.
    rounding: f64,
    products: usize,
    /// Whether the search for missed eigenvalues found none.
    is_complete: bool,
}

/// The value and the vector of a Ritz pair.
pub(super) type RitzPair = (f64, Vec<f64>);

/// A Ritz pair and its limits.
struct Pair {
    value: f64,
    vector: Vec<f64>,
    residual: f64,
    limit: Limit,
}

/// Limits for the pairs at one end of the spectrum.
#[derive(Clone, Copy)]
struct Limit {
    end: End,
    /// Largest residual of an accepted pair.
    residual: f64,
    /// Largest distance of an undetected eigenvalue beyond the last wanted one.
    rank_error: f64,
}

/// The wanted Ritz pairs at one end of the spectrum.
struct Group {
    limit: Limit,
    wanted: Vec<usize>,
    /// The wanted pairs that are not accepted.
    unconverged: Vec<usize>,
}

/// The wanted Ritz pairs of a space.
struct WantedPairs {
    ritz: Ritz,
    groups: Vec<Group>,
    /// Largest ratio of a residual and its limit.
    excess: f64,
}

impl WantedPairs {
    /// Indices of the wanted pairs that are not accepted.
    fn unconverged(&self) -> Vec<usize> {
        let indices = self.groups.iter().flat_map(|group| &group.unconverged);
        indices.copied().collect()
    }

    /// Searches for eigenvalues beyond the wanted ones. Also returns the number of products.
    fn search(
        &self,
        operator: &dyn LinearOperator,
        space: &KrylovSpace,
        budget: usize,
        sampler: &mut Sampler,
        progress: &mut Progress,
    ) -> Result<(Outcome, usize)> {
        let mut products = 0;
        for group in &self.groups {
            let values: Vec<f64> = group.wanted.iter().map(|i| self.ritz.values[*i]).collect();
            for threshold in group.limit.end.thresholds(&values, group.limit.rank_error) {
                let complement = SchurComplement::new(space, &self.ritz, threshold.value());
                let left = budget.saturating_sub(products);
                let (outcome, more) = missed_eigenvalues::search(
                    operator,
                    &complement,
                    threshold,
                    left,
                    sampler,
                    progress,
                )?;
                products += more;
                if !matches!(outcome, Outcome::Nothing) {
                    return Ok((outcome, products));
                }
            }
        }
        Ok((Outcome::Nothing, products))
    }

    /// Indices of the wanted pairs.
    fn indices(&self) -> Vec<usize> {
        let indices = self.groups.iter().flat_map(|group| &group.wanted);
        indices.copied().collect()
    }

    /// The wanted pairs, and the values and vectors of at most `count` others of largest magnitude, with all vectors in place of
    /// the basis.
    fn into_pairs(self, space: KrylovSpace, count: usize) -> Result<(Vec<Pair>, Vec<RitzPair>)> {
        let mut indices = self.indices();
        let values = &self.ritz.values;
        let others = Which::LargestMagnitude.choose(values, values.len());
        let others: Vec<usize> = others
            .into_iter()
            .filter(|i| !indices.contains(i))
            .take(count)
            .collect();
        indices.extend(&others);
        let wanted = self.groups.iter().flat_map(|group| {
            let limit = group.limit;
            group.wanted.iter().map(move |i| (*i, limit))
        });
        let wanted: Vec<_> = wanted
            .map(|(i, limit)| (i, limit, space.residual(&self.ritz, i)))
            .collect();
        let mut vectors = space.into_vectors(&self.ritz, &indices)?.into_iter();
        let pairs = wanted.into_iter().zip(vectors.by_ref());
        let pairs = pairs.map(|((i, limit, residual), vector)| Pair {
            value: self.ritz.values[i],
            vector,
            residual,
            limit,
        });
        let pairs = pairs.collect();
        let others = others.iter().map(|i| self.ritz.values[*i]).zip(vectors);
        Ok((pairs, others.collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// 1, ½, ⅓, … on the diagonal. Notes how many vectors are kept.
    struct Harmonic {
        kept: AtomicUsize,
    }

    impl LinearOperator for Harmonic {
        fn dim(&self) -> usize {
            1 << 20
        }

        fn apply(&self, v: &[f64]) -> Result<Vec<f64>> {
            self.kept.fetch_max(recycled::kept(), Ordering::Relaxed);
            Ok((1..).zip(v).map(|(k, v)| v / f64::from(k)).collect())
        }
    }

    #[test]
    fn checks_come_at_half_of_the_predicted_convergence() {
        let mut checks = Checks::new(0);
        let mut plan = |m, excess| {
            checks.plan(m, excess);
            checks.next - m
        };
        // Few vectors, and then no known rate.
        assert_eq!(plan(50, 1e4), 1);
        assert_eq!(plan(1_200, 1e4), 100);
        // ln(1000) / ln(10) · 100 / 2 = 150 is too far; ln(90) / ln(1000 / 90) · 100 / 2 = 93.4.
        assert_eq!(plan(1_300, 1e3), 108);
        assert_eq!(plan(1_400, 90.0), 93);
        // Convergence is near, does not come nearer, or has come.
        assert_eq!(plan(1_550, 3.0), 38);
        assert_eq!(plan(1_600, 3.0), 133);
        assert_eq!(plan(1_800, 0.5), 45);
    }

    #[test]
    fn kept_vectors_that_no_product_uses_are_freed() {
        let operator = Harmonic {
            kept: AtomicUsize::new(0),
        };
        let lanczos = Lanczos::default().with_max_basis(6).with_tolerance(1e-8);
        let found = lanczos.run(&operator, 2).unwrap();
        assert!(found.converged, "{}", found.products);
        // A restart keeps half of the 6 vectors.
        let kept = operator.kept.into_inner();
        assert!(
            (1..=3).contains(&kept),
            "{kept} of {} products",
            found.products
        );
    }
}
