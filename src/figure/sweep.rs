//! A study of the strength of the L2 term.

use std::cmp::Ordering;

use super::Figure;
use super::palette::{BLUE, PURPLE, VERMILION};
use super::panels::{Panel, PanelLine, panels};
use crate::sweep::{SweepPoint, SweepReport};

/// Loss, wrong answers, the largest and the most negative of the computed eigenvalues with their residuals, and the norm of the
/// gradient over the strength λ of the L2 term. Omits what is not known, such as wrong answers without labels.
///
/// ```
/// use loss_landscape::prelude::*;
/// use loss_landscape::sweep::SweepReport;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let dir = dir.path().join("moons");
/// let data = two_moons(60, 0.1, 0, &Device::Cpu)?;
/// let model =
///     |seed| Mlp::new(&[2, 3, 1], Activation::Tanh, seed, &Device::Cpu)?.to_dtype(DType::F64);
/// let trainer = Trainer::adam(0.01).with_batch_size(20).with_epochs(2);
/// let sweep = Sweep::new([0.0, 0.01]).with_trainer(trainer).with_top(3);
/// let figure = figure::sweep(&sweep.run(&dir, model, &data, &data)?);
/// assert_eq!(figure.json()["data"][0]["x"][1], 0.01);
/// # Ok::<(), Error>(())
/// ```
pub fn sweep(report: &SweepReport) -> Figure {
    let line = |name, color, value: fn(&SweepPoint) -> Option<(f64, f64)>| PanelLine {
        name,
        color,
        points: report
            .points
            .iter()
            .filter_map(|point| value(point).map(|(y, error)| (point.l2, y, error)))
            .collect(),
    };
    let panel = |title, logarithmic, lines| Panel {
        title,
        x: "strength λ of the L2 term",
        logarithmic,
        lines,
    };
    let all = vec![
        panel(
            "loss",
            true,
            vec![
                line("training with the L2 term", BLUE, |p| {
                    Some((p.train_loss, 0.0))
                }),
                line("test", PURPLE, |p| Some((p.test_loss, 0.0))),
            ],
        ),
        panel(
            "share of wrong answers",
            false,
            vec![
                line("training", BLUE, |p| Some((1.0 - p.train_accuracy?, 0.0))),
                line("test", PURPLE, |p| Some((1.0 - p.test_accuracy?, 0.0))),
            ],
        ),
        panel(
            "largest eigenvalue of the Hessian",
            true,
            vec![line("eigenvalue", BLUE, |p| {
                extreme(p, f64::total_cmp).filter(|(value, _)| *value > 0.0)
            })],
        ),
        panel(
            "smallest computed eigenvalue, if negative",
            false,
            vec![line("eigenvalue", VERMILION, |p| {
                extreme(p, |a, b| b.total_cmp(a)).filter(|(value, _)| *value < 0.0)
            })],
        ),
        panel(
            "norm of the gradient",
            true,
            vec![line("‖∇L‖", BLUE, |p| Some((p.gradient_norm, 0.0)))],
        ),
    ];
    panels("Trainings with different strengths of the L2 term", all)
}

/// The eigenvalue that is last in an order, with its residual.
fn extreme(point: &SweepPoint, order: fn(&f64, &f64) -> Ordering) -> Option<(f64, f64)> {
    let pairs = std::iter::zip(&point.eigenvalues, &point.residuals);
    let last = pairs.max_by(|(a, _), (b, _)| order(a, b))?;
    Some((*last.0, *last.1))
}
