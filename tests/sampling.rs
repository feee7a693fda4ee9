//! Sampling errors: numbers measured on random subsamples and their intervals for all samples.

mod common;

use common::{assert_close, numbers};
use loss_landscape::analysis::{HessianSampling, Report, SamplingError, Subsample};
use loss_landscape::prelude::*;
use loss_landscape::spectral::Bracket;

/// Deterministic, approximately normal numbers: sums of twelve uniform ones.
fn normals(n: usize, seed: u64) -> Vec<f64> {
    let uniform = numbers(12 * n, seed);
    let sums = uniform
        .chunks(12)
        .map(|twelve| twelve.iter().sum::<f64>() / 2.0);
    sums.collect()
}

fn classes(x: Vec<f64>, labels: Vec<u32>) -> Dataset {
    let (n, width) = (labels.len(), x.len() / labels.len());
    let x = Tensor::from_vec(x, (n, width), &Device::Cpu).unwrap();
    let labels = Tensor::from_vec(labels, n, &Device::Cpu).unwrap();
    Dataset::classification(&x, &labels).unwrap()
}

fn perceptron(widths: &[usize], seed: u64) -> Mlp {
    let model = Mlp::new(widths, Activation::Tanh, seed, &Device::Cpu).unwrap();
    model.to_dtype(DType::F64).unwrap()
}

fn analyzer(model: &Mlp, data: &Dataset) -> Analyzer {
    Analyzer::new(model, data, data, Loss::CrossEntropy).unwrap()
}

/// Logistic regression with 50 parameters on 1,000 samples.
fn logistic() -> (Mlp, Dataset) {
    let (n, width) = (1_000, 49);
    let x: Vec<f64> = normals(n * width, 3).iter().map(|x| 0.3 * x).collect();
    let teacher = normals(width, 4);
    let chances = numbers(n, 5);
    let labels = x.chunks(width).zip(chances).map(|(x, chance)| {
        let z: f64 = x.iter().zip(&teacher).map(|(x, w)| x * w).sum();
        u32::from(1.0 / (1.0 + (-z).exp()) > 0.5 * (chance + 1.0))
    });
    let data = classes(x.clone(), labels.collect());
    let model = perceptron(&[width, 1], 0);
    let trainer = Trainer::adam(0.02).with_batch_size(100).with_epochs(30);
    trainer.fit(&model, &data, &data).unwrap();
    (model, data)
}

/// A network on 800 samples of two classes, one of which has a tenth of the samples.
fn network() -> (Mlp, Dataset) {
    let labels: Vec<u32> = (0..800).map(|i| u32::from(i % 10 == 0)).collect();
    let noise = normals(2 * labels.len(), 9);
    let x = noise
        .iter()
        .enumerate()
        .map(|(i, x)| x + 1.5 * f64::from(labels[i / 2]));
    let data = classes(x.collect(), labels);
    let model = perceptron(&[2, 6, 2], 1);
    let trainer = Trainer::adam(0.02).with_batch_size(80).with_epochs(10);
    trainer.fit(&model, &data, &data).unwrap();
    (model, data)
}

