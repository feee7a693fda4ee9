//! Cross-entropy with an ignored label, class weights and label smoothing; binary cross-entropy.

mod common;

use common::{assert_close, assert_engines_agree, dot, numbers};
use loss_landscape::layers::Linear;
use loss_landscape::model::LayerKind;
use loss_landscape::objective::CrossEntropy;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;
const IGNORED: u32 = -100i32 as u32;

/// Values of shape (n, length, width), or (n, width) without a length.
fn shape(n: usize, length: Option<usize>, width: usize) -> Vec<usize> {
    match length {
        Some(length) => vec![n, length, width],
        None => vec![n, width],
    }
}

fn tensor(values: Vec<f64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &CPU).unwrap()
}

/// Outputs Wx + b over the last axis.
fn linear(weight: Vec<f64>, bias: Vec<f64>, dtype: DType) -> Layered {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let var = |values, shape: &[usize]| {
        Var::from_tensor(&tensor(values, shape).to_dtype(dtype).unwrap()).unwrap()
    };
    let parameters = Parameters::new([
        ("weight".to_owned(), var(weight, &[outputs, inputs])),
        ("bias".to_owned(), var(bias, &[outputs])),
    ]);
    let layer: LayerKind = Linear::new("weight", "bias").into();
    Layered::new(vec![layer], parameters.unwrap())
}

fn random_linear(inputs: usize, outputs: usize, dtype: DType) -> Layered {
    let weight = numbers(inputs * outputs, 1)
        .iter()
        .map(|w| 2.0 * w)
        .collect();
    linear(weight, numbers(outputs, 2), dtype)
}

/// Labels of k classes, of which every third is ignored.
fn labels(count: usize, k: u32, with_ignored: bool) -> Vec<u32> {
    let label = |i: u32| match with_ignored && i % 3 == 1 {
        true => IGNORED,
        false => (i * i + i / 2) % k,
    };
    (0..count as u32).map(label).collect()
}

fn classification(
    n: usize,
    length: Option<usize>,
    width: usize,
    labels: Vec<u32>,
    dtype: DType,
) -> Dataset {
    let shape = shape(n, length, width);
    let x = tensor(numbers(shape.iter().product(), 3), &shape);
    let labels = Tensor::from_vec(labels, &shape[..shape.len() - 1], &CPU).unwrap();
    Dataset::classification(&x.to_dtype(dtype).unwrap(), &labels).unwrap()
}

fn all_settings(k: usize) -> Vec<CrossEntropy> {
    let plain = CrossEntropy::default().with_ignored_label(IGNORED);
    let weights: Vec<f64> = (0..k).map(|c| [0.5, 2.0, 0.0, 1.5][c % 4]).collect();
    let weighted = plain.clone().with_class_weights(weights);
    vec![
        CrossEntropy::default(),
        plain.clone(),
        plain.with_label_smoothing(0.1),
        weighted.clone(),
        weighted.clone().with_label_smoothing(0.3),
        weighted.with_label_smoothing(1.0),
    ]
}

/// −Σ_c q_c ln p_c of a row, and its weight.
fn expected_row(z: &[f64], label: u32, settings: &CrossEntropy) -> [f64; 2] {
    if Some(label) == settings.ignored_label {
        return [0.0; 2];
    }
    let z = if z.len() == 1 {
        vec![0.0, z[0]]
    } else {
        z.to_vec()
    };
    let k = z.len();
    let w = settings.class_weights.clone().unwrap_or(vec![1.0; k]);
    let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = top + z.iter().map(|z| (z - top).exp()).sum::<f64>().ln();
    let e = settings.label_smoothing;
    let nll = |c: usize| w[c] * (log_sum - z[c]);
    let smooth: f64 = (0..k).map(nll).sum();
    let y = label as usize;
    [(1.0 - e) * nll(y) + e / k as f64 * smooth, w[y]]
}

