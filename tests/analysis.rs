//! Whole reports against models of which every number is known.

mod common;

use common::{assert_close, bits, numbers};
use loss_landscape::analysis::Subsample;
use loss_landscape::polars::prelude::AnyValue;
use loss_landscape::prelude::*;
use loss_landscape::serde_json;

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
/// 2/n XᵀX with a column of ones is diagonal, for the features are orthogonal.
const EIGENVALUES: [f64; 4] = [2.0, 8.0, 1.0, 0.1];

/// Linear regression on eight samples of three features, and the same with targets that are off by ½.
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
    let off = y.iter().map(|y| y + 0.5).collect();
    let model = perceptron(&[3, 1], 0);
    model.parameters().set_flat(&MINIMUM).unwrap();
    (model, values(x.clone(), y), values(x, off))
}

/// f = Σ vⱼ tanh(wⱼx + cⱼ) + b at 0, where f is 0 and so are the targets' mean and the gradient. With r = mean xy the
/// Hessian has the eigenvalues ±2r for each of the seven units, 2 for b, and 0 for the cⱼ.
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
fn linear_regression_is_known_in_full() {
    let (model, train, test) = regression();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let before = bits(model.parameters());
    let report = analyzer.full_analysis().unwrap();
    assert_eq!(bits(model.parameters()), before);
    assert_eq!(report, analyzer.full_analysis().unwrap());

    assert_eq!((report.parameters, report.train_samples), (4, 8));
    assert!(report.hand_derived && report.subsample == Subsample::All);
    assert!(report.train.loss < 1e-30 && report.gradient_norm < 1e-14);
    let known = [report.test.loss, report.generalization_gap];
    assert_close(&known, &[0.25, 0.25], 1e-14);

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
    // At a minimum of a quadratic the worst case is ρ²λ₁/2, and the adaptive one of the matrix λᵢθᵢ².
    let stretched = EIGENVALUES.iter().zip(MINIMUM).map(|(v, m)| v * m * m);
    let stretched = stretched.fold(0.0, f64::max);
    let found = [report.sharpness.worst, report.adaptive.worst];
    assert_close(&found[..1], &[0.0025 * 8.0 / 2.0], 1e-6);
    assert_close(&found[1..], &[0.25 * stretched / 2.0], 1e-6);
    assert!(report.sharpness.random.maximum <= report.sharpness.worst);
    let reach = report.flatness.unwrap().value;
    assert!(reach > (0.2f64 / 8.0).sqrt() && reach < (0.2f64 / 0.1).sqrt());

    let table = report.table().unwrap();
    assert_eq!(verdict(&table, "condition number"), "excellent");
    assert_eq!(verdict(&table, "negative eigenvalues"), "near a minimum");
    assert!(verdict(&table, "sharpness, worst case").starts_with("flat, but changes"));
    assert_eq!(
        verdict(&table, "adaptive sharpness, worst case"),
        "moderate"
    );
    let text = report.to_string();
    assert!(
        text.contains("all of them") && text.contains("80.000"),
        "{text}"
    );
}

/// The same eigenvalues by only two from each end.
#[test]
fn fewer_eigenvalues_tell_the_same_where_they_suffice() {
    let (model, train, test) = regression();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::Mse).unwrap();
    let one = analyzer.hessian_metrics(1).unwrap();
    assert_eq!((one.largest.len(), one.smallest.len()), (1, 1));
    assert_close(&[one.condition_number.unwrap().value], &[80.0], 1e-9);
    assert!(one.negative.complete && one.negative.count.high == 0.0);
    let rank = one.effective_rank.unwrap();
    let exact = 11.1 * 11.1 / (64.0 + 4.0 + 1.0 + 0.01);
    // A probe of random signs weighs all eigenvectors of a diagonal matrix alike.
    assert!(
        (rank.value - exact).abs() < 1e-9 + 4.0 * rank.standard_error,
        "{rank}"
    );
    assert!((rank.standard_error < 0.5), "{rank}");
}

