//! [`Following`]: eigenpairs of a matrix that changes little from one point to the next.

use std::fmt;

use super::lanczos::{Lanczos, RitzPair};
use super::orthonormal::extend;
use super::probe_loop::Sampler;
use super::secant_model::SecantModel;
use super::thick_restart::ROUNDING;
use super::{Eigenpair, Spectrum};
use crate::error::Result;
use crate::kernels::symmetric_eigen;
use crate::memory;
use crate::operator::{LinearOperator, checked_products};
use crate::progress::Progress;
use crate::random::Purpose;
use crate::vector::{axpy, dot, largest, norm, scale};

/// Follows eigenpairs of a matrix from point to point, such as those of the Hessian during a training, with fewer products than
/// [`Lanczos::run`] at each point.
///
/// A low-rank matrix M approximates A. At each point the wanted eigenvectors of M are multiplied, and M changes as little as
/// possible to a symmetric matrix with the same products as A (Powell, 1970). Its eigenvectors are then the corrections of
/// Davidson's method (1975): the parts outside of the multiplied vectors are multiplied next, for the pairs whose residuals are
/// too large. The results are Ritz pairs in the space of the vectors multiplied at this point, with residuals at most those that
/// [`Lanczos`] accepts, relative to the largest known |λ|. M keeps k + 20 eigenpairs for the next point. At most 5k + 36 vectors
/// of length n are stored; if memory is short, each point is computed by [`Lanczos::run`].
///
/// # What is checked
/// At each point: the residuals. Some eigenvalue lies within its residual of each value, and the i-th eigenvalue from an end of
/// the spectrum is at least as far out as the i-th value from this end.
///
/// At some points also that no eigenvalue was missed, by [`Lanczos::run`] with its bound on the probability:
///
/// - at the first point, at every 25th point after a check, and after an error;
/// - if a product with a followed vector differs from that of M by more than a quarter of the largest wanted |λ|;
/// - if residuals are too large after 2k + 8 products;
/// - if a wanted vector lies mostly outside of the vectors that M kept;
/// - if a value changes by more than ten times the accepted residual and ten times the largest change since the last check.
///
/// [`Followed::points_since_check`] counts the points since the last check.
///
/// Between these checks, every second point multiplies one more vector, which searches for errors of M: what the last search
/// showed of A − M, plus a random vector and a random combination of the vectors that M keeps. It is a power iteration on A − M
/// over the points. A new eigenvalue, or a kept one that overtakes a wanted one, is found after a few of these points if its
/// change is large beside the eigenvalues that M does not keep. Others can be missed until the next check.
///
/// Results depend on the earlier points. The same points and seed give the same bits on any number of threads.
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Following;
///
/// let mut following = Following::new(Lanczos::default().with_tolerance(1e-3), 1);
/// for step in 0..5 {
///     let diagonal = Array1::from_iter((0..400).map(|i| 0.9f64.powi(i) + 0.01 * f64::from(step)));
///     let found = following.next(&Dense::new(Array2::from_diag(&diagonal))?)?;
///     let largest = &found.spectrum.pairs[0];
///     assert!((largest.value - diagonal[0]).abs() <= largest.residual);
///     assert_eq!(found.points_since_check, step as usize);
///     assert!(step == 0 || found.spectrum.products <= 3);
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct Following {
    lanczos: Lanczos,
    k: usize,
    /// M, if the last point was followed or checked without an error.
    model: Option<SecantModel>,
    /// (A − M)s of the last search with a vector s.
    search: Option<Vec<f64>>,
    /// The values at the last point.
    values: Vec<f64>,
    /// Largest change of a value from point to point since the last check.
    drift: Option<f64>,
    points_since_check: usize,
    sampler: Sampler,
}

/// Shows the settings, without the long vectors.
impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following")
            .field("lanczos", &self.lanczos)
            .field("k", &self.k)
            .finish()
    }
}

/// Eigenpairs at one point; see [`Following`].
///
/// ```
/// use loss_landscape::ndarray::{Array1, Array2};
/// use loss_landscape::prelude::*;
/// use loss_landscape::spectral::Following;
///
/// let a = Dense::new(Array2::from_diag(&Array1::from_iter((0..400).map(f64::from))))?;
/// let mut following = Following::new(Lanczos::default(), 2);
/// let first = following.next(&a)?;
/// assert!(first.points_since_check == 0 && first.spectrum.converged);
/// let second = following.next(&a)?;
/// assert!(second.points_since_check == 1 && !second.spectrum.converged);
/// assert!(second.spectrum.residuals()[0] <= 1e-4 * 399.0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    /// The pairs and the number of products. At a point that was not checked for missed eigenvalues, the ranks are unknown and
    /// [`Spectrum::converged`] is false; the residuals are accepted nevertheless.
    pub spectrum: Spectrum,
    /// Number of points since the last one that was checked for missed eigenvalues. 0 means that this point was checked.
    pub points_since_check: usize,
}

