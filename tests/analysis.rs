//! Reports on models whose quantities are known exactly.

mod common;

use common::{assert_close, bits, dot, numbers};
use loss_landscape::analysis::{Report, Subsample};
use loss_landscape::model::Design;
use loss_landscape::polars::prelude::{AnyValue, DataFrame};
use loss_landscape::prelude::*;
use loss_landscape::serde_json;
use loss_landscape::spectral::Spectrum;

fn values(x: Vec<f64>, y: Vec<f64>) -> Dataset {
    let (n, width) = (y.len(), x.len() / y.len());
    let tensor = |v: Vec<f64>, m: usize| Tensor::from_vec(v, (n, m), &Device::Cpu).unwrap();
    Dataset::regression(&tensor(x, width), &tensor(y, 1)).unwrap()
}

fn perceptron(widths: &[usize], seed: u64) -> Mlp {
    let model = Mlp::new(widths, Activation::Tanh, seed, &Device::Cpu).unwrap();
    model.to_dtype(DType::F64).unwrap()
}

/// Bias and weights at the minimum.
const MINIMUM: [f64; 4] = [0.3, -0.9, 2.0, 0.7];
/// 2/n XᵀX with a column of ones is diagonal, since the features are orthogonal.
const EIGENVALUES: [f64; 4] = [2.0, 8.0, 1.0, 0.1];

/// Linear regression on eight samples of three features, and a test set whose targets are shifted by ½.
fn regression() -> (Mlp, Dataset, Dataset) {
    let sizes = [1, 2, 3].map(|i| (EIGENVALUES[i] / 2.0).sqrt());
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for sample in 0..8 {
        let signs = [0, 1, 2].map(|bit| if sample >> bit & 1 == 1 { 1.0 } else { -1.0 });
        let features: Vec<f64> = signs.iter().zip(sizes).map(|(s, size)| s * size).collect();
        let products = features.iter().zip(&MINIMUM[1..]).map(|(f, w)| f * w);
        y.push(MINIMUM[0] + products.sum::<f64>());
        x.extend(features);
    }
    let shifted = y.iter().map(|y| y + 0.5).collect();
    let model = perceptron(&[3, 1], 0);
    model.parameters().set_flat(&MINIMUM).unwrap();
    (model, values(x.clone(), y), values(x, shifted))
}

/// f(x) = Σ vⱼ tanh(wⱼx + cⱼ) + b. At θ = 0, f, the mean of the targets and the gradient are 0. With r = mean xy, the Hessian has
/// the eigenvalues ±2r for each of the seven units, 2 for b, and 0 for the cⱼ.
fn saddle() -> (Mlp, Dataset) {
    let x = vec![-2.0, -1.0, 1.0, 2.0];
    let data = values(x.clone(), x);
    let model = perceptron(&[1, 7, 1], 0);
    (model, data)
}

const MEAN_SQUARE: f64 = 2.5;

fn verdict(table: &DataFrame, quantity: &str) -> String {
    cell(table, quantity, "verdict")
        .to_string()
        .replace('"', "")
}

fn cell<'a>(table: &'a DataFrame, quantity: &str, column: &str) -> AnyValue<'a> {
    let names = table.column("quantity").unwrap();
    let row = (0..table.height())
        .find(|i| names.get(*i).unwrap() == AnyValue::String(quantity))
        .unwrap_or_else(|| panic!("no {quantity}"));
    table.column(column).unwrap().get(row).unwrap()
}