/// Compares both engines for a linear model, whose Hessian is the Gauss–Newton matrix.
fn assert_linear_engines_agree(objective: &Objective, tolerance: f64) {
    let products = assert_engines_agree(objective, tolerance);
    assert_close(&products[0], &products[1], tolerance);
}

#[test]
fn cross_entropy_is_the_weighted_mean_over_counted_labels() {
    for (n, length, k) in [
        (1, Some(4), 5),
        (3, Some(4), 5),
        (40, None, 3),
        (7, None, 1),
        (9, Some(2), 1),
    ] {
        let classes = k.max(2) as u32;
        let count = n * length.unwrap_or(1);
        for settings in all_settings(classes as usize) {
            let ignores = settings.ignored_label.is_some();
            let labels = labels(count, classes, ignores);
            let data = classification(n, length, 4, labels.clone(), DType::F64);
            let model = random_linear(4, k, DType::F64);
            let objective = Objective::of(&model, &data, settings.clone()).unwrap();
            assert!(objective.derivative_check().gradient < 1e-7);
            let outputs = model.forward(data.inputs()).unwrap();
            let z = outputs.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let mut sums = [0.0; 2];
            let (mut correct, mut counted) = (0, 0);
            for (z, label) in z.chunks(k).zip(&labels) {
                let [loss, weight] = expected_row(z, *label, &settings);
                sums = [sums[0] + loss, sums[1] + weight];
                let largest = (0..k).max_by(|a, b| z[*a].total_cmp(&z[*b])).unwrap() as u32;
                let predicted = if k == 1 {
                    u32::from(z[0] > 0.0)
                } else {
                    largest
                };
                correct += u32::from(predicted == *label);
                counted += u32::from(!ignores || *label != IGNORED);
            }
            let expected = sums[0] / sums[1];
            let score = objective.score().unwrap();
            assert_close(&[score.loss], &[expected], 1e-12);
            assert_close(
                &[score.accuracy.unwrap()],
                &[f64::from(correct) / f64::from(counted)],
                1e-14,
            );
            let mean = Loss::from(settings.clone())
                .mean(&outputs, data.targets())
                .unwrap();
            assert_close(&[mean.to_scalar::<f64>().unwrap()], &[expected], 1e-12);
            assert_linear_engines_agree(&objective, 1e-12);

            let single = data.to_dtype(DType::F32).unwrap();
            let single =
                Objective::of(&random_linear(4, k, DType::F32), &single, settings).unwrap();
            assert_linear_engines_agree(&single, 1e-4);
            assert_close(
                &single.gradient().unwrap(),
                &objective.gradient().unwrap(),
                1e-5,
            );
        }
    }
}

/// The values of PyTorch's formula for three rows, evaluated by hand: p = ½, ⅓ and ⅔ at the labels.
#[test]
fn a_weighted_mean_of_known_probabilities() {
    let z = [[0.0, 0.0], [0.0, 2f64.ln()], [0.0, 2f64.ln()]];
    let outputs = Tensor::new(&z, &CPU).unwrap();
    let targets = Targets::Labels(Tensor::new(&[0u32, 0, 1], &CPU).unwrap());
    let mean = |settings: CrossEntropy| {
        let mean = Loss::from(settings).mean(&outputs, &targets).unwrap();
        mean.to_scalar::<f64>().unwrap()
    };
    let weighted = CrossEntropy::default().with_class_weights(vec![1.0, 3.0]);
    let logs = [2f64.ln(), 3f64.ln(), 1.5f64.ln()];
    let expected = (logs[0] + logs[1] + 3.0 * logs[2]) / 5.0;
    assert_close(&[mean(weighted.clone())], &[expected], 1e-14);
    let all = [
        4.0 * logs[0],
        logs[1] + 3.0 * logs[2],
        logs[1] + 3.0 * logs[2],
    ];
    let smoothed = 0.8 * expected + 0.1 * all.iter().sum::<f64>() / 5.0;
    assert_close(
        &[mean(weighted.with_label_smoothing(0.2))],
        &[smoothed],
        1e-14,
    );
    let without = CrossEntropy::default().with_ignored_label(1);
    assert_close(&[mean(without)], &[(logs[0] + logs[1]) / 2.0], 1e-14);
}

