//! The coverage of stated 95 % intervals: how often they contain the exact value, for each estimator with its default settings
//! and with those of the analyzer, on five adversarial spectra.
//!
//! Each entry must be between 93 and 97 %. An interval that is exact up to rounding must always contain the exact value, so an
//! entry may be higher by the exact intervals among its runs. The table shows "exact" if all intervals are: for the identity, on
//! which all samples are equal, and for subspaces that contain the range of the matrix. Run with `--nocapture` to see the table.

mod common;

use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;
use std::thread;

use common::numbers;
use loss_landscape::ndarray::Array2;
use loss_landscape::prelude::*;
use loss_landscape::spectral::{Diagonal, Estimate, OutlierTest};
use statrs::function::erf::erfc;

/// Number of seeded runs per entry. The coverage in 1,000 runs has a standard deviation of 0.7 %: for an estimator with a
/// coverage of 95 % only one entry in 300 is off by 2 %.
const RUNS: u64 = 1000;

/// Allowed range of the coverage of a 95 % interval.
const BAND: [f64; 2] = [0.93, 0.97];

/// Ten outliers 0.7ⁱ and a bulk of N(0, 0.01²); nine times 1 and a bulk of 10⁻³ ± 10⁻⁴; a power law; a third of the eigenvalues
/// negative; the identity.
const SPECTRA: [&str; 5] = ["outliers", "rank 9", "1/i", "indefinite", "identity"];

/// Approximately standard normal numbers, as sums of twelve uniform ones.
fn normal(n: usize, seed: u64) -> Vec<f64> {
    let uniform = numbers(12 * n, seed);
    let sums = uniform.chunks(12).map(|u| u.iter().sum::<f64>() / 2.0);
    sums.collect()
}

fn eigenvalues(spectrum: usize, n: usize) -> Vec<f64> {
    let noise = normal(n, 5);
    (0..n)
        .map(|i| match spectrum {
            0 if i < 10 => 0.7f64.powi(i as i32),
            0 => 0.01 * noise[i],
            1 if i < 9 => 1.0,
            1 => 1e-3 * (1.0 + 0.1 * noise[i]),
            2 => 1.0 / (i + 1) as f64,
            3 => 1.5 * i as f64 / (n - 1) as f64 - if i < n / 3 { 0.6 } else { 0.4 },
            _ => 1.0,
        })
        .collect()
}

/// The matrix QΛQᵀ for the orthogonal Q = S₁WS₂W, with W of normalized Walsh functions and S₁, S₂ of random signs. Its product
/// takes O(n log n) operations, and no eigenvector has a large entry.
struct Rotated {
    values: Vec<f64>,
    signs: [Vec<f64>; 2],
}

impl Rotated {
    fn new(values: Vec<f64>, seed: u64) -> Self {
        let n = values.len();
        let signs = |seed| normal(n, seed).iter().map(|x| x.signum()).collect();
        Self {
            signs: [signs(2 * seed), signs(2 * seed + 1)],
            values,
        }
    }

    /// Qv
    fn forward(&self, v: &mut [f64]) {
        for signs in &self.signs {
            walsh(v);
            v.iter_mut().zip(signs).for_each(|(x, s)| *x *= s);
        }
    }

    /// Qᵀv
    fn backward(&self, v: &mut [f64]) {
        for signs in self.signs.iter().rev() {
            v.iter_mut().zip(signs).for_each(|(x, s)| *x *= s);
            walsh(v);
        }
    }

    /// Σ f(λᵢ)
    fn sum(&self, f: impl Fn(f64) -> f64) -> f64 {
        self.values.iter().map(|x| f(*x)).sum()
    }
}