/// Name, value and sampling error of each number of a report that can have one.
fn sampled(report: &Report) -> Vec<(&'static str, f64, Option<SamplingError>)> {
    let hessian = report.hessian.as_ref().unwrap();
    let error =
        |f: fn(&HessianSampling) -> Option<SamplingError>| hessian.sampling.as_ref().and_then(f);
    let value = |bracket: Option<Bracket>| bracket.map_or(f64::NAN, |b| b.value);
    let (plain, adaptive) = (&report.sharpness, &report.adaptive);
    let damped = value(hessian.damped_condition_number);
    let flatness = report.flatness.map_or(f64::NAN, |f| f.value);
    vec![
        (
            "λ_max",
            hessian.largest[0].value,
            error(|s| Some(s.largest)),
        ),
        (
            "λ_min",
            hessian.smallest[0].value,
            error(|s| Some(s.smallest)),
        ),
        (
            "κ",
            value(hessian.condition_number),
            error(|s| s.condition_number),
        ),
        ("κ of H + λI", damped, error(|s| s.damped_condition_number)),
        (
            "gap",
            value(hessian.spectral_gap),
            error(|s| s.spectral_gap),
        ),
        ("trace", hessian.trace.value, error(|s| Some(s.trace))),
        (
            "2/λ_max",
            value(hessian.stable_rate),
            error(|s| s.stable_rate),
        ),
        ("random search", plain.random.maximum, plain.random_sampling),
        ("worst case", plain.worst, plain.worst_sampling),
        (
            "adaptive random search",
            adaptive.random.maximum,
            adaptive.random_sampling,
        ),
        (
            "adaptive worst case",
            adaptive.worst,
            adaptive.worst_sampling,
        ),
        ("flatness", flatness, report.flatness_sampling),
    ]
}

/// Coverage of the intervals of many subsamples.
struct Coverage {
    name: &'static str,
    /// Intervals that miss the value of all samples.
    missed: u64,
    /// Median width, in units of the value of all samples.
    width: f64,
    /// Mean of the number over its value on all samples.
    ratio: f64,
}

fn coverage(model: &Mlp, data: &Dataset, n: usize, runs: u64) -> Vec<Coverage> {
    let analyzer = analyzer(model, data)
        .with_eigenvalues(2)
        .with_damping(0.05)
        .unwrap();
    let whole = sampled(&analyzer.full_analysis().unwrap());
    assert!(whole.iter().all(|(.., sampling)| sampling.is_none()));
    let reports = (0..runs).map(|seed| {
        analyzer
            .clone()
            .with_samples(n, seed)
            .unwrap()
            .full_analysis()
    });
    let reports: Vec<_> = reports.map(|report| sampled(&report.unwrap())).collect();
    let of = |(i, (name, exact, _)): (usize, &(&'static str, f64, _))| {
        let stated = || reports.iter().filter_map(|report| report[i].2);
        let misses = |s: &SamplingError| *exact < s.low || *exact > s.high;
        let mut widths: Vec<f64> = stated().map(|s| (s.high - s.low) / exact.abs()).collect();
        widths.sort_by(f64::total_cmp);
        let ratios = reports.iter().map(|report| report[i].1 / exact);
        let found = Coverage {
            name,
            missed: stated().filter(misses).count() as u64,
            width: widths.get(widths.len() / 2).copied().unwrap_or(0.0),
            ratio: ratios.sum::<f64>() / runs as f64,
        };
        println!(
            "{name:<24} {exact:>10.4}: missed {} of {}, width {:.2}, ratio {:.2}",
            found.missed,
            widths.len(),
            found.width,
            found.ratio
        );
        found
    };
    whole.iter().enumerate().map(of).collect()
}

fn assert_covers(found: &[Coverage], runs: u64) {
    for Coverage { name, missed, .. } in found {
        assert!(
            100 * missed <= 7 * runs,
            "{name}: {missed} of {runs} intervals miss"
        );
    }
}

fn coverage_of<'a>(found: &'a [Coverage], name: &str) -> &'a Coverage {
    found.iter().find(|c| c.name == name).unwrap()
}

/// With as many samples as parameters, λ₁ is 20 % too large.
#[test]
fn intervals_of_a_convex_model_cover_the_values_of_all_samples() {
    let (model, data) = logistic();
    let found = coverage(&model, &data, 50, 200);
    assert_covers(&found, 200);
    let largest = coverage_of(&found, "λ_max");
    assert!(
        largest.ratio > 1.1 && largest.width < 1.2,
        "{}",
        largest.width
    );
    assert!(coverage_of(&found, "trace").width < 0.6);
    assert!(coverage_of(&found, "flatness").width < 1.0);
}