/// Settings that change nothing give the same numbers.
#[test]
fn default_settings_are_plain_cross_entropy() {
    let data = classification(11, Some(3), 4, labels(33, 5, false), DType::F64);
    let model = random_linear(4, 5, DType::F64);
    let plain = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let settings = CrossEntropy::default().with_class_weights(vec![2.0; 5]);
    let same = Objective::of(&model, &data, CrossEntropy::default()).unwrap();
    assert_eq!(same.loss().unwrap(), plain.loss().unwrap());
    assert_eq!(same.gradient().unwrap(), plain.gradient().unwrap());
    let scaled = Objective::of(&model, &data, settings).unwrap();
    assert_close(
        &scaled.gradient().unwrap(),
        &plain.gradient().unwrap(),
        1e-14,
    );
}

/// Only the 40th sample has a label that counts.
fn mostly_ignored(dtype: DType) -> Dataset {
    let mut labels = vec![IGNORED; 50 * 3];
    labels[40 * 3 + 1] = 2;
    labels[45 * 3] = 1;
    classification(50, Some(3), 4, labels, dtype)
}

#[test]
fn batches_add_up_and_may_hold_no_counted_label() {
    let settings = CrossEntropy::default().with_ignored_label(IGNORED);
    let data = mostly_ignored(DType::F64);
    let model = random_linear(4, 5, DType::F64);
    let whole = Objective::of(&model, &data, settings.clone()).unwrap();
    assert!(whole.loss().unwrap() > 0.1);
    assert_linear_engines_agree(&whole, 1e-12);
    // The same as the two samples alone.
    let two = whole.with_data(&data.select(&[40, 45]).unwrap()).unwrap();
    assert_close(&[whole.loss().unwrap()], &[two.loss().unwrap()], 1e-14);
    assert_close(&whole.gradient().unwrap(), &two.gradient().unwrap(), 1e-13);
    let v = numbers(whole.dim(), 4);
    assert_close(&whole.hvp(&v).unwrap(), &two.hvp(&v).unwrap(), 1e-13);
    let in_parts = whole.clone().by_autograd().with_batch_size(7).unwrap();
    assert_close(
        &in_parts.gradient().unwrap(),
        &whole.gradient().unwrap(),
        1e-13,
    );

    // A step of SGD for each batch, with a learning rate that does not move θ.
    for objective in [whole.clone(), whole.clone().by_autograd()] {
        let trainer = Trainer::sgd(1e-12).with_batch_size(6).with_epochs(1);
        let history = trainer.fit_objective(&objective, &objective).unwrap();
        assert_close(
            &[history.epochs[0].train_loss],
            &[whole.loss().unwrap()],
            1e-9,
        );
        assert_eq!(
            history.epochs[0].train_accuracy,
            whole.score().unwrap().accuracy
        );
    }
}

#[test]
fn labels_of_which_none_counts_are_refused() {
    let settings = CrossEntropy::default().with_ignored_label(IGNORED);
    let all = classification(2, Some(3), 4, vec![IGNORED; 6], DType::F64);
    let model = random_linear(4, 5, DType::F64);
    let message = |result: Result<Objective, Error>| result.unwrap_err().to_string();
    let error = message(Objective::of(&model, &all, settings.clone()));
    assert!(
        error.contains("each of the 6 labels is the ignored one"),
        "{error}"
    );
    let objective = Objective::of(&model, &mostly_ignored(DType::F64), settings.clone()).unwrap();
    assert!(message(objective.with_data(&all)).contains("no label counts"));
    let zeros = CrossEntropy::default().with_class_weights(vec![0.0; 5]);
    let data = classification(2, Some(3), 4, vec![1; 6], DType::F64);
    assert!(message(Objective::of(&model, &data, zeros)).contains("weight 0"));
    let outputs = model.forward(all.inputs()).unwrap();
    assert!(Loss::from(settings).mean(&outputs, all.targets()).is_err());
}