#[test]
fn a_saddle_is_counted_and_called_so() {
    let (model, data) = saddle();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    model.parameters().set_flat(&[0.0; 22]).unwrap();
    let bend = 2.0 * MEAN_SQUARE;

    let all = analyzer.hessian_metrics(11).unwrap();
    let mut expected = vec![bend; 7];
    expected.extend([2.0, 0.0, 0.0, 0.0]);
    let largest: Vec<f64> = all.largest.iter().map(|e| e.value).collect();
    assert_close(&largest, &expected, 1e-13);
    assert_close(&[all.smallest[6].value], &[-bend], 1e-13);
    // Seven, and then zeros: eight of the smallest tell all, seven do not.
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

    let report = analyzer.eigenvalues(8).full_analysis().unwrap();
    assert!(report.gradient_norm < 1e-14);
    let table = report.table().unwrap();
    let words = verdict(&table, "negative eigenvalues");
    assert_eq!(words, "likely a saddle point");
    assert_eq!(
        verdict(&table, "condition number"),
        "not meaningful: λ_min is negative"
    );
    let table = analyzer_table(3);
    let words = verdict(&table, "negative eigenvalues");
    assert!(words.contains("at least 3, by the density"), "{words}");
}

fn analyzer_table(k: usize) -> DataFrame {
    let (model, data) = saddle();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::Mse).unwrap();
    model.parameters().set_flat(&[0.0; 22]).unwrap();
    analyzer.hessian_metrics(k).unwrap().table().unwrap()
}

/// More parameters than samples: the least eigenvalue is 0, and κ no number.
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
        assert_eq!(words, "near a minimum");
    }
}

/// In f32 a rise of 10⁻¹² is lost in the loss.
#[test]
fn numbers_below_rounding_are_not_called_flat() {
    let data = two_moons(60, 0.1, 3, &Device::Cpu).unwrap();
    let model = perceptron(&[2, 4, 2], 1).to_dtype(DType::F32).unwrap();
    let data = data.to_dtype(DType::F32).unwrap();
    let analyzer = Analyzer::new(&model, &data, &data, Loss::CrossEntropy).unwrap();
    let report = analyzer
        .radius(1e-12)
        .without_hessian()
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
fn a_subsample_is_what_the_report_says() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let analyzer = analyzer.samples(40, 5).unwrap().eigenvalues(3);
    let report = analyzer.full_analysis().unwrap();
    let samples = 40;
    assert_eq!(report.subsample, Subsample::Balanced { samples, seed: 5 });
    let text = report.to_string();
    assert!(text.contains("curvature on 40, balanced, seed 5"), "{text}");
    let on = |data: &Dataset| Objective::of(&model, data, Loss::CrossEntropy).unwrap();
    let some = on(&train.balanced(40, 5).unwrap());
    let exact = some.hessian().dense().unwrap().eigen().unwrap().values();
    let hessian = report.hessian.unwrap();
    for (found, exact) in hessian.largest.iter().zip(&exact) {
        assert!((found.value - exact).abs() <= found.residual + 1e-12);
    }
    assert_eq!(report.train.loss, on(&train).loss().unwrap());
    assert_eq!(report.sharpness.random.center, some.loss().unwrap());
    // 119 cannot be balanced.
    let most = Analyzer::new(
        &model,
        &train.first(119).unwrap(),
        &test,
        Loss::CrossEntropy,
    );
    let most = most.unwrap().samples(119, 0).unwrap();
    assert_eq!(most.objective().data().len(), 119);
    for n in [0, 121] {
        let (model, train, test) = moons();
        let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
        assert!(analyzer.samples(n, 0).is_err());
    }
}

#[test]
fn senseless_settings_are_refused() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    assert!(new().eigenvalues(0).full_analysis().is_err());
    for radius in [0.0, -1.0, f64::NAN] {
        assert!(new().radius(radius).full_analysis().is_err());
    }
    assert!(new().plane(f64::NAN, 5).is_err());
    assert!(new().trajectory(&Trainer::adam(0.01), 0).is_err());
    assert!(new().mode_connectivity(&model, 1).is_err());
    let other = new().mode_connectivity(&perceptron(&[2, 6, 2], 7), 5);
    let error = other.unwrap_err().to_string();
    assert!(error.contains("one architecture"), "{error}");
    assert!(Report::compare::<&str>(&[]).is_err());
    model.parameters().set_flat(&[1e300; 27]).unwrap();
    assert!(new_error(&model, &train, &test));
}