/// Checked at the minimum for all samples, halfway to it, and at a random point.
#[test]
fn a_subsample_does_not_contradict_all_samples_about_the_gradient() {
    let (trained, data) = logistic();
    let minimum = trained.parameters().to_flat().unwrap();
    let start = perceptron(&[49, 1], 0).parameters().to_flat().unwrap();
    for (share, expected) in [(1.0, true), (0.5, false), (0.0, false)] {
        let theta = start.iter().zip(&minimum);
        let theta: Vec<f64> = theta.map(|(a, b)| a + share * (b - a)).collect();
        trained.parameters().set_flat(&theta).unwrap();
        let analyzer = analyzer(&trained, &data);
        let newton = |analyzer: &Analyzer| analyzer.hessian_metrics(1).unwrap().newton.unwrap();
        let whole = newton(&analyzer);
        assert_eq!(whole.is_small(), Some(expected), "{whole:?}");
        assert_eq!(whole.on_all_samples, whole.decrease);
        let (mut above, mut decided) = (0, 0);
        for seed in 0..100 {
            let part = newton(&analyzer.clone().with_samples(100, seed).unwrap());
            above += usize::from(part.on_all_samples > whole.decrease);
            decided += usize::from(part.is_small().is_some());
            assert!(
                part.is_small().is_none_or(|small| small == expected),
                "{part:?}"
            );
        }
        println!("{share}: {above} above, {decided} decided");
        assert!(above <= 3);
        assert!(expected || decided >= 95, "{decided}");
    }
}

#[test]
fn intervals_of_a_network_cover_the_values_of_all_samples() {
    let (model, data) = network();
    let found = coverage(&model, &data, 100, 200);
    assert_covers(&found, 200);
    assert!(coverage_of(&found, "λ_max").width < 1.0 && coverage_of(&found, "trace").width < 1.2);
}

/// If most samples are measured, intervals are narrow and still cover.
#[test]
fn intervals_shrink_towards_all_samples() {
    let (model, data) = logistic();
    let found = coverage(&model, &data, 800, 100);
    assert_covers(&found, 100);
    assert!(coverage_of(&found, "λ_max").width < 0.2 && coverage_of(&found, "trace").width < 0.15);
    let near = coverage(&model, &data, 999, 3);
    assert_covers(&near, 3);
    assert!(
        coverage_of(&near, "λ_max").width < 0.01 && coverage_of(&near, "flatness").width < 0.01
    );
}

/// 90 samples of one class and 10 of the other, without features: at the best intercept the gradient is 0.
#[test]
fn imbalanced_labels_are_handled() {
    let labels: Vec<u32> = (0..100).map(|i| u32::from(i % 10 == 0)).collect();
    let data = classes(vec![0.0; 100], labels);
    let model = perceptron(&[1, 1], 0);
    let intercept = (0.1f64 / 0.9).ln();
    model.parameters().set_flat(&[intercept, 0.0]).unwrap();
    let loss = -0.1 * 0.1f64.ln() - 0.9 * 0.9f64.ln();

    let analyzer = analyzer(&model, &data).with_hessian(false);
    let report = analyzer
        .clone()
        .with_samples(20, 1)
        .unwrap()
        .full_analysis()
        .unwrap();
    assert!(report.gradient_norm < 1e-15, "{}", report.gradient_norm);
    assert_close(&[report.train.loss], &[loss], 1e-14);
    // Losses and intercept gradients of subsamples are unbiased.
    let runs = 2_000;
    let mut sums = [0.0; 2];
    for seed in 0..runs {
        let objective = analyzer.clone().with_samples(20, seed).unwrap().objective();
        sums[0] += objective.loss().unwrap() / runs as f64;
        sums[1] += objective.gradient().unwrap()[0] / runs as f64;
    }
    // One sample's loss differs by ln 9 between the classes, its gradient by 1.
    let error = (0.09 / 20.0 * 80.0 / 99.0 / runs as f64).sqrt();
    assert!((sums[0] - loss).abs() < 4.0 * error * 9f64.ln(), "{sums:?}");
    assert!(sums[1].abs() < 4.0 * error, "{sums:?}");
}