#[test]
fn invalid_settings_and_targets_are_refused() {
    let data = classification(3, None, 4, vec![0, 1, 2], DType::F64);
    let model = random_linear(4, 3, DType::F64);
    let error =
        |loss: Loss, data: &Dataset| Objective::of(&model, data, loss).unwrap_err().to_string();
    let settings = CrossEntropy::default();
    for (settings, words) in [
        (
            settings.clone().with_label_smoothing(-0.1),
            "smoothing of -0.1",
        ),
        (
            settings.clone().with_label_smoothing(f64::NAN),
            "smoothing of NaN",
        ),
        (
            settings.clone().with_class_weights(vec![1.0; 4]),
            "4 class weights for 3 classes",
        ),
        (
            settings.clone().with_class_weights(vec![1.0, -1.0, 1.0]),
            "class 1 is -1",
        ),
        (
            settings.clone().with_class_weights(vec![f64::INFINITY; 3]),
            "class 0 is inf",
        ),
    ] {
        let message = error(settings.into(), &data);
        assert!(message.contains(words), "{message}");
    }
    let late = classification(3, None, 4, vec![0, 1, 7], DType::F64);
    assert!(error(settings.clone().into(), &late).contains("label 7 of sample 2"));
    assert!(error(settings.clone().with_ignored_label(6).into(), &late).contains("label 7"));
    assert!(Objective::of(&model, &late, settings.clone().with_ignored_label(7)).is_ok());
    assert!(error(Loss::BinaryCrossEntropy, &data).contains("values from 0 to 1"));

    let values = |last: f64| {
        let values = Tensor::new(&[[0.0, 0.5, 1.0], [1.0, last, 0.0]], &CPU).unwrap();
        Dataset::regression(&data.first(2).unwrap().inputs().clone(), &values).unwrap()
    };
    assert!(error(settings.into(), &values(1.0)).contains("cross-entropy needs labels"));
    for wrong in [-0.1, 1.1] {
        let message = error(Loss::BinaryCrossEntropy, &values(wrong));
        assert!(
            message.contains(&format!("value {wrong} of sample 1")),
            "{message}"
        );
    }
    let objective = Objective::of(&model, &values(0.2), Loss::BinaryCrossEntropy).unwrap();
    assert!(objective.with_data(&values(2.0)).is_err());
}

#[test]
fn settings_can_be_serialised() {
    let losses = [
        Loss::CrossEntropy,
        Loss::BinaryCrossEntropy,
        Loss::Mse,
        CrossEntropy::default()
            .with_ignored_label(3)
            .with_class_weights(vec![1.0, 0.5])
            .with_label_smoothing(0.1)
            .into(),
    ];
    for loss in losses {
        let json = serde_json::to_string(&loss).unwrap();
        assert_eq!(serde_json::from_str::<Loss>(&json).unwrap(), loss);
    }
    assert_eq!(
        serde_json::to_string(&Loss::CrossEntropy).unwrap(),
        "\"CrossEntropy\""
    );
    let part: CrossEntropy = serde_json::from_str("{\"label_smoothing\": 0.1}").unwrap();
    assert_eq!(part, CrossEntropy::default().with_label_smoothing(0.1));
}

/// Outputs equal to the inputs: the gradient in the bias is the mean derivative in z.
fn identity(k: usize, dtype: DType) -> Layered {
    let weight = (0..k * k).map(|i| f64::from(i % (k + 1) == 0)).collect();
    linear(weight, vec![0.0; k], dtype)
}

fn bias_part(objective: &Objective, vector: &[f64]) -> Vec<f64> {
    vector[objective.parameters().range("bias").unwrap()].to_vec()
}