#[test]
fn a_report_of_linear_regression_matches_closed_forms() {
    let (model, train, test) = regression();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let before = bits(model.parameters());
    let report = analyzer.full_analysis().unwrap();
    assert_eq!(bits(model.parameters()), before);
    assert_eq!(report, analyzer.full_analysis().unwrap());

    assert_eq!((report.parameters, report.train_samples), (4, 8));
    assert!(report.hand_derived && report.subsample == Subsample::All);
    assert_eq!(report.engine, "by hand-derived rules");
    assert!(
        report
            .to_string()
            .contains("derivatives: by hand-derived rules\n")
    );
    assert!(report.train.loss < 1e-30 && report.gradient_norm < 1e-14);
    let found = [report.test.loss, report.generalization_gap];
    assert_close(&found, &[0.25, 0.25], 1e-14);

    let hessian = report.hessian.as_ref().unwrap();
    let largest: Vec<f64> = hessian.largest.iter().map(|e| e.value).collect();
    let smallest: Vec<f64> = hessian.smallest.iter().map(|e| e.value).collect();
    assert_close(&largest, &[8.0, 2.0, 1.0, 0.1], 1e-14);
    assert_close(&smallest, &[0.1, 1.0, 2.0, 8.0], 1e-14);
    let squares: f64 = EIGENVALUES.iter().map(|v| v * v).sum();
    let found = [
        hessian.condition_number.unwrap().value,
        hessian.spectral_gap.unwrap().value,
        hessian.trace.value,
        hessian.effective_rank.unwrap().value,
        hessian.stable_rate.unwrap().value,
        hessian.negative.count.value,
    ];
    let rank = 11.1 * 11.1 / squares;
    for (found, exact) in found.iter().zip([80.0, 6.0, 11.1, rank, 0.25, 0.0]) {
        assert!((found - exact).abs() < 1e-11, "{found} is not {exact}");
    }
    // At the minimum of a quadratic, the worst case is ρ²λ₁/2. In the adaptive worst case, λᵢθᵢ² replaces λᵢ.
    let adaptive_curvature = EIGENVALUES.iter().zip(MINIMUM).map(|(v, m)| v * m * m);
    let adaptive_curvature = adaptive_curvature.fold(0.0, f64::max);
    let found = [report.sharpness.worst, report.adaptive.worst];
    assert_close(&found[..1], &[0.0025 * 8.0 / 2.0], 1e-6);
    assert_close(&found[1..], &[0.25 * adaptive_curvature / 2.0], 1e-6);
    assert!(report.sharpness.random.maximum <= report.sharpness.worst);
    let distance = report.flatness.unwrap().value;
    assert!(distance > (0.2f64 / 8.0).sqrt() && distance < (0.2f64 / 0.1).sqrt());

    let table = report.table().unwrap();
    assert_eq!(
        verdict(&table, "condition number"),
        "excellent. Gradient descent converges fast."
    );
    assert_eq!(
        verdict(&table, "negative eigenvalues"),
        "near a minimum. Up to five negative eigenvalues are usual during training."
    );
    assert_eq!(
        verdict(&table, "sharpness, worst case"),
        "flat, but depends on the scaling of layers. \
         This often goes with good generalisation."
    );
    assert!(verdict(&table, "adaptive sharpness, worst case").starts_with("moderate. "));
    let text = report.to_string();
    assert!(
        text.contains("on all training samples") && text.contains("80.000"),
        "{text}"
    );
}

/// The same quantities from only two eigenvalues at each end.
#[test]
fn two_eigenvalues_from_each_end_suffice() {
    let (model, train, test) = regression();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let one = analyzer.hessian_metrics(1).unwrap();
    assert_eq!((one.largest.len(), one.smallest.len()), (1, 1));
    assert_close(&[one.condition_number.unwrap().value], &[80.0], 1e-9);
    assert!(one.negative.complete && one.negative.count.high == 0.0);
    let rank = one.effective_rank.unwrap();
    let exact = 11.1 * 11.1 / (64.0 + 4.0 + 1.0 + 0.01);
    // A probe of random signs gives all eigenvectors of a diagonal matrix the same weight.
    assert!(
        (rank.value - exact).abs() < 1e-9 + 4.0 * rank.standard_error,
        "{rank}"
    );
    assert!((rank.standard_error < 0.5), "{rank}");
}

