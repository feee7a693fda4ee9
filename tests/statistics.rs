//! Estimated statistics of batch normalisation along a path. The model's own statistics are restored afterwards.

mod common;

use common::{assert_close, numbers};
use loss_landscape::candle_nn::{BatchNorm, BatchNormConfig, Linear, ModuleT, batch_norm, linear};
use loss_landscape::landscape::{Curve, RunningStatistics, StatisticsSource};
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;
const SAMPLES: usize = 40;

/// Layers 3 → 4 → 4 → 2, with batch normalisation and tanh after the first two.
#[derive(Clone)]
struct Net {
    layers: Vec<(Linear, BatchNorm)>,
    head: Linear,
}

impl Net {
    fn new(map: &VarMap, dtype: DType) -> Self {
        let vb = VarBuilder::from_varmap(map, dtype, &CPU);
        let config = |momentum| BatchNormConfig {
            momentum,
            ..BatchNormConfig::default()
        };
        let layer = |i: usize, width, momentum| {
            let dense = linear(width, 4, vb.pp(format!("dense{i}"))).unwrap();
            (
                dense,
                batch_norm(4, config(momentum), vb.pp(format!("norm{i}"))).unwrap(),
            )
        };
        let net = Self {
            layers: vec![layer(0, 3, 0.1), layer(1, 4, 0.37)],
            head: linear(4, 2, vb.pp("head")).unwrap(),
        };
        let parameters = Parameters::try_from(map).unwrap();
        parameters.set_flat(&numbers(parameters.len(), 1)).unwrap();
        net
    }

    fn forward(&self, x: &Tensor, train: bool) -> candle::Result<Tensor> {
        let mut h = x.clone();
        for (dense, norm) in &self.layers {
            h = norm.forward_t(&dense.forward(&h)?, train)?.tanh()?;
        }
        self.head.forward(&h)
    }
}

fn data(dtype: DType) -> Dataset {
    let x = Tensor::from_vec(numbers(3 * SAMPLES, 5), (SAMPLES, 3), &CPU).unwrap();
    let labels: Vec<u32> = (0..SAMPLES as u32).map(|i| i % 2).collect();
    let data = Dataset::classification(&x, &Tensor::new(labels, &CPU).unwrap()).unwrap();
    data.to_dtype(dtype).unwrap()
}

fn all_bits(map: &VarMap) -> Vec<(String, Vec<u64>)> {
    let vars = map.data().lock().unwrap();
    let bits = |var: &Var| {
        let values = var.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        values
            .to_vec1::<f64>()
            .unwrap()
            .iter()
            .map(|v| v.to_bits())
            .collect()
    };
    let mut all: Vec<_> = vars
        .iter()
        .map(|(name, var)| (name.clone(), bits(var)))
        .collect();
    all.sort();
    all
}

fn statistics(map: &VarMap, net: &Net, dtype: DType, batch_size: usize) -> RunningStatistics {
    let net = net.clone();
    let forward = move |x: &Tensor| net.forward(x, true);
    RunningStatistics::new(map, &data(dtype), batch_size, forward).unwrap()
}

/// Mean and unbiased variance of each column.
fn moments(h: &Tensor) -> (Vec<f64>, Vec<f64>) {
    let rows = h.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let n = rows.len() as f64;
    let columns = (0..rows[0].len()).map(|j| {
        let mean = rows.iter().map(|r| r[j]).sum::<f64>() / n;
        let squares = rows.iter().map(|r| (r[j] - mean).powi(2)).sum::<f64>();
        (mean, squares / (n - 1.0))
    });
    columns.unzip()
}

#[test]
fn one_batch_gives_the_mean_and_variance_of_the_data() {
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 3e-6)] {
        let map = VarMap::new();
        let net = Net::new(&map, dtype);
        let before = all_bits(&map);
        let statistics = statistics(&map, &net, dtype, SAMPLES);
        assert_eq!(
            all_bits(&map),
            before,
            "creating it does not change the model"
        );
        statistics.estimate().unwrap();
        let found = statistics.values().unwrap();
        assert_eq!(found[0].layer, "norm0");
        assert_eq!(found[1].layer, "norm1");

        let x = data(dtype).inputs().clone();
        let h = net.layers[0].0.forward(&x).unwrap();
        let (mean, variance) = moments(&h);
        assert_close(&found[0].mean, &mean, tolerance);
        assert_close(&found[0].variance, &variance, tolerance);
        // In training mode, the first layer normalises with batch statistics.
        let h = net.layers[0].1.forward_train(&h).unwrap().tanh().unwrap();
        let (mean, variance) = moments(&net.layers[1].0.forward(&h).unwrap());
        statistics.estimate().unwrap();
        let found = statistics.values().unwrap();
        assert_close(&found[1].mean, &mean, tolerance);
        assert_close(&found[1].variance, &variance, tolerance);
    }
}