/// Along a change of the bias, which moves all outputs alike.
fn along_bias(objective: &Objective, change: &[f64]) -> Vec<f64> {
    let mut v = vec![0.0; objective.dim()];
    v[objective.parameters().range("bias").unwrap()].copy_from_slice(change);
    v
}

/// Large outputs on either side: the loss is linear in them, and curvature is exactly 0.
#[test]
fn extreme_outputs_have_finite_derivatives() {
    for dtype in [DType::F32, DType::F64] {
        let settings = CrossEntropy::default()
            .with_ignored_label(9)
            .with_class_weights(vec![1.0, 2.0, 4.0])
            .with_label_smoothing(0.25);
        let logits = [
            [1e4, -1e4, 0.0],
            [1e4, -1e4, 0.0],
            [-1e4, 1e4, 1e4],
            [1e4, 0.0, 0.0],
        ];
        let x = Tensor::new(&logits, &CPU).unwrap().to_dtype(dtype).unwrap();
        let labels = Tensor::new(&[0u32, 1, 1, 9], &CPU).unwrap();
        let data = Dataset::classification(&x, &labels).unwrap();
        let objective = Objective::of(&identity(3, dtype), &data, settings.clone()).unwrap();
        let expected: Vec<[f64; 2]> = logits
            .iter()
            .zip([0, 1, 1, 9])
            .map(|(z, label)| expected_row(z, label, &settings))
            .collect();
        let [losses, weights] = [0, 1].map(|i| expected.iter().map(|row| row[i]).sum::<f64>());
        // Q p − q for each row, with p = (1, 0, 0) twice and then (0, ½, ½).
        let b = 0.25 / 3.0;
        let q = [
            [0.75 + b, 2.0 * b, 4.0 * b],
            [b, 1.5 + 2.0 * b, 4.0 * b],
            [b, 1.5 + 2.0 * b, 4.0 * b],
        ];
        let p = [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]];
        let mut gradient = [0.0; 3];
        for (q, p) in q.iter().zip(&p) {
            let mass: f64 = q.iter().sum();
            for ((g, q), p) in gradient.iter_mut().zip(q).zip(p) {
                *g += (mass * p - q) / weights;
            }
        }
        let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-13 };
        for objective in [objective.clone(), objective.by_autograd()] {
            assert_close(&[objective.loss().unwrap()], &[losses / weights], tolerance);
            let found = bias_part(&objective, &objective.gradient().unwrap());
            assert_close(&found, &gradient, tolerance);
            // Only the third row has curvature: Q (diag p − ppᵀ) = Q/4 [[1, −1], [−1, 1]].
            let v = along_bias(&objective, &[3.0, 1.0, 0.0]);
            let product = bias_part(&objective, &objective.hvp(&v).unwrap());
            let size = q[2].iter().sum::<f64>() / 4.0 / weights;
            assert_close(&product, &[0.0, size, -size], tolerance);
        }
    }
}