#[test]
fn a_saddle_point_is_recognised() {
    let (model, data) = saddle();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    model.parameters().set_flat(&[0.0; 22]).unwrap();
    let curvature = 2.0 * MEAN_SQUARE;

    let all = analyzer.hessian_metrics(11).unwrap();
    let mut expected = vec![curvature; 7];
    expected.extend([2.0, 0.0, 0.0, 0.0]);
    let largest: Vec<f64> = all.largest.iter().map(|e| e.value).collect();
    assert_close(&largest, &expected, 1e-13);
    assert_close(&[all.smallest[6].value], &[-curvature], 1e-13);
    // There are seven negative eigenvalues, followed by zeros. Eight of the smallest show that, seven do not.
    let eight = analyzer.hessian_metrics(8).unwrap();
    for found in [&all, &eight] {
        let negative = &found.negative;
        assert_eq!((negative.certain, negative.complete), (7, true));
        assert_eq!((negative.count.low, negative.count.high), (7.0, 7.0));
        assert_eq!(found.condition_number, None);
    }
    let seven = analyzer.hessian_metrics(7).unwrap().negative;
    let three = analyzer.hessian_metrics(3).unwrap().negative;
    for (found, certain) in [(&seven, 7), (&three, 3)] {
        assert!(!found.complete && found.density.is_some());
        assert_eq!(found.certain, certain);
        let [low, high] = [found.count.low, found.count.high];
        assert!(
            low >= certain as f64 && low <= 7.0 && high >= 7.0,
            "{found:?}"
        );
    }

    let report = analyzer.with_eigenvalues(8).full_analysis().unwrap();
    assert!(report.gradient_norm < 1e-14);
    let table = report.table().unwrap();
    assert_eq!(
        verdict(&table, "negative eigenvalues"),
        "likely a saddle point. Training can continue along directions of negative curvature."
    );
    assert_eq!(
        verdict(&table, "condition number"),
        "not meaningful: λ_min is negative"
    );
    let found = number(&table, "λ_max/|λ_min|");
    assert!((found - 1.0).abs() < 1e-12, "{found}");
    assert_eq!(
        verdict(&table, "|λ|_max/|λ|_min"),
        "not computed: needs all eigenvalues"
    );
    let all = all.table().unwrap();
    assert_eq!(
        verdict(&all, "|λ|_max/|λ|_min"),
        "not meaningful: the smallest |λ| is zero within its error"
    );
    let table = analyzer_table(3);
    let words = verdict(&table, "negative eigenvalues");
    assert!(words.contains("at least 3, by the density"), "{words}");
}

/// The saddle with 69 additional features that are 0. Of its 505 eigenvalues, seven are −5, seven 5, one 2, and the others 0.
#[test]
fn seven_negative_eigenvalues_among_505_are_counted() {
    let mut x = vec![0.0; 4 * 70];
    for (row, first) in [-2.0, -1.0, 1.0, 2.0].into_iter().enumerate() {
        x[70 * row] = first;
    }
    let data = values(x, vec![-2.0, -1.0, 1.0, 2.0]);
    for dtype in [DType::F64, DType::F32] {
        let model = perceptron(&[70, 7, 1], 0).to_dtype(dtype).unwrap();
        let data = data.to_dtype(dtype).unwrap();
        model.parameters().set_flat(&[0.0; 505]).unwrap();
        let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
        let found = analyzer.hessian_metrics(10).unwrap();
        let negative = &found.negative;
        assert_eq!(
            (negative.certain, negative.complete),
            (7, true),
            "{dtype:?}"
        );
        assert_eq!((negative.count.low, negative.count.high), (7.0, 7.0));
        for eigenvalue in &found.smallest[..7] {
            assert!((eigenvalue.value + 5.0).abs() < 1e-5, "{eigenvalue:?}");
        }
        // Fewer computed eigenvalues give a lower bound.
        let few = analyzer.hessian_metrics(5).unwrap();
        assert!(!few.negative.complete && few.negative.certain == 5);
        let words = verdict(&few.table().unwrap(), "negative eigenvalues");
        assert!(words.contains("at least 5, by the density"), "{words}");
    }
}

fn number(table: &DataFrame, quantity: &str) -> f64 {
    match cell(table, quantity, "value") {
        AnyValue::Float64(value) => value,
        other => panic!("{quantity} is {other:?}"),
    }
}

/// A perceptron with 13 parameters at a random point, with all eigenvalues of the dense Hessian.
fn small_network() -> (Analyzer, Spectrum, Objective) {
    let data = two_moons(60, 0.1, 0, &Device::Cpu).unwrap();
    let model = perceptron(&[2, 3, 1], 1);
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let exact = objective.hessian().dense().unwrap().eigen().unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy).unwrap();
    (analyzer, exact, objective)
}

