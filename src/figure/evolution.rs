//! Loss and curvature during training.

use super::Figure;
use super::palette::{BLUE, PURPLE, VERMILION};
use super::panels::{Panel, PanelLine, panels};
use crate::landscape::{CurvatureSnapshot, Evolution};

/// A value and its error, if measured.
type Value = fn(&CurvatureSnapshot) -> Option<(f64, f64)>;

/// Panels over the training steps: loss and test loss, norm of the gradient, λ_max and λ_min of the Hessian with their errors,
/// the largest rise of the loss within a radius, the trace of the Hessian with its standard error, and λ_max/|λ_min|. Omits
/// panels that were not measured. Losses, norms, rises and ratios have logarithmic axes, which omit values ≤ 0.
///
/// ```
/// use loss_landscape::prelude::*;
///
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model = Mlp::new(&[2, 3, 1], Activation::Tanh, 0, &Device::Cpu)?.to_dtype(DType::F64)?;
/// let mut trajectory = Trajectory::every(3)?;
/// Trainer::adam(0.01).with_batch_size(20).with_epochs(2).fit_recorded(
///     &model,
///     &data,
///     &data,
///     &mut trajectory,
/// )?;
/// let objective = Objective::of(&model, &data, Loss::CrossEntropy)?;
/// let settings = EvolutionSettings::default().with_trace(None).with_sharpness(None);
/// let figure = figure::evolution(&settings.run(&objective, &trajectory)?);
/// assert_eq!(figure.json()["data"][0]["x"][2], 6.0); // the last step
/// # Ok::<(), Error>(())
/// ```
pub fn evolution(evolution: &Evolution) -> Figure {
    let line = |name, color, value: Value| {
        let snapshots = evolution.snapshots.iter();
        let points = snapshots.filter_map(|m| value(m).map(|(y, error)| (m.step as f64, y, error)));
        PanelLine {
            name,
            color,
            points: points.collect(),
        }
    };
    let panel = |title, logarithmic, lines| Panel {
        title,
        x: "training step",
        logarithmic,
        lines,
    };
    let all = vec![
        panel(
            "loss",
            true,
            vec![
                line("training", BLUE, |m| Some((m.loss, 0.0))),
                line("test", PURPLE, |m| Some((m.test_loss?, 0.0))),
            ],
        ),
        panel(
            "norm of the gradient",
            true,
            vec![line("‖∇L‖", BLUE, |m| Some((m.gradient_norm, 0.0)))],
        ),
        panel(
            "sharpness: largest eigenvalue λ<sub>max</sub>",
            false,
            vec![line("λ_max", BLUE, |m| {
                Some((m.largest.value, m.largest.high - m.largest.value))
            })],
        ),
        panel(
            "smallest eigenvalue λ<sub>min</sub>",
            false,
            vec![line("λ_min", VERMILION, |m| {
                Some((m.smallest.value, m.smallest.high - m.smallest.value))
            })],
        ),
        panel(
            "sharpness: largest rise of the loss nearby",
            true,
            vec![line("rise", BLUE, |m| Some((m.sharpness?, 0.0)))],
        ),
        panel(
            "trace of the Hessian",
            false,
            vec![line("trace", BLUE, |m| {
                m.trace.map(|trace| (trace.value, trace.standard_error))
            })],
        ),
        panel(
            "ratio λ<sub>max</sub> / |λ<sub>min</sub>|",
            true,
            vec![line("ratio", BLUE, |m| {
                Some((m.sharpness_ratio().value, 0.0))
            })],
        ),
    ];
    panels("Loss and curvature during training", all)
}