fn new_error(model: &Mlp, train: &Dataset, test: &Dataset) -> bool {
    let analyzer = Analyzer::new(model, train, test, Loss::CrossEntropy);
    analyzer.and_then(|a| a.full_analysis()).is_err()
}

#[test]
fn reports_outlive_their_files() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let report = analyzer.eigenvalues(2).full_analysis().unwrap();
    let text = toml::to_string(&report).unwrap();
    assert_eq!(toml::from_str::<Report>(&text).unwrap(), report);
    // JSON may round the last bit.
    let text = serde_json::to_string(&report).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(read.to_string(), report.to_string());
    let shown = report.bundle().unwrap();
    assert_eq!(shown.get("text/plain"), Some(report.to_string().as_str()));
    assert!(shown.get("text/html").unwrap().contains("<td style"));
}

#[test]
fn reports_side_by_side() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let random = new().eigenvalues(2).full_analysis().unwrap();
    let part = new().without_hessian().full_analysis().unwrap();
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
    let part = analyzer.without_hessian().full_analysis().unwrap();
    let table = Report::verdicts(&[("part", part.clone()), ("whole", whole)]).unwrap();
    let text = |quantity, column| cell(&table, quantity, column).to_string().replace('"', "");
    let trace = text("trace", "whole");
    let (value, rounding) = trace.split_once(" ± ").unwrap();
    assert_eq!(value, "11.1");
    assert!(rounding.parse::<f64>().unwrap() < 1e-12, "{trace}");
    assert_eq!(text("trace", "part"), "");
    let condition = text("condition number", "whole");
    assert!(
        condition.starts_with("80.0") && condition.ends_with(": excellent"),
        "{condition}"
    );
    assert!(text("adaptive sharpness, worst case", "part").ends_with(": moderate"));
    assert!(Report::verdicts::<&str>(&[]).is_err());
    assert!(Report::verdicts(&[("part", part.clone()), ("part", part)]).is_err());
}

#[test]
fn a_training_is_tracked() {
    let (model, train, test) = moons();
    let new = || Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let trainer = Trainer::adam(0.05).batch_size(30).epochs(10);
    let evolution = new().trajectory(&trainer, 15).unwrap();
    let steps: Vec<usize> = evolution.moments.iter().map(|m| m.step).collect();
    assert_eq!(steps, [0, 15, 30, 40]);
    let (first, last) = (&evolution.moments[0], &evolution.moments[3]);
    assert!(last.loss < first.loss && last.sharpness.is_some());
    let report = new().eigenvalues(1).full_analysis().unwrap();
    assert_eq!(
        (last.loss, last.test_loss),
        (report.train.loss, Some(report.test.loss))
    );
    assert!((last.gradient_norm - report.gradient_norm).abs() < 1e-15);
}

#[test]
fn whatever_joins_two_models_is_found() {
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
        assert_eq!(straight.verdict(), "connected");
        found
            .paths
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
    };
    // Layers in a row, blocks, and batch normalisation.
    assert_eq!(paths(Architecture::Toy.design()).len(), 4);
    let blocks = paths(Architecture::Residual.design());
    assert_eq!(blocks, ["linear", "trained Bézier"]);
    let normalized = Architecture::Shallow.design().normalization(Norm::Batch);
    assert_eq!(paths(normalized), ["linear"]);
}

#[test]
fn a_plane_goes_through_the_model() {
    let (model, train, test) = moons();
    let analyzer = Analyzer::new(&model, &train, &test, Loss::CrossEntropy).unwrap();
    let plane = analyzer.plane(1.0, 5).unwrap();
    assert_eq!(plane.losses.dim(), (5, 5));
    assert!((plane.losses[[2, 2]] - plane.center).abs() < 1e-14);
}