#[test]
fn ratios_complement_an_undefined_condition_number() {
    let (analyzer, exact, _) = small_network();
    let values = exact.values();
    assert!(values[12] < -1e-3);
    let size = |f: fn(f64, f64) -> f64, from: f64| values.iter().fold(from, |m, x| f(m, x.abs()));
    let by_magnitude = size(f64::max, 0.0) / size(f64::min, f64::INFINITY);

    let metrics = analyzer.hessian_metrics(7).unwrap();
    assert_eq!(metrics.condition_number, None);
    let ratios = [metrics.end_ratio, metrics.magnitude_ratio].map(|ratio| ratio.unwrap().value);
    assert_close(&ratios[..1], &[values[0] / values[12].abs()], 1e-10);
    assert_close(&ratios[1..], &[by_magnitude], 1e-8);
    let table = metrics.table().unwrap();
    assert_eq!(number(&table, "λ_max/|λ_min|"), ratios[0]);
    assert_eq!(number(&table, "|λ|_max/|λ|_min"), ratios[1]);

    // The smallest magnitude is unknown if only some eigenvalues are computed.
    let some = analyzer.hessian_metrics(2).unwrap();
    assert_eq!(some.magnitude_ratio, None);
    let words = verdict(&some.table().unwrap(), "|λ|_max/|λ|_min");
    assert_eq!(words, "not computed: needs all eigenvalues");
}

/// With one eigenvalue from each end, the second largest is unknown.
#[test]
fn one_eigenvalue_from_each_end_gives_no_gap() {
    let (analyzer, exact, _) = small_network();
    let values = exact.values();
    let metrics = analyzer.hessian_metrics(1).unwrap();
    assert_eq!(metrics.spectral_gap, None);
    let words = verdict(&metrics.table().unwrap(), "spectral gap");
    assert_eq!(words, "not computed: needs two eigenvalues from each end");
    let gap = analyzer.hessian_metrics(2).unwrap().spectral_gap.unwrap();
    let exact = values[0] - values[1];
    assert!(gap.low <= exact && exact <= gap.high, "{gap}");
}

#[test]
fn damping_shifts_the_condition_number() {
    let (model, train, test) = regression();
    let new = || Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let damped = new().with_damping(0.9).unwrap().full_analysis().unwrap();
    let table = damped.table().unwrap();
    let quantity = "condition number of H + 0.9 I";
    assert!((number(&table, quantity) - 8.9).abs() < 1e-10);
    assert!(verdict(&table, quantity).starts_with("excellent. "));
    assert!((number(&table, "condition number") - 80.0).abs() < 1e-9);
    for damping in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(new().with_damping(damping).is_err());
    }

    // Eigenvalues from −5 to 5.
    let (model, data) = saddle();
    model.parameters().set_flat(&[0.0; 22]).unwrap();
    let new = || Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    let enough = new().with_damping(6.0).unwrap().hessian_metrics(3).unwrap();
    let found = enough.damped_condition_number.unwrap();
    assert!(found.low <= 11.0 && 11.0 <= found.high, "{found}");
    assert!((found.value - 11.0).abs() < 1e-6, "{found}");
    let little = new().with_damping(1.0).unwrap().hessian_metrics(3).unwrap();
    assert_eq!(little.damped_condition_number, None);
    let words = verdict(&little.table().unwrap(), "condition number of H + 1 I");
    assert_eq!(
        words,
        "not meaningful: H + λI is not positive definite; needs λ above 5.0"
    );
}

/// ½ gᵀ(|H| + λI)⁻¹g from all eigenvectors.
fn decrease(exact: &Spectrum, gradient: &[f64], damping: f64) -> f64 {
    let terms = exact.pairs.iter().map(|pair| {
        let along = dot(&pair.vector, gradient);
        0.5 * along * along / (pair.value.abs() + damping)
    });
    terms.sum()
}

#[test]
fn the_newton_decrement_agrees_with_all_eigenvectors() {
    let (analyzer, exact, objective) = small_network();
    let gradient = objective.gradient().unwrap();
    for damping in [0.0, 1e-3, 1.0] {
        let found = analyzer.clone().with_damping(damping).unwrap();
        let found = found.hessian_metrics(2).unwrap().newton.unwrap();
        let expected = decrease(&exact, &gradient, damping);
        assert!((found.decrease / expected - 1.0).abs() < 1e-7, "{found:?}");
        assert!(found.converged && found.error == 0.0);
    }
}