/// Wv; W = Wᵀ = W⁻¹.
fn walsh(v: &mut [f64]) {
    let n = v.len();
    let mut half = 1;
    while half < n {
        for block in v.chunks_mut(2 * half) {
            let (left, right) = block.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let factor = 1.0 / (n as f64).sqrt();
    v.iter_mut().for_each(|x| *x *= factor);
}

impl LinearOperator for Rotated {
    fn dim(&self) -> usize {
        self.values.len()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let mut v = v.to_vec();
        self.backward(&mut v);
        v.iter_mut().zip(&self.values).for_each(|(x, a)| *x *= a);
        self.forward(&mut v);
        Ok(v)
    }
}

/// n × n matrices with all spectra.
fn matrices(n: usize, seed: u64) -> Vec<Rotated> {
    let matrix = |spectrum| Rotated::new(eigenvalues(spectrum, n), seed);
    (0..SPECTRA.len()).map(matrix).collect()
}

/// An interval and the exact value.
struct Claim {
    row: String,
    interval: [f64; 2],
    truth: f64,
    /// Largest width of an interval that is exact up to rounding.
    exact: f64,
    /// Allowed range of the coverage.
    band: [f64; 2],
}

/// A claim about a sum of numbers of magnitude `size`.
fn claim(row: impl Into<String>, estimate: Estimate, truth: f64, size: f64) -> Claim {
    Claim {
        row: row.into(),
        interval: estimate.interval(0.95).unwrap(),
        truth,
        exact: 1e-9 * size,
        band: BAND,
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    runs: usize,
    covered: usize,
    exact: usize,
    band: [f64; 2],
}

impl Entry {
    fn add(&mut self, claim: &Claim) {
        let [low, high] = claim.interval;
        let covered = (low..=high).contains(&claim.truth);
        self.band = claim.band;
        if high - low <= claim.exact {
            let (row, truth) = (&claim.row, claim.truth);
            assert!(covered, "{row}: {low} to {high} is exact, but not {truth}");
            self.exact += 1;
        } else {
            self.runs += 1;
            self.covered += usize::from(covered);
        }
    }

    /// Fraction of the runs whose interval contains the exact value.
    fn share(&self) -> f64 {
        (self.covered + self.exact) as f64 / (self.runs + self.exact) as f64
    }

    fn is_within_band(&self) -> bool {
        let [low, high] = self.band;
        let inexact = self.covered as f64 / self.runs as f64;
        self.share() >= low && (inexact <= high || self.runs < 100)
    }
}

#[derive(Default)]
struct Table(BTreeMap<String, [Entry; SPECTRA.len()]>);

impl Table {
    /// Adds the claims of each run on each spectrum. Each thread creates its own function.
    fn measure<Run: Fn(usize, u64) -> Vec<Claim>>(&mut self, make: impl Fn() -> Run + Sync) {
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let work = |first: usize| {
            let (mut table, run) = (Self::default(), make());
            for spectrum in 0..SPECTRA.len() {
                for seed in (first as u64..RUNS).step_by(threads) {
                    for claim in run(spectrum, seed) {
                        let entries = table.0.entry(claim.row.clone()).or_default();
                        entries[spectrum].add(&claim);
                    }
                }
            }
            table
        };
        let tables: Vec<Self> = thread::scope(|scope| {
            let spawn = |first| {
                // A run is too short to be parallelised.
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
                scope.spawn(move || pool.unwrap().install(|| work(first)))
            };
            let workers: Vec<_> = (0..threads).map(spawn).collect();
            let tables = workers.into_iter().map(|worker| worker.join().unwrap());
            tables.collect()
        });
        for (row, entries) in tables.into_iter().flat_map(|table| table.0) {
            let sums = self.0.entry(row).or_default();
            for (sum, entry) in sums.iter_mut().zip(entries) {
                sum.runs += entry.runs;
                sum.covered += entry.covered;
                sum.exact += entry.exact;
                sum.band = entry.band;
            }
        }
    }

    /// Prints the table and checks each entry.
    fn check(&self) {
        println!("{:42}{}", "", SPECTRA.map(|s| format!("{s:>12}")).concat());
        let mut outside = Vec::new();
        for (row, entries) in &self.0 {
            let texts = entries.map(|entry| match (entry.runs, entry.exact) {
                (0, 0) => format!("{:12}", ""),
                (0, _) => format!("{:>12}", "exact"),
                _ => format!("{:>12.3}", entry.share()),
            });
            println!("{row:42}{}", texts.concat());
            for (entry, spectrum) in entries.iter().zip(SPECTRA) {
                if entry.runs + entry.exact > 0 && !entry.is_within_band() {
                    outside.push(format!("{row}, {spectrum}: {entry:?}"));
                }
            }
        }
        assert!(outside.is_empty(), "{outside:#?}");
    }
}

#[test]
fn stated_intervals_have_their_coverage() {
    let mut table = Table::default();
    table.measure(traces);
    table.measure(densities);
    table.measure(bands);
    table.measure(diagonals);
    table.measure(alignments);
    table.measure(noise_scales);
    table.measure(sharpness);
    table.measure(learning_coefficients);
    table.check();
}

fn traces() -> impl Fn(usize, u64) -> Vec<Claim> {
    let matrices = matrices(256, 1);
    move |spectrum, seed| {
        let a = &matrices[spectrum];
        let (trace, size) = (a.sum(|x| x), a.sum(f64::abs));
        let squares = a.sum(|x| x * x);
        let mut claims = Vec::new();
        for (method, name) in [
            (TraceMethod::Krylov, "Krylov"),
            (TraceMethod::HutchPlusPlus, "Hutch++"),
            (TraceMethod::Hutchinson, "Hutchinson"),
        ] {
            let default = Trace::default().with_method(method).with_seed(seed);
            let analyzer = default
                .clone()
                .with_relative_error(0.05)
                .with_max_products(100);
            let mut all = vec![(default, "default"), (analyzer, "analyzer")];
            if method == TraceMethod::default() {
                let trajectory = Trace::default().with_relative_error(0.1).with_seed(seed);
                all.push((trajectory, "trajectory"));
            }
            for (settings, of) in all {
                let found = settings.trace(a).unwrap();
                claims.push(claim(format!("{name}, {of}: trace"), found, trace, size));
                let found = settings.frobenius_squared(a).unwrap();
                let row = format!("{name}, {of}: ‖A‖²");
                claims.push(claim(row, found, squares, squares));
            }
        }
        claims
    }
}

fn densities() -> impl Fn(usize, u64) -> Vec<Claim> {
    let matrices = matrices(128, 1);
    move |spectrum, seed| {
        let a = &matrices[spectrum];
        let (trace, size) = (a.sum(|x| x), a.sum(f64::abs));
        let squares = a.sum(|x| x * x);
        let rank = size * size / squares;
        let below = |x| a.sum(|value| f64::from(u8::from(value < x)));
        // In a gap that the quadrature resolves, and elsewhere.
        let gap = [0.2, 0.5, 0.75, 0.0, 0.5][spectrum];
        let x = [0.0, 1e-3, 0.01, 0.3, 0.9][spectrum];
        let default = DensitySettings::default().with_seed(seed);
        // With fewer products than rows.
        let analyzer = default.clone().with_probes(4).with_steps(25);
        let mut all = vec![(analyzer, "analyzer")];
        if seed < 20 {
            all.push((default, "default")); // exact
        }
        let mut claims = Vec::new();
        for (settings, of) in all {
            let density = settings.run(a).unwrap();
            let row = |what: &str| format!("density, {of}: {what}");
            claims.push(claim(row("trace"), density.trace(), trace, size));
            let found = density.frobenius_squared();
            claims.push(claim(row("‖A‖²"), found, squares, squares));
            let found = density.effective_rank().unwrap();
            claims.push(claim(row("effective rank"), found, rank, rank));
            // Refused for the spectra with negative eigenvalues. The identity's quadrature has one node, which bounds little.
            if spectrum < 4
                && let Ok(found) = density.effective_dimension(0.05)
            {
                let dimension = a.sum(|x| x / (x + 0.05));
                claims.push(claim(row("effective dimension"), found, dimension, 10.0));
            }
            claims.push(Claim {
                // An interval of width 0.1 contains at most one integer.
                exact: 0.1,
                ..claim(
                    row("count in a gap"),
                    density.count_below(gap).estimate,
                    below(gap),
                    1.0,
                )
            });
            claims.push(Claim {
                row: row("count"),
                interval: density.count_below(x).interval(0.95).unwrap(),
                truth: below(x),
                exact: 0.1,
                band: [0.95, 1.0],
            });
            let curve = density.cumulative(0.1, 3).unwrap();
            let (value, standard_error) = (curve.values[1], curve.standard_errors[1]);
            let share = Estimate {
                value,
                standard_error,
                samples: settings.probes,
                products: density.products,
                converged: true,
            };
            let step = |value: f64| 0.5 * erfc((value - curve.eigenvalues[1]) / (0.1 * SQRT_2));
            let truth = a.sum(step) / a.dim() as f64;
            claims.push(Claim {
                // Four probes cannot estimate the skewness of a value that one eigenvector dominates, as here on 1/i.
                band: if settings.probes < 10 {
                    [0.89, 0.97]
                } else {
                    BAND
                },
                ..claim(row("cumulative share"), share, truth, 1.0)
            });
        }
        claims
    }
}

fn bands() -> impl Fn(usize, u64) -> Vec<Claim> {
    let matrices = matrices(1024, 1);
    move |spectrum, seed| {
        let (a, width) = (&matrices[spectrum], 0.03);
        let settings = DensitySettings::default().with_width(width).with_seed(seed);
        let density = settings.run(a).unwrap();
        let (trace, size) = (a.sum(|x| x), a.sum(f64::abs));
        let squares = a.sum(|x| x * x);
        let mut claims = vec![
            claim("band: trace", density.trace(), trace, size),
            claim("band: ‖A‖²", density.frobenius_squared(), squares, squares),
        ];
        let curve = density.cumulative(width, 41).unwrap();
        for i in [4, 5, 6, 20] {
            let (x, value) = (curve.eigenvalues[i], curve.values[i]);
            let share = Estimate {
                value,
                standard_error: curve.standard_errors[i],
                samples: settings.probes,
                products: density.products,
                converged: true,
            };
            let step = |value: f64| 0.5 * erfc((value - x) / (width * SQRT_2));
            let row = format!("band: cumulative share, point {i}");
            let truth = a.sum(step) / a.dim() as f64;
            // The deflation changes a count by 10⁻⁴.
            claims.push(Claim {
                exact: 1e-6,
                ..claim(row, share, truth, 1.0)
            });
        }
        claims
    }
}

fn diagonals() -> impl Fn(usize, u64) -> Vec<Claim> {
    let matrices = matrices(128, 1);
    move |spectrum, seed| {
        let a = &matrices[spectrum];
        let truth = a.apply(&unit(0, a.dim())).unwrap()[0];
        let claims = [10, 100].map(|samples| {
            let found = Diagonal::estimate(a, samples, seed).unwrap();
            Claim {
                row: format!("diagonal, {samples} samples"),
                interval: found.interval(0, 0.95).unwrap(),
                truth,
                exact: 1e-9,
                band: BAND,
            }
        });
        claims.into()
    }
}

/// A + B
struct Sum(Rotated, Rotated);

impl LinearOperator for Sum {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn apply(&self, v: &[f64]) -> Result<Vec<f64>, Error> {
        let (a, b) = (self.0.apply(v)?, self.1.apply(v)?);
        Ok(a.iter().zip(b).map(|(a, b)| a + b).collect())
    }
}

fn unit(i: usize, n: usize) -> Vec<f64> {
    let mut unit = vec![0.0; n];
    unit[i] = 1.0;
    unit
}

/// tr(AB)
fn inner(a: &impl LinearOperator, b: &impl LinearOperator) -> f64 {
    let column = |i| {
        let e = unit(i, a.dim());
        common::dot(&a.apply(&e).unwrap(), &b.apply(&e).unwrap())
    };
    (0..a.dim()).map(column).sum()
}

fn alignments() -> impl Fn(usize, u64) -> Vec<Claim> {
    let pairs = matrices(128, 1)
        .into_iter()
        .zip(matrices(128, 1))
        .zip(matrices(128, 2));
    let pairs: Vec<(Rotated, Sum)> = pairs.map(|((a, b), c)| (a, Sum(b, c))).collect();
    let truths = pairs.iter().map(|(a, b)| {
        let size = (inner(a, a) * inner(b, b)).sqrt();
        (inner(a, b), size)
    });
    let truths: Vec<(f64, f64)> = truths.collect();
    move |spectrum, seed| {
        let ((a, b), (product, size)) = (&pairs[spectrum], truths[spectrum]);
        let found = Alignment::estimate(a, b, 64, seed).unwrap();
        let cosine = product / size;
        vec![
            claim("alignment: product", found.product, product, size),
            claim("alignment: cosine", found.cosine, cosine, 1.0),
        ]
    }
}

/// A linear model whose Hessian and gradient covariance have this spectrum, or a network if it is indefinite.
fn noisy(spectrum: usize) -> Objective {
    const CPU: Device = Device::Cpu;
    if spectrum == 3 {
        let data = two_moons(60, 0.1, 3, &CPU).unwrap();
        let model = Mlp::new(&[2, 12, 2], Activation::Tanh, 4, &CPU).unwrap();
        let model = model.to_dtype(DType::F64).unwrap();
        return Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    }
    let n = 64;
    let rotated = Rotated::new(eigenvalues(spectrum, n), 3);
    let rows = (0..2 * n).flat_map(|i| {
        let mut row = unit(i % n, n);
        rotated.forward(&mut row);
        let factor = (n as f64 * rotated.values[i % n].abs()).sqrt();
        row.into_iter().map(move |x| factor * x)
    });
    let x = Tensor::from_vec(rows.collect(), (2 * n, n), &CPU).unwrap();
    let y = Tensor::from_vec(normal(2 * n, 8), 2 * n, &CPU).unwrap();
    let data = Dataset::regression(&x, &y).unwrap();
    linear(&data, n)
}

/// Squared error of a linear model at θ = 0.
fn linear(data: &Dataset, inputs: usize) -> Objective {
    let model = Mlp::new(&[inputs, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
    at_zero(&model, data)
}

/// Squared error of a model at θ = 0.
fn at_zero(model: &Mlp, data: &Dataset) -> Objective {
    let model = model.to_dtype(DType::F64).unwrap();
    let zeros = vec![0.0; model.parameters().len()];
    model.parameters().set_flat(&zeros).unwrap();
    Objective::of(&model, data, Loss::Mse).unwrap()
}

fn noise_scales() -> impl Fn(usize, u64) -> Vec<Claim> {
    let truth = |objective: &Objective| {
        let sigma = objective.gradient_covariance().unwrap().dense().unwrap();
        let h = objective.hessian().dense().unwrap();
        let g = objective.gradient().unwrap();
        let square = common::dot(&g, &g);
        let along = common::dot(&g, &h.apply(&g).unwrap());
        let (trace, product) = (sigma.matrix().diag().sum(), inner(&h, &sigma));
        let size = (inner(&h, &h) * inner(&sigma, &sigma)).sqrt();
        [trace, trace / square, product / along, product / size]
    };
    let objectives: Vec<Objective> = (0..SPECTRA.len()).map(noisy).collect();
    let truths: Vec<[f64; 4]> = objectives.iter().map(truth).collect();
    move |spectrum, seed| {
        let settings = GradientNoise::default().with_top(1).with_seed(seed);
        let found = settings.run(&objectives[spectrum]).unwrap();
        let estimates = [
            ("noise: tr Σ", found.variance),
            ("noise: simple scale", found.simple_noise_scale),
            ("noise: curvature scale", found.noise_scale),
            ("noise: cosine of H and Σ", found.alignment.cosine),
        ];
        let all = estimates.into_iter().zip(truths[spectrum]);
        all.map(|((row, estimate), truth)| claim(row, estimate, truth, truth.abs()))
            .collect()
    }
}

/// A loss whose Hessian at θ = 0 has these eigenvalues, and 2 for the bias; or a saddle point of a network.
fn bowl(spectrum: usize) -> Objective {
    let tensor = |v: Vec<f64>, m: usize| Tensor::from_vec(v, ((), m), &Device::Cpu).unwrap();
    if spectrum == 3 {
        let (x, y) = (tensor(normal(256, 1), 4), tensor(normal(64, 2), 1));
        let data = Dataset::regression(&x, &y).unwrap();
        let model = Mlp::new(&[4, 6, 1], Activation::Tanh, 0, &Device::Cpu).unwrap();
        return at_zero(&model, &data);
    }
    let n = 39;
    let mut rows = vec![0.0; 2 * n * n];
    for (i, value) in eigenvalues(spectrum, n).iter().enumerate() {
        let entry = (n as f64 * value.abs()).sqrt();
        (rows[i * n + i], rows[(n + i) * n + i]) = (entry, -entry);
    }
    let data = Dataset::regression(&tensor(rows, n), &tensor(vec![0.0; 2 * n], 1)).unwrap();
    linear(&data, n)
}

fn sharpness() -> impl Fn(usize, u64) -> Vec<Claim> {
    let radius: f64 = 1e-3;
    let objectives: Vec<Objective> = (0..SPECTRA.len()).map(bowl).collect();
    let trace = |a: &Objective| a.hessian().dense().unwrap().matrix().diag().sum();
    let traces: Vec<f64> = objectives.iter().map(trace).collect();
    move |spectrum, seed| {
        let objective = &objectives[spectrum];
        let n = objective.dim() as f64;
        let truth = radius.powi(2) * traces[spectrum] / (2.0 * n);
        let default = Sharpness::new(radius).with_seed(seed);
        let mut claims = Vec::new();
        for (samples, of) in [
            (default.pairs, "default"),
            (25, "analyzer"),
            (10, "trajectory"),
        ] {
            let settings = default.clone().with_pairs(samples);
            let found = settings.random(objective).unwrap().mean;
            let row = format!("sharpness, {of}: ball");
            // E‖δ‖² is n/(n + 2) of that on the sphere.
            claims.push(claim(row, found, truth * n / (n + 2.0), truth));
        }
        let found = default.average(objective).unwrap();
        claims.push(claim("sharpness: sphere", found.mean, truth, truth));
        claims.push(claim("sharpness: quadratic", found.quadratic, truth, truth));
        let found = default.gaussian(objective).unwrap().mean;
        claims.push(claim("sharpness: Gaussian", found, truth, truth));
        claims
    }
}

fn learning_coefficients() -> impl Fn(usize, u64) -> Vec<Claim> {
    let (temperature, localization) = (1000.0, 100.0);
    let objectives: Vec<Objective> = (0..SPECTRA.len()).map(bowl).collect();
    let truth = |objective: &Objective| -> f64 {
        let shares = common::hessian_values(objective).into_iter().map(|h| {
            let curvature = temperature * h;
            0.5 * curvature / (curvature + localization)
        });
        shares.sum()
    };
    let truths: Vec<f64> = objectives.iter().map(truth).collect();
    move |spectrum, seed| {
        // The coefficient of a saddle point is not defined.
        if seed >= 8 || spectrum == 3 {
            return Vec::new();
        }
        let objective = &objectives[spectrum];
        let settings = LearningCoefficient::default()
            .with_beta(temperature / objective.samples() as f64)
            .with_localization(localization)
            .with_seed(seed);
        let found = settings.run(objective).unwrap();
        vec![Claim {
            // 8 runs: fewer than 5 covered ones have a probability of 10⁻⁴.
            band: [0.6, 1.0],
            ..claim(
                "learning coefficient",
                found.coefficient,
                truths[spectrum],
                truths[spectrum],
            )
        }]
    }
}

/// The sample covariance of `rows` vectors of `columns` independent entries, the first of which have these variances.
fn sample_covariance(rows: usize, columns: usize, variances: &[f64], seed: u64) -> Dense {
    let mut x = Array2::from_shape_vec((rows, columns), normal(rows * columns, seed)).unwrap();
    for (mut column, variance) in x.columns_mut().into_iter().zip(variances) {
        column *= variance.sqrt();
    }
    // The smaller of the two matrices with the same positive eigenvalues.
    let product = if rows < columns {
        x.dot(&x.t())
    } else {
        x.t().dot(&x)
    };
    Dense::new(product / rows as f64).unwrap()
}

/// Planted outliers are counted, and more than those at most at the stated rate.
#[test]
fn outliers_are_counted_at_the_stated_rate() {
    const RUNS: u64 = 300;
    let test = OutlierTest::default().with_max_outliers(25);
    let planted = [40.0, 25.0, 16.0, 10.0];
    let ensembles = [
        ("tall", 240, 60, &planted[..0]),
        ("wide", 60, 240, &planted[..0]),
        ("square", 60, 60, &planted[..0]),
        ("tall with 1", 240, 60, &planted[..1]),
        ("tall with 4", 240, 60, &planted[..]),
        ("square with 4", 60, 60, &[400.0, 250.0, 160.0, 100.0][..]),
    ];
    for (name, rows, columns, planted) in ensembles {
        let mut counts = BTreeMap::new();
        for seed in 0..RUNS {
            let matrix = sample_covariance(rows, columns, planted, seed + 1);
            let found = test.count(&matrix.eigen().unwrap()).unwrap();
            *counts.entry(found.count).or_insert(0) += 1;
        }
        println!("{name}: {counts:?}");
        let share = |range: &dyn Fn(usize) -> bool| {
            let counts = counts.iter().filter(|(count, _)| range(**count));
            counts.map(|(_, runs)| *runs as f64).sum::<f64>() / RUNS as f64
        };
        // 5 % plus three standard deviations of 300 runs.
        let too_many = share(&|count| count > planted.len());
        assert!(too_many <= 0.05 + 0.038, "{name}: {too_many}");
        assert_eq!(share(&|count| count < planted.len()), 0.0, "{name}");
    }
}