/// A confident classifier: losses far below the rounding of 1.
#[test]
fn tiny_losses_keep_their_digits() {
    for dtype in [DType::F32, DType::F64] {
        for m in [5f64, 20.0, 30.0] {
            let x = Tensor::new(&[[m, 0.0], [m, 0.0]], &CPU)
                .unwrap()
                .to_dtype(dtype)
                .unwrap();
            let labels = Tensor::new(&[0u32, 9], &CPU).unwrap();
            let data = Dataset::classification(&x, &labels).unwrap();
            let settings = CrossEntropy::default()
                .with_ignored_label(9)
                .with_class_weights(vec![3.0, 1.0]);
            let of_labels = Objective::of(&identity(2, dtype), &data, settings).unwrap();

            let values = Tensor::new(&[[1.0, 0.0]], &CPU).unwrap();
            let x = Tensor::new(&[[m, -m]], &CPU)
                .unwrap()
                .to_dtype(dtype)
                .unwrap();
            let data = Dataset::regression(&x, &values).unwrap();
            let of_values =
                Objective::of(&identity(2, dtype), &data, Loss::BinaryCrossEntropy).unwrap();

            let e = (-m).exp();
            let (wrong, curvature) = (e / (1.0 + e), e / (1.0 + e).powi(2));
            let tolerance = if dtype == DType::F32 { 1e-5 } else { 1e-12 };
            let half = wrong / 2.0;
            for (objective, gradient, change) in [
                (of_labels, [-wrong, wrong], [curvature, -curvature]),
                (of_values, [-half, half], [curvature / 2.0, 0.0]),
            ] {
                for objective in [objective.clone(), objective.by_autograd()] {
                    assert_close(&[objective.loss().unwrap()], &[e.ln_1p()], tolerance);
                    let found = bias_part(&objective, &objective.gradient().unwrap());
                    assert_close(&found, &gradient, tolerance);
                    let v = along_bias(&objective, &[1.0, 0.0]);
                    let product =
                        bias_part(&objective, &objective.gauss_newton().apply(&v).unwrap());
                    assert_close(&product, &change, tolerance);
                }
            }
        }
    }
}

fn values_of(n: usize, length: Option<usize>, inputs: usize, k: usize) -> (Dataset, Vec<f64>) {
    let x = shape(n, length, inputs);
    let y = shape(n, length, k);
    let count: usize = y.iter().product();
    let values: Vec<f64> = (0..count)
        .map(|i| [0.0, 1.0, 0.25, 1.0, 0.9][i % 5])
        .collect();
    let data = Dataset::regression(
        &tensor(numbers(x.iter().product(), 5), &x),
        &tensor(values.clone(), &y),
    );
    (data.unwrap(), values)
}

#[test]
fn binary_cross_entropy_is_the_mean_over_outputs() {
    for (n, length, k) in [(1, None, 1), (30, None, 3), (4, Some(5), 2)] {
        let (data, values) = values_of(n, length, 4, k);
        let model = random_linear(4, k, DType::F64);
        let objective = Objective::of(&model, &data, Loss::BinaryCrossEntropy).unwrap();
        let z = model.forward(data.inputs()).unwrap().flatten_all().unwrap();
        let z = z.to_vec1::<f64>().unwrap();
        let loss = |(z, y): (&f64, &f64)| {
            let p = 1.0 / (1.0 + (-z).exp());
            -(y * p.ln() + (1.0 - y) * (1.0 - p).ln())
        };
        let mean = z.iter().zip(&values).map(loss).sum::<f64>() / z.len() as f64;
        let score = objective.score().unwrap();
        assert_close(&[score.loss], &[mean], 1e-13);
        assert_eq!(score.accuracy, None);
        assert_linear_engines_agree(&objective, 1e-12);
        let single = data.to_dtype(DType::F32).unwrap();
        let single = Objective::of(
            &random_linear(4, k, DType::F32),
            &single,
            Loss::BinaryCrossEntropy,
        );
        assert_linear_engines_agree(&single.unwrap(), 1e-4);
    }
}

/// With one output and values 0 and 1 it is cross-entropy of one output.
#[test]
fn binary_cross_entropy_of_one_output_is_the_logistic_loss() {
    let data = classification(20, None, 4, labels(20, 2, false), DType::F64);
    let labels = data
        .labels()
        .unwrap()
        .iter()
        .map(|l| f64::from(*l))
        .collect();
    let values = Dataset::regression(data.inputs(), &tensor(labels, &[20])).unwrap();
    let model = random_linear(4, 1, DType::F64);
    let logistic = Objective::of(&model, &data, Loss::CrossEntropy).unwrap();
    let binary = Objective::of(&model, &values, Loss::BinaryCrossEntropy).unwrap();
    assert_close(
        &[binary.loss().unwrap()],
        &[logistic.loss().unwrap()],
        1e-14,
    );
    assert_close(
        &binary.gradient().unwrap(),
        &logistic.gradient().unwrap(),
        1e-14,
    );
    let v = numbers(binary.dim(), 1);
    assert_close(&binary.hvp(&v).unwrap(), &logistic.hvp(&v).unwrap(), 1e-14);
    for o in [binary.clone(), binary.by_autograd()] {
        let [fisher, expected] = [&o, &logistic].map(|o| o.fisher().apply(&v).unwrap());
        assert_close(&fisher, &expected, 1e-14);
    }
}