/// A Hessian too large for the iteration to exhaust: the result is never too large, and nearly exact if λ bounds the
/// curvature from below.
#[test]
fn a_newton_step_in_a_krylov_space_is_a_lower_bound() {
    let data = two_moons(100, 0.2, 0, &Device::Cpu).unwrap();
    let model = perceptron(&[2, 16, 16, 2], 1);
    let objective = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let exact = objective.hessian().dense().unwrap().eigen().unwrap();
    let gradient = objective.gradient().unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy).unwrap();
    let size = exact.values()[0];
    for (fraction, least) in [(1e-1, 0.99), (1e-2, 0.97), (1e-4, 0.5), (0.0, 0.01)] {
        let damped = analyzer.clone().with_damping(fraction * size).unwrap();
        let found = damped.hessian_metrics(1).unwrap().newton.unwrap();
        let expected = decrease(&exact, &gradient, found.damping);
        let ratio = found.decrease / expected;
        assert!(ratio <= 1.0 + 1e-9 && ratio >= least, "{ratio} {found:?}");
    }
}

/// The loss (x w − x)² at w = 0 for tiny x: gradient and curvature are tiny, but a step removes all of the loss.
#[test]
fn a_plateau_is_not_near_a_minimum() {
    let tiny = 1e-4;
    let data = values(vec![-tiny, tiny], vec![-tiny, tiny]);
    let model = perceptron(&[1, 1], 0);
    model.parameters().set_flat(&[0.0, 0.0]).unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    let report = analyzer.full_analysis().unwrap();
    let hessian = report.hessian.as_ref().unwrap();
    assert!(report.gradient_norm < 1e-7 && hessian.smallest[0].value < 1e-7);
    assert_eq!(hessian.negative.count.high, 0.0);
    let newton = hessian.newton.unwrap();
    assert_close(&[newton.decrease], &[tiny * tiny], 1e-6);
    let table = report.table().unwrap();
    assert_eq!(
        verdict(&table, "negative eigenvalues"),
        "not near a minimum: the gradient is large relative to the curvature"
    );
    assert_eq!(
        verdict(&table, "decrease by a Newton step"),
        "100 % of the loss: not near a stationary point"
    );
    // At the minimum of the same loss, the verdict changes.
    model.parameters().set_flat(&[0.0, 1.0]).unwrap();
    let table = analyzer.full_analysis().unwrap().table().unwrap();
    assert!(verdict(&table, "negative eigenvalues").starts_with("near a minimum. "));
}

/// A convex loss away from its minimum, and a slope with seven negative eigenvalues.
#[test]
fn a_slope_is_neither_a_minimum_nor_a_saddle_point() {
    let (model, train, test) = regression();
    model.parameters().set_flat(&[1.0, 1.0, 1.0, 1.0]).unwrap();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let table = analyzer.hessian_metrics(2).unwrap().table().unwrap();
    assert_eq!(
        verdict(&table, "negative eigenvalues"),
        "not near a minimum: the gradient is large relative to the curvature"
    );
    let (model, data) = saddle();
    let mut theta = [0.0; 22];
    theta[21] = 1.0; // the last bias, whose curvature is 2
    model.parameters().set_flat(&theta).unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    let table = analyzer.hessian_metrics(8).unwrap().table().unwrap();
    assert_eq!(
        verdict(&table, "negative eigenvalues"),
        "on a slope with many directions of negative curvature, not near a saddle point"
    );
}

/// A steep linear slope: random directions are nearly orthogonal to it.
#[test]
fn a_random_search_is_not_called_flat_if_the_worst_case_is_sharp() {
    let width = 400;
    let x: Vec<f64> = [vec![3.0; width], vec![-3.0; width]].concat();
    let data = values(x, vec![3.0, -3.0]);
    let model = perceptron(&[width, 1], 0);
    model.parameters().set_flat(&vec![0.0; width + 1]).unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    let analyzer = analyzer.with_hessian(false);
    // Along the gradient: L = 9 (1 + 20 r)² at a distance of r.
    let table = analyzer.full_analysis().unwrap().table().unwrap();
    assert!(verdict(&table, "sharpness, worst case").starts_with("sharp, but"));
    let near = analyzer.clone().with_radius(2e-4).full_analysis().unwrap();
    assert!(near.sharpness.random.maximum < 0.1);
    assert_close(&[near.sharpness.slope], &[2e-4 * 360.0], 1e-12);
    assert!(verdict(&near.table().unwrap(), "sharpness, random search").starts_with("flat, but"));
    let further = analyzer.clone().with_radius(1e-3).full_analysis().unwrap();
    assert!(further.sharpness.random.maximum < 0.1);
    assert_eq!(
        verdict(&further.table().unwrap(), "sharpness, random search"),
        "no verdict: to first order the loss increases by 0.36 along the gradient"
    );

    // At the minimum there is no slope, so the verdict depends on the curvature along the same direction.
    let minimum = [vec![0.0], vec![1.0 / width as f64; width]].concat();
    model.parameters().set_flat(&minimum).unwrap();
    let report = analyzer.with_radius(0.02).full_analysis().unwrap();
    assert!(report.sharpness.random.maximum < 0.1 && report.sharpness.slope < 1e-10);
    let exact = 9.0 * width as f64 * 0.02 * 0.02; // ½ρ²λ₁
    assert_close(&[report.sharpness.worst], &[exact], 1e-6);
    assert_eq!(
        verdict(&report.table().unwrap(), "sharpness, random search"),
        "no verdict: random directions miss steep ones; the worst case is sharp"
    );
}