/// Number of eigenpairs that M keeps besides the wanted ones.
const GUARDS: usize = 20;

/// Number of points from one check to the next.
const CHECK_EVERY: usize = 25;

/// Number of points from one search outside of M to the next.
const SEARCH_EVERY: usize = 2;

/// Length of each of the random parts of a search's vector, relative to the rest.
const RANDOM_PART: f64 = 0.3;

/// Largest error of a followed product, relative to the largest wanted |λ|.
const JUMP: f64 = 0.25;

/// Largest change of a value, relative to those since the last check and to the accepted residual.
const SUDDEN: f64 = 10.0;

/// Coordinates of new vectors that are shorter than this are rounding.
const SMALLEST: f64 = 1e-8;

impl Following {
    /// Follows the `k` eigenpairs that `lanczos` chooses, to its tolerance. Its start vectors are for the first point. Its limits
    /// of basis vectors and products are those of a check.
    pub fn new(lanczos: Lanczos, k: usize) -> Self {
        Self {
            sampler: Sampler::new(Purpose::Following, lanczos.seed),
            lanczos,
            k,
            model: None,
            search: None,
            values: Vec::new(),
            drift: None,
            points_since_check: 0,
        }
    }

    /// Computes the eigenpairs at the next point, which follows the last one without an error. A matrix of another size, or with
    /// fewer than 5k + 36 rows, is computed by [`Lanczos::run`].
    ///
    /// # Errors
    /// As [`Lanczos::run`]. The next point is then checked.
    pub fn next(&mut self, operator: &dyn LinearOperator) -> Result<Followed> {
        let n = operator.dim();
        let model = self.model.take();
        let mut model = model.filter(|m| m.basis().first().is_some_and(|v| v.len() == n));
        let mut products = 0;
        if let Some(known) = &mut model
            && self.points_since_check + 1 < CHECK_EVERY
        {
            let (found, more) = self.follow(operator, known)?;
            products = more;
            if let Some(spectrum) = found {
                self.model = model;
                self.values = spectrum.values();
                self.points_since_check += 1;
                return Ok(Followed {
                    spectrum,
                    points_since_check: self.points_since_check,
                });
            }
        }
        self.check(operator, model, products)
    }

    /// Largest number of products at a point that is not checked, except those of a search.
    fn max_products(&self) -> usize {
        2 * self.k + 8
    }

    /// Computes the eigenpairs by [`Lanczos::run`], which starts from those that M knows. If M was followed in vain, with some
    /// `products`, it is replaced.
    fn check(
        &mut self,
        operator: &dyn LinearOperator,
        model: Option<SecantModel>,
        products: usize,
    ) -> Result<Followed> {
        let (n, k) = (operator.dim(), self.k);
        let mut lanczos = self.lanczos.clone();
        if let Some(model) = &model {
            let (values, vectors) = model.eigen()?;
            let wanted = lanczos.which.choose(&values, k).into_iter();
            lanczos.start_vectors =
                model.vectors(&wanted.map(|i| vectors[i].clone()).collect::<Vec<_>>());
        }
        let (mut spectrum, others) = lanczos.run_with_others(operator, k, GUARDS)?;
        spectrum.products += products;
        let rows = k + GUARDS + 2 * self.max_products();
        let bytes = 8.0 * (rows as f64) * n as f64;
        if spectrum.converged && n >= rows && bytes <= memory::available() {
            let mut pairs: Vec<RitzPair> = spectrum
                .pairs
                .iter()
                .map(|pair| (pair.value, pair.vector.clone()))
                .collect();
            let mut model = match model {
                Some(model) if products == 0 => model,
                _ => {
                    pairs.extend(others);
                    spectrum.products += 1;
                    self.search = None;
                    SecantModel::new(self.mean(operator)?)
                }
            };
            for (value, vector) in pairs {
                let mut x = model.include(vector.clone());
                let mut image = vector;
                scale(&mut image, value);
                model.learn(&mut x, image);
            }
            self.truncate(&mut model)?;
            self.model = Some(model);
        }
        self.values = spectrum.values();
        self.drift = None;
        self.points_since_check = 0;
        Ok(Followed {
            spectrum,
            points_since_check: 0,
        })
    }