#[test]
fn extreme_outputs_of_binary_cross_entropy() {
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::new(&[[1e4, 1e4, -1e4, 0.0]], &CPU)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let values = Tensor::new(&[[1.0, 0.25, 1.0, 0.5]], &CPU).unwrap();
        let data = Dataset::regression(&x, &values).unwrap();
        let objective =
            Objective::of(&identity(4, dtype), &data, Loss::BinaryCrossEntropy).unwrap();
        for objective in [objective.clone(), objective.by_autograd()] {
            let expected = (0.75e4 + 1e4 + 2f64.ln()) / 4.0;
            assert_close(&[objective.loss().unwrap()], &[expected], 1e-6);
            let gradient = bias_part(&objective, &objective.gradient().unwrap());
            assert_close(&gradient, &[0.0, 0.1875, -0.25, 0.0], 1e-7);
            let v = along_bias(&objective, &[1.0; 4]);
            let product = bias_part(&objective, &objective.hvp(&v).unwrap());
            assert_close(&product, &[0.0, 0.0, 0.0, 0.0625], 1e-7);
        }
    }
}

/// The samples of the gradients' second moment are sequences: a sample's gradient is a sum over its tokens.
#[test]
fn a_sample_is_a_sequence() {
    let (n, length, k) = (6, 3, 5);
    let settings = CrossEntropy::default()
        .with_ignored_label(IGNORED)
        .with_class_weights(vec![0.5, 2.0, 1.0, 1.5, 0.7])
        .with_label_smoothing(0.3);
    let data = classification(
        n,
        Some(length),
        4,
        labels(n * length, k as u32, true),
        DType::F64,
    );
    let objective =
        Objective::of(&random_linear(4, k, DType::F64), &data, settings.clone()).unwrap();
    let [weight, bias] = ["weight", "bias"].map(|name| objective.parameters().range(name).unwrap());
    let mut gradients = vec![vec![0.0; objective.dim()]; n];
    objective
        .visit_layers(|tile| {
            let rows = tile.inputs.chunks(4).zip(tile.output_gradients.chunks(k));
            for (row, (x, dz)) in rows.enumerate() {
                let gradient = &mut gradients[tile.start + row / length];
                for (i, dz) in dz.iter().enumerate() {
                    gradient[bias.start + i] += dz;
                    for (j, x) in x.iter().enumerate() {
                        gradient[weight.start + 4 * i + j] += dz * x;
                    }
                }
            }
        })
        .unwrap();
    let v = numbers(objective.dim(), 7);
    let mut expected = vec![0.0; objective.dim()];
    for gradient in &gradients {
        let along = dot(gradient, &v) / n as f64;
        expected
            .iter_mut()
            .zip(gradient)
            .for_each(|(e, g)| *e += along * g);
    }
    let second_moment = objective.empirical_fisher();
    assert_close(&second_moment.apply(&v).unwrap(), &expected, 1e-13);
    // The objective of a sequence alone is the mean over its own labels.
    for (i, gradient) in gradients.iter().enumerate() {
        let alone = objective.with_data(&data.select(&[i]).unwrap());
        let alone = alone.unwrap().gradient().unwrap();
        let ratio = dot(gradient, &alone) / dot(&alone, &alone);
        assert!((ratio - 1.0).abs() > 1e-3, "{ratio}");
        let scaled: Vec<f64> = alone.iter().map(|g| ratio * g).collect();
        assert_close(gradient, &scaled, 1e-12);
    }
}