fn analyzer_table(k: usize) -> DataFrame {
    let (model, data) = saddle();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    model.parameters().set_flat(&[0.0; 22]).unwrap();
    analyzer.hessian_metrics(k).unwrap().table().unwrap()
}

/// More parameters than samples: the smallest eigenvalue is 0 and κ is undefined. At a random point the gradient is large.
#[test]
fn a_degenerate_model_has_no_condition_number() {
    let data = values(numbers(18, 5), numbers(3, 6));
    let model = perceptron(&[6, 1], 2);
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    for k in [3, 10] {
        let found = analyzer.hessian_metrics(k).unwrap();
        assert_eq!(found.condition_number, None);
        assert_eq!(found.negative.count.high, 0.0);
        let words = verdict(&found.table().unwrap(), "condition number");
        assert!(
            words.contains("λ_min is zero within its error, κ at least"),
            "{words}"
        );
        let words = verdict(&found.table().unwrap(), "negative eigenvalues");
        assert_eq!(
            words,
            "not near a minimum: the gradient is large relative to the curvature"
        );
    }
}

/// In f32 an increase of 10⁻¹² is below the rounding error of the loss.
#[test]
fn numbers_below_rounding_are_not_called_flat() {
    let data = two_moons(60, 0.1, 3, &Device::Cpu).unwrap();
    let model = perceptron(&[2, 4, 2], 1).to_dtype(DType::F32).unwrap();
    let data = data.to_dtype(DType::F32).unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy).unwrap();
    let report = analyzer
        .with_radius(1e-12)
        .with_hessian(false)
        .full_analysis()
        .unwrap();
    assert_eq!(report.hessian, None);
    let words = verdict(&report.table().unwrap(), "sharpness, worst case");
    assert!(words.starts_with("not meaningful"), "{words}");
}

fn moons() -> (Mlp, Dataset, Dataset) {
    let set = |seed| two_moons(120, 0.1, seed, &Device::Cpu).unwrap();
    (perceptron(&[2, 5, 2], 7), set(1), set(2))
}

#[test]
fn a_report_states_its_subsample() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let analyzer = analyzer.with_samples(40, 5).unwrap().with_eigenvalues(3);
    let report = analyzer.full_analysis().unwrap();
    let samples = 40;
    assert_eq!(report.subsample, Subsample::Random { samples, seed: 5 });
    let on = |data: &Dataset| Objective::of(&model, data, Loss::CrossEntropy).unwrap();
    let some = on(&train.random(40, 5).unwrap());
    let exact = common::hessian_values(&some);
    let hessian = report.hessian.unwrap();
    for (found, exact) in hessian.largest.iter().zip(&exact) {
        assert!((found.value - exact).abs() <= found.residual + 1e-12);
    }
    assert_eq!(report.train.loss, on(&train).loss().unwrap());
    assert_eq!(report.gradient_norm, on(&train).gradient_norm().unwrap());
    assert_eq!(report.sharpness.random.center, some.loss().unwrap());
    for n in [0, 121] {
        let (model, train, test) = moons();
        let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
        assert!(analyzer.with_samples(n, 0).is_err());
    }
}