    /// Estimates the mean of the eigenvalues by gᵀAg with a random unit vector g.
    fn mean(&mut self, operator: &dyn LinearOperator) -> Result<f64> {
        let mut g = self.sampler.gaussian(operator.dim());
        let length = norm(&g);
        scale(&mut g, 1.0 / length);
        let image = checked_products(operator, std::slice::from_ref(&g))?;
        Ok(dot(&g, &image[0]))
    }

    /// Computes the eigenpairs from those that M knows; `None` if they should be checked. Also returns the number of products.
    fn follow(
        &mut self,
        operator: &dyn LinearOperator,
        model: &mut SecantModel,
    ) -> Result<(Option<Spectrum>, usize)> {
        let mut progress = Progress::start("following eigenpairs");
        let known = model.len();
        let (values, vectors) = model.eigen()?;
        let wanted = self.lanczos.which.choose(&values, self.k);
        let size = wanted.iter().map(|i| values[*i].abs()).fold(0.0, f64::max);
        let mut next: Vec<Vec<f64>> = wanted.iter().map(|i| vectors[*i].clone()).collect();
        let is_searched = (self.points_since_check + 1).is_multiple_of(SEARCH_EVERY);
        if is_searched {
            let s = self.search_vector(model);
            let s = model.include(s);
            next.iter_mut().for_each(|x| x.resize(model.len(), 0.0));
            next.extend(extend(s, &next, SMALLEST).2);
        }
        let mut space = Space::default();
        let errors = space.multiply(operator, model, next)?;
        if let Some(error) = errors.get(self.k) {
            self.search = model.vectors(std::slice::from_ref(error)).pop();
        }
        if errors[..self.k].iter().any(|e| norm(e) > JUMP * size) {
            return Ok((None, errors.len()));
        }
        loop {
            progress.tick(|| format!("{} products", space.vectors.len()));
            let wanted = self.wanted(model, &space)?;
            let unfinished = wanted.iter().filter(|w| !w.is_accepted());
            let mut next = Vec::new();
            for pair in unfinished {
                let done = [&space.vectors[..], &next[..]].concat();
                next.extend(extend(pair.predicted.clone(), &done, SMALLEST).2);
            }
            if next.is_empty() {
                let is_surprise = |w: &Wanted| {
                    let inside = &w.vector[..known];
                    dot(inside, inside) < 0.5
                };
                let products = space.vectors.len();
                if wanted.iter().any(|w| !w.is_accepted() || is_surprise(w)) {
                    return Ok((None, products));
                }
                let limit = wanted.iter().map(|w| w.limit).fold(0.0, f64::max);
                let spectrum = space.spectrum(wanted, model, operator.epsilon());
                let changes = spectrum.values().into_iter().zip(&self.values);
                let change = changes.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                if self.drift.is_some_and(|d| change > SUDDEN * d.max(limit)) {
                    return Ok((None, products));
                }
                self.drift = Some(self.drift.map_or(change, |d| d.max(change)));
                self.truncate(model)?;
                return Ok((Some(spectrum), products));
            }
            if space.vectors.len() + next.len() > self.max_products() {
                return Ok((None, space.vectors.len()));
            }
            space.multiply(operator, model, next)?;
        }
    }

    /// What the last search showed of A − M, plus a random vector and a random combination of the vectors that M knows.
    fn search_vector(&mut self, model: &SecantModel) -> Vec<f64> {
        let random = self.sampler.gaussian(model.basis()[0].len());
        let known = self.sampler.gaussian(model.len());
        let known = model.vectors(&[known]).swap_remove(0);
        let mut s = vec![0.0; random.len()];
        let before = self.search.take().unwrap_or_default();
        for (part, vector) in [(1.0, before), (RANDOM_PART, random), (RANDOM_PART, known)] {
            let length = norm(&vector);
            if length > 0.0 {
                axpy(part / length, &vector, &mut s);
            }
        }
        s
    }

