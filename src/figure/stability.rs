//! Sharpness and threshold during a training.

use super::{Chart, Figure};
use crate::landscape::{StabilityMeasure, StabilityPoint, StabilityReport};

/// Each measured sharpness with its errors over the training steps, and its threshold as a dashed line of the same colour. Omits values
/// that are not finite.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let trainer = Trainer::sgd(0.5).with_epochs(21);
/// let report = Stability::default().train(&trainer, &objective)?;
/// let json = figure::stability(&report).json();
/// assert_eq!((&json["data"][0]["name"], &json["data"][0]["x"][1]), (&"sharpness".into(), &20.0.into()));
/// assert_eq!(json["data"][1]["y"][0], 4.0); // 2/η
/// # Ok::<(), Error>(())
/// ```
pub fn stability(report: &StabilityReport) -> Figure {
    let mut measures: Vec<StabilityMeasure> = Vec::new();
    for point in &report.points {
        if !measures.contains(&point.measure) {
            measures.push(point.measure);
        }
    }
    let title = "Sharpness and the threshold of stability";
    let mut chart = Chart::new(title, "training step", "sharpness");
    for measure in measures {
        let points = || report.points.iter().filter(move |p| p.measure == measure);
        let step = |point: &StabilityPoint| point.step as f64;
        let name = measure.to_string();
        chart = chart
            .estimates(&name, points().map(|p| (step(p), p.value, p.error)))
            .expected(
                &format!("threshold of {name}"),
                points().map(|p| (step(p), p.threshold)),
            );
    }
    chart.figure()
}