#[test]
fn all_samples_have_no_sampling_error() {
    let (model, data) = network();
    let whole = analyzer(&model, &data).with_eigenvalues(2);
    let same = whole.clone().with_samples(data.len(), 3).unwrap();
    let [whole, same] = [whole, same].map(|analyzer| analyzer.full_analysis().unwrap());
    assert_eq!(same, whole);
    assert_eq!(same.subsample, Subsample::All);
    let table = same.table().unwrap();
    assert_eq!(table.column("low").unwrap().null_count(), table.height());
    assert!(!same.to_string().contains("95 %"));
}

#[test]
fn subsamples_are_stated_with_their_intervals() {
    let (model, data) = network();
    let part = analyzer(&model, &data)
        .with_eigenvalues(2)
        .with_samples(100, 7)
        .unwrap();
    let report = part.full_analysis().unwrap();
    assert_eq!(report, part.full_analysis().unwrap());
    let (samples, seed) = (100, 7);
    assert_eq!(report.subsample, Subsample::Random { samples, seed });
    let text = report.to_string();
    assert!(
        text.contains("curvature on 100 random of 800 training samples, seed 7"),
        "{text}"
    );
    assert!(text.contains("95 % on all samples"), "{text}");

    let largest = report.hessian.unwrap().sampling.unwrap().largest;
    let (low, high) = (largest.low, largest.high);
    let table = part.full_analysis().unwrap().table().unwrap();
    let row = table.column("quantity").unwrap().str().unwrap();
    let row = row
        .iter()
        .position(|name| name == Some("largest eigenvalue"))
        .unwrap();
    for (column, expected) in [("low", low), ("high", high)] {
        let found = table.column(column).unwrap().f64().unwrap().get(row);
        assert_eq!(found, Some(expected));
    }
    assert!(largest.standard_error > 0.0);
    let both = Report::compare(&[("part", part.full_analysis().unwrap())]).unwrap();
    let found = both
        .column("low largest eigenvalue")
        .unwrap()
        .f64()
        .unwrap();
    assert_eq!(found.get(0), Some(low));
}

/// A single sample has no spread.
#[test]
fn one_sample_states_no_interval() {
    let (model, data) = network();
    let report = analyzer(&model, &data)
        .with_eigenvalues(2)
        .with_samples(1, 0)
        .unwrap();
    let report = report.full_analysis().unwrap();
    assert!(
        sampled(&report)
            .iter()
            .all(|(.., sampling)| sampling.is_none())
    );
    // If the dataset has only one sample, this sample is the whole dataset.
    let single = data.first(1).unwrap();
    let report = analyzer(&model, &single)
        .with_eigenvalues(2)
        .with_samples(1, 0)
        .unwrap();
    assert_eq!(report.full_analysis().unwrap().subsample, Subsample::All);
}

/// Equal samples give the same numbers on any subsample.
#[test]
fn equal_samples_have_no_sampling_error() {
    let data = classes([0.3, -0.7].repeat(60), vec![1; 60]);
    let model = perceptron(&[2, 3, 2], 4);
    let whole = analyzer(&model, &data).with_eigenvalues(2);
    let part = whole.clone().with_samples(20, 0).unwrap();
    let [whole, part] = [whole, part].map(|analyzer| analyzer.full_analysis().unwrap());
    let (whole, part) = (sampled(&whole), sampled(&part));
    for ((name, exact, _), (_, _, sampling)) in whole.iter().zip(&part) {
        let Some(s) = sampling else {
            assert!(
                ["κ", "κ of H + λI"].contains(name),
                "{name} has no interval"
            );
            continue;
        };
        assert!(s.standard_error <= 1e-12 * exact.abs(), "{name}: {s:?}");
        let slack = 1e-12 * exact.abs();
        assert!(
            s.low - slack <= *exact && *exact <= s.high + slack,
            "{name}: {exact} {s:?}"
        );
    }
}