    /// The wanted Ritz pairs of the multiplied vectors, with those of M.
    fn wanted(&self, model: &SecantModel, space: &Space) -> Result<Vec<Wanted>> {
        let which = self.lanczos.which;
        let (predicted, predictions) = model.eigen()?;
        let images: Vec<Vec<f64>> = space.vectors.iter().map(|x| model.apply(x)).collect();
        let entry = |i: usize, j: usize| dot(&space.vectors[i.max(j)], &images[i.min(j)]);
        let (values, sums) = symmetric_eigen(space.vectors.len(), entry)?;
        let n = model.basis()[0].len() as f64;
        let rounding = 4.0 * n.sqrt() * f64::EPSILON * largest(&predicted);
        let groups = which.by_end(&values, self.k).into_iter();
        let predictions_of = which.by_end(&predicted, self.k);
        let mut found = Vec::new();
        for ((_, indices), (_, predicted_indices)) in groups.zip(predictions_of) {
            let limit = self
                .lanczos
                .largest_residual(&predicted, &predicted_indices);
            for (i, j) in indices.into_iter().zip(predicted_indices) {
                let (mut vector, mut residual) = (vec![0.0; model.len()], vec![0.0; model.len()]);
                for ((c, x), image) in sums[i].iter().zip(&space.vectors).zip(&images) {
                    axpy(*c, x, &mut vector);
                    axpy(*c, image, &mut residual);
                }
                axpy(-values[i], &vector, &mut residual);
                let inside = space
                    .vectors
                    .iter()
                    .map(|x| dot(x, &predictions[j]).powi(2));
                found.push(Wanted {
                    value: values[i],
                    vector,
                    residual: norm(&residual),
                    limit: limit.max(rounding),
                    inside: inside.sum(),
                    predicted: predictions[j].clone(),
                });
            }
        }
        Ok(found)
    }

    /// Keeps the wanted eigenpairs of M, and those whose values differ most from the mean.
    fn truncate(&self, model: &mut SecantModel) -> Result<()> {
        let (values, vectors) = model.eigen()?;
        let wanted = self.lanczos.which.choose(&values, self.k);
        let mut others: Vec<usize> = (0..values.len()).filter(|i| !wanted.contains(i)).collect();
        let distance = |i: &usize| model.distance(values[*i]);
        others.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
        let kept = wanted.iter().chain(others.iter().take(GUARDS));
        let kept: Vec<_> = kept.map(|i| (values[*i], vectors[*i].clone())).collect();
        model.keep(&kept);
        Ok(())
    }
}

/// A wanted Ritz pair of the multiplied vectors, in coordinates of M.
struct Wanted {
    value: f64,
    vector: Vec<f64>,
    residual: f64,
    /// Largest accepted residual.
    limit: f64,
    /// The eigenvector of M that is as wanted.
    predicted: Vec<f64>,
    /// Part of its squared length in the space of the multiplied vectors.
    inside: f64,
}

impl Wanted {
    /// Whether the residual is accepted, and M knows no other vector that belongs here.
    fn is_accepted(&self) -> bool {
        self.residual <= self.limit && self.inside >= 0.5
    }
}

/// The vectors multiplied at a point.
#[derive(Default)]
struct Space {
    /// Orthonormal coordinates in M.
    vectors: Vec<Vec<f64>>,
    /// ‖QᵀAQ − (QᵀAQ)ᵀ‖²_F/2 of these vectors Q: rounding of the products.
    asymmetry: f64,
}

impl Space {
    /// Multiplies orthonormal vectors, and changes M accordingly. Returns the coordinates of the errors (A − M)x.
    fn multiply(
        &mut self,
        operator: &dyn LinearOperator,
        model: &mut SecantModel,
        next: Vec<Vec<f64>>,
    ) -> Result<Vec<Vec<f64>>> {
        let images = checked_products(operator, &model.vectors(&next))?;
        let mut errors = Vec::new();
        for (mut x, image) in next.into_iter().zip(images) {
            let error = model.learn(&mut x, image);
            let len = model.len();
            self.vectors.iter_mut().for_each(|x| x.resize(len, 0.0));
            // M has the products with the vectors before: for a symmetric A these are zero.
            let components = self.vectors.iter().map(|q| dot(q, &error).powi(2));
            self.asymmetry += components.sum::<f64>();
            self.vectors.push(x);
            errors.push(error);
        }
        Ok(errors)
    }

    /// The pairs, largest first, with residuals that include rounding.
    fn spectrum(&self, mut wanted: Vec<Wanted>, model: &SecantModel, epsilon: f64) -> Spectrum {
        wanted.sort_by(|a, b| b.value.total_cmp(&a.value));
        // M lacks parts of products below ROUNDING.
        let sizes = self.vectors.iter().map(|x| norm(&model.apply(x)));
        let sums = (ROUNDING + 4.0 * epsilon) * (self.vectors.len() as f64).sqrt();
        let rounding = sums * sizes.fold(0.0, f64::max) + self.asymmetry.sqrt();
        let coordinates: Vec<Vec<f64>> = wanted.iter().map(|w| w.vector.clone()).collect();
        let vectors = model.vectors(&coordinates).into_iter();
        let pairs = wanted.iter().zip(vectors).map(|(w, vector)| Eigenpair {
            value: w.value,
            residual: w.residual + rounding,
            vector,
            rank: None,
        });
        Spectrum {
            pairs: pairs.collect(),
            dim: model.basis()[0].len(),
            products: self.vectors.len(),
            converged: false,
        }
    }
}