#[test]
fn several_batches_give_weighted_means() {
    let map = VarMap::new();
    let net = Net::new(&map, DType::F64);
    // 40 samples in batches of at most 15: 13, 13 and 14.
    let statistics = statistics(&map, &net, DType::F64, 15);
    statistics.estimate().unwrap();
    let h = net.layers[0].0.forward(data(DType::F64).inputs()).unwrap();
    let (mut mean, mut variance) = (vec![0.0; 4], vec![0.0; 4]);
    for (start, len) in [(0, 13), (13, 13), (26, 14)] {
        let (m, v) = moments(&h.narrow(0, start, len).unwrap());
        for j in 0..4 {
            mean[j] += m[j] * len as f64 / 40.0;
            variance[j] += v[j] * len as f64 / 40.0;
        }
    }
    let found = statistics.values().unwrap();
    assert_close(&found[0].mean, &mean, 1e-13);
    assert_close(&found[0].variance, &variance, 1e-13);
    assert_close(&found[0].mean, &moments(&h).0, 1e-13);
}

#[test]
fn a_profile_estimates_statistics_and_restores_the_model() {
    let map = VarMap::new();
    let net = Net::new(&map, DType::F64);
    let statistics = statistics(&map, &net, DType::F64, SAMPLES);
    let eval = net.clone();
    let objective = Objective::from_fn(&map, &data(DType::F64), Loss::CrossEntropy, move |x| {
        eval.forward(x, false)
    });
    let objective = objective.unwrap().with_l2(0.01).unwrap();
    let n = objective.dim();
    let path = Curve::bezier(&numbers(n, 1), &numbers(n, 8), &numbers(n, 3)).unwrap();
    let before = all_bits(&map);
    let profile = path
        .profile_with_statistics(&objective, 5, &statistics)
        .unwrap();
    assert_eq!(all_bits(&map), before);
    assert_eq!(profile.path_norm, path.length());
    assert_eq!(
        profile.statistics,
        StatisticsSource::Estimated { samples: SAMPLES }
    );
    // The objective has no training pass.
    let message = path.profile(&objective, 5).unwrap_err().to_string();
    assert!(message.contains("in training mode"), "{message}");
    for (i, t) in profile.times.iter().enumerate() {
        let plain = objective.loss_at(&path.at(*t).unwrap()).unwrap();
        objective
            .parameters()
            .set_flat(&path.at(*t).unwrap())
            .unwrap();
        statistics.estimate().unwrap();
        let score = objective.score().unwrap();
        assert!((profile.losses[i] - score.loss).abs() < 1e-14);
        assert_eq!(profile.accuracies.as_ref().map(|a| a[i]), score.accuracy);
        assert!((plain - score.loss).abs() > 1e-3);
    }
    objective.parameters().set_flat(&numbers(n, 1)).unwrap();
    assert!(
        path.profile_with_statistics(&objective, 1, &statistics)
            .is_err()
    );
}

#[test]
fn an_error_restores_the_model() {
    let map = VarMap::new();
    let net = Net::new(&map, DType::F64);
    let eval = net.clone();
    let objective = Objective::from_fn(&map, &data(DType::F64), Loss::CrossEntropy, move |x| {
        eval.forward(x, false)
    });
    let objective = objective.unwrap();
    let failing = net.clone();
    let forward = move |x: &Tensor| {
        let outputs = failing.forward(x, true)?;
        if failing.head.bias().unwrap().to_vec1::<f64>()?[0] > 5.0 {
            candle::bail!("too far");
        }
        Ok(outputs)
    };
    let statistics = RunningStatistics::new(&map, &data(DType::F64), 10, forward).unwrap();
    let n = objective.dim();
    let path = Curve::linear(&numbers(n, 1), &vec![9.0; n]).unwrap();
    let before = all_bits(&map);
    let error = path.profile_with_statistics(&objective, 7, &statistics);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("too far"), "{error}");
    assert_eq!(all_bits(&map), before);
    objective.loss().unwrap();

    objective.parameters().set_flat(&vec![9.0; n]).unwrap();
    let before = all_bits(&map);
    assert!(statistics.estimate().is_err());
    assert_eq!(all_bits(&map), before);
}

#[test]
fn models_without_statistics_and_evaluation_passes_are_refused() {
    let map = VarMap::new();
    let net = Net::new(&map, DType::F64);
    let error = |map: &VarMap, size: usize, train: bool| {
        let net = net.clone();
        let forward = move |x: &Tensor| net.forward(x, train);
        let found = RunningStatistics::new(map, &data(DType::F64), size, forward);
        found.map(|_| ()).unwrap_err().to_string()
    };
    let before = all_bits(&map);
    assert!(error(&map, SAMPLES, false).contains("in training mode"));
    assert_eq!(all_bits(&map), before);
    assert!(error(&map, 1, true).contains("at least 2"));
    let plain = VarMap::new();
    linear(2, 2, VarBuilder::from_varmap(&plain, DType::F64, &CPU)).unwrap();
    assert!(error(&plain, SAMPLES, true).contains("no running_mean"));
    map.data().lock().unwrap().remove("norm1.running_var");
    assert!(error(&map, SAMPLES, true).contains("norm1.running_var"));
}