#[test]
fn invalid_settings_are_rejected() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    assert!(new().with_eigenvalues(0).full_analysis().is_err());
    for radius in [0.0, -1.0, f64::NAN] {
        assert!(new().with_radius(radius).full_analysis().is_err());
    }
    assert!(new().plane(f64::NAN, 5).is_err());
    assert!(new().trajectory(&Trainer::adam(0.01), 0).is_err());
    assert!(new().mode_connectivity(&model, 1).is_err());
    let other = new().mode_connectivity(&perceptron(&[2, 6, 2], 7), 5);
    let error = other.unwrap_err().to_string();
    assert!(error.contains("same architecture"), "{error}");
    assert!(Report::compare::<&str>(&[]).is_err());
    model.parameters().set_flat(&[1e300; 27]).unwrap();
    assert!(new_error(&model, &train, &test));
}

fn new_error(model: &Mlp, train: &Dataset, test: &Dataset) -> bool {
    let analyzer = Analyzer::new(model, train, test, Loss::CrossEntropy);
    analyzer.and_then(|a| a.full_analysis()).is_err()
}

#[test]
fn reports_are_serialised_and_read_back() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let report = analyzer.with_eigenvalues(2).full_analysis().unwrap();
    let text = toml::to_string(&report).unwrap();
    assert_eq!(toml::from_str::<Report>(&text).unwrap(), report);
    // JSON may round the last bit, which changes errors that are only rounding.
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    let words = |report: &Report| -> Vec<String> {
        let text = report.to_string();
        let is_rounding = |word: &&str| word.parse().is_ok_and(|x: f64| x.abs() < 1e-9);
        let words = text.split_whitespace().filter(|word| !is_rounding(word));
        words.map(String::from).collect()
    };
    assert_eq!(words(&read), words(&report));
    let shown = report.bundle().unwrap();
    assert_eq!(shown.get("text/plain"), Some(report.to_string().as_str()));
    assert!(shown.get("text/html").unwrap().contains("<td style"));
}

#[test]
fn reports_side_by_side() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let random = new().with_eigenvalues(2).full_analysis().unwrap();
    let part = new().with_hessian(false).full_analysis().unwrap();
    let table = Report::compare(&[("random", random.clone()), ("part", part)]).unwrap();
    assert_eq!(table.height(), 2);
    let names = table.get_column_names();
    let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names[..3], ["model", "parameters", "training loss"]);
    for name in ["condition number", "± trace", "± sharpness, worst case"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let at = |name: &str, row: usize| table.column(name).unwrap().get(row).unwrap();
    let top = random.hessian.unwrap().largest[0].value;
    assert_eq!(at("largest eigenvalue", 0), AnyValue::Float64(top));
    assert_eq!(at("largest eigenvalue", 1), AnyValue::Null);
    assert_eq!(at("parameters", 1), AnyValue::UInt64(27));
}

#[test]
fn verdicts_side_by_side() {
    let (model, train, test) = regression();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let whole = analyzer.full_analysis().unwrap();
    let part = analyzer.with_hessian(false).full_analysis().unwrap();
    let table = Report::verdicts(&[("part", part.clone()), ("whole", whole)]).unwrap();
    let text = |quantity, column| cell(&table, quantity, column).to_string().replace('"', "");
    let trace = text("trace", "whole");
    let (value, rounding) = trace.split_once(" ± ").unwrap();
    assert_eq!(value, "11.1");
    assert!(rounding.parse::<f64>().unwrap() < 1e-12, "{trace}");
    assert_eq!(text("trace", "part"), "");
    let condition = text("condition number", "whole");
    assert!(
        condition.starts_with("80.0") && condition.contains(": excellent. "),
        "{condition}"
    );
    assert!(text("adaptive sharpness, worst case", "part").contains(": moderate. "));
    assert!(Report::verdicts::<&str>(&[]).is_err());
    assert!(Report::verdicts(&[("part", part.clone()), ("part", part)]).is_err());
}

#[test]
fn a_training_is_tracked() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let trainer = Trainer::adam(0.05).with_batch_size(30).with_epochs(10);
    let evolution = new().trajectory(&trainer, 15).unwrap();
    let steps: Vec<usize> = evolution.snapshots.iter().map(|m| m.step).collect();
    assert_eq!(steps, [0, 15, 30, 40]);
    let (first, last) = (&evolution.snapshots[0], &evolution.snapshots[3]);
    assert!(last.loss < first.loss && last.sharpness.is_some());
    let report = new().with_eigenvalues(1).full_analysis().unwrap();
    assert_eq!(
        (last.loss, last.test_loss),
        (report.train.loss, Some(report.test.loss))
    );
    assert!((last.gradient_norm - report.gradient_norm).abs() < 1e-15);
}

#[test]
fn paths_between_two_models_are_measured() {
    let (train, test) = (moons().1, moons().2);
    let paths = |design: Design| {
        let models = [1, 2].map(|seed| {
            let model = design.build(&[2], 2, seed, &Device::Cpu).unwrap();
            model.to_dtype(DType::F64).unwrap()
        });
        let analyzer = Analyzer::new(&models[0], &train, &test, Loss::CrossEntropy).unwrap();
        let found = analyzer.mode_connectivity(&models[1], 7).unwrap();
        let itself = analyzer.mode_connectivity(&models[0], 7).unwrap();
        let (_, straight) = &itself.paths[0];
        assert!(
            straight.barrier_height < 1e-12,
            "{}",
            straight.barrier_height
        );
        assert!(straight.verdict().starts_with("connected. "));
        found
            .paths
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    // Plain layers, blocks, and batch normalisation.
    assert_eq!(paths(Architecture::Toy.design()).len(), 4);
    assert_eq!(paths(Architecture::Residual.design()).len(), 4);
    let normalized = Architecture::Shallow.design().normalization(Norm::Batch);
    assert_eq!(paths(normalized).len(), 4);
}

/// An analyzer of a closure gives the report of the model that the closure calls, trains it, and connects it.
#[test]
fn a_closure_is_analysed_like_its_model() {
    let (model, train, test) = moons();
    let loss = Loss::CrossEntropy;
    let by_hand = Analyzer::new(&model, &train, &test, loss.clone()).unwrap();
    let network = model.clone();
    let forward = move |x: &Tensor| network.forward(x);
    let parameters = model.parameters();
    let closure = Analyzer::from_fn(parameters, &train, &test, loss, forward).unwrap();
    let [a, b] = [by_hand.clone(), closure.clone()]
        .map(|analyzer| analyzer.with_eigenvalues(2).full_analysis().unwrap());
    assert!(a.hand_derived && !b.hand_derived);
    let relative = |a: f64, b: f64| (a - b).abs() / a.abs();
    assert!(relative(a.train.loss, b.train.loss) < 1e-12);
    assert!(relative(a.test.loss, b.test.loss) < 1e-12);
    let [top_a, top_b] = [&a, &b].map(|r| r.hessian.as_ref().unwrap().largest[0].value);
    assert!(relative(top_a, top_b) < 1e-9);

    let before = parameters.to_flat().unwrap();
    let trainer = Trainer::adam(0.05).with_batch_size(30).with_epochs(2);
    let by_closure = closure.trajectory(&trainer, 4).unwrap();
    parameters.set_flat(&before).unwrap();
    let by_model = by_hand.trajectory(&trainer, 4).unwrap();
    let [last_a, last_b] = [&by_model, &by_closure].map(|e| e.snapshots[2].loss);
    assert!(relative(last_a, last_b) < 1e-9 && last_a < a.train.loss);

    let found = closure
        .mode_connectivity(&perceptron(&[2, 5, 2], 8), 5)
        .unwrap();
    let names: Vec<&str> = found.paths.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["linear", "trained Bézier"]);
    assert_eq!(found.unmatched, ["the model does not list its layers"]);

    // Any objective: with a penalty of its own, on other data than the test's.
    let objective = by_hand.objective().with_l2(0.25).unwrap();
    let analyzer = Analyzer::from_objective(&objective, &test).unwrap();
    let report = analyzer.with_hessian(false).full_analysis().unwrap();
    let square: f64 = parameters.to_flat().unwrap().iter().map(|t| t * t).sum();
    let plain = by_hand.with_hessian(false).full_analysis().unwrap();
    assert!(relative(report.train.loss, plain.train.loss + 0.25 * square) < 1e-12);
}

#[test]
fn a_plane_goes_through_the_model() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let plane = analyzer.plane(1.0, 5).unwrap();
    assert_eq!(plane.losses.dim(), (5, 5));
    assert!((plane.losses[[2, 2]] - plane.center).abs() < 1e-14);
}
