//! Animated spectra during training.

use plotly::common::{Anchor, ErrorData, ErrorType, Marker, Mode, Pad};
use plotly::layout::update_menu::{
    Button, ButtonMethod, UpdateMenu, UpdateMenuDirection, UpdateMenuType,
};
use plotly::layout::{
    AxisRange, Frame, Margin, Slider, SliderCurrentValue, SliderCurrentValueXAnchor, SliderMethod,
    SliderStep,
};
use plotly::{Plot, Scatter, Trace, Traces};
use serde_json::{Value, json};

use super::{BLUE, Figure, ORANGE, axis, layout, log_axis};
use crate::spectral::Spectrum;

/// Maximum number of decades on the axis.
const DECADES: f64 = 8.0;

/// Duration of a frame in milliseconds.
const FRAME_MS: usize = 400;

/// An animation of spectra `(step, spectrum)` during training, with a slider and a play button. Shows |λ| over the rank on a
/// logarithmic axis: positive eigenvalues blue, negative ones orange, with residuals as error bars. All frames have the same
/// axes, of at most eight decades.
///
/// ```
/// use loss_landscape::ndarray::{Array2, array};
/// use loss_landscape::prelude::*;
///
/// let spectrum = |scale: f64| Dense::new(Array2::from_diag(&array![3.0, -1.0]) * scale)?.eigen();
/// let spectra = [(0, spectrum(1.0)?), (100, spectrum(5.0)?)];
/// let json = figure::animation(&spectra).json();
/// assert_eq!(json["frames"].as_array().map(Vec::len), Some(2));
/// assert_eq!(json["layout"]["sliders"][0]["steps"][1]["label"], "100");
/// # Ok::<(), Error>(())
/// ```
pub fn animation(spectra: &[(usize, Spectrum)]) -> Figure {
    let (k, n) = spectra
        .first()
        .map_or((0, 0), |(_, s)| (s.pairs.len(), s.dim));
    let title = match k == n {
        true => "Hessian spectrum in training".to_owned(),
        false => format!("{k} of {n} eigenvalues in training"),
    };
    let mut plot = Plot::new();
    if let Some((_, first)) = spectra.first() {
        plot.add_traces(traces(first).into());
    }
    let mut steps = Vec::new();
    for (i, (step, spectrum)) in spectra.iter().enumerate() {
        let mut data = Traces::new();
        traces(spectrum).into_iter().for_each(|t| data.push(t));
        plot.add_frame(Frame::new().name(i.to_string()).data(data));
        steps.push(
            SliderStep::new()
                .label(step.to_string())
                .method(SliderMethod::Animate)
                .args(animate_args(json!([i.to_string()]), 0)),
        );
    }
    let slider = Slider::new()
        .steps(steps)
        .current_value(
            SliderCurrentValue::new()
                .prefix("after step ")
                .x_anchor(SliderCurrentValueXAnchor::Right),
        )
        .x(0.3)
        .length(0.7)
        .pad(Pad::new(50, 10, 0));
    let button = |label: &str, frames, frame_ms| {
        let args = animate_args(frames, frame_ms);
        let method = ButtonMethod::Animate;
        Button::new().label(label).method(method).args(args)
    };
    let buttons = UpdateMenu::new()
        .ty(UpdateMenuType::Buttons)
        .direction(UpdateMenuDirection::Right)
        .show_active(false)
        .buttons(vec![
            button("Play", Value::Null, FRAME_MS),
            button("Pause", json!([null]), 0),
        ])
        .x(0.0)
        .x_anchor(Anchor::Left)
        .y(0.0)
        .y_anchor(Anchor::Top)
        .pad(Pad::new(75, 10, 0));

    let pairs = spectra.iter().flat_map(|(_, spectrum)| &spectrum.pairs);
    let sizes = pairs
        .map(|pair| pair.value.abs())
        .filter(|size| *size > 0.0);
    let (low, high) = sizes.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), size| {
        (low.min(size), high.max(size))
    });
    let mut sizes = log_axis("eigenvalue |λ|");
    if high > 0.0 {
        let (low, high) = (low.log10(), high.log10());
        sizes = sizes.range(AxisRange::new(low.max(high - DECADES) - 0.2, high + 0.2));
    }
    let widest = spectra.iter().map(|(_, s)| s.pairs.len()).max();
    let margin = (0.02 * widest.unwrap_or(0) as f64).max(0.5);
    let ranks = AxisRange::new(1.0 - margin, widest.unwrap_or(1) as f64 + margin);
    plot.set_layout(
        layout(&title)
            .height(560)
            .margin(Margin::new().left(70).right(30).top(50).bottom(180))
            .x_axis(axis("rank").range(ranks))
            .y_axis(sizes)
            .update_menus(vec![buttons])
            .sliders(vec![slider]),
    );
    Figure::new(&plot, &title)
}

/// One trace per sign, also if empty, since frames replace existing traces.
fn traces(spectrum: &Spectrum) -> [Box<dyn Trace>; 2] {
    [("λ > 0", BLUE, 1.0), ("λ < 0", ORANGE, -1.0)].map(|(name, color, sign)| {
        let ranked = spectrum.pairs.iter().enumerate();
        let (ranks, pairs): (Vec<usize>, Vec<_>) = ranked
            .filter(|(_, pair)| sign * pair.value > 0.0)
            .map(|(i, pair)| (i + 1, pair))
            .unzip();
        let residuals: Vec<f64> = pairs.iter().map(|pair| pair.residual).collect();
        let minus = if sign < 0.0 { "−" } else { "" };
        let trace: Box<dyn Trace> =
            Scatter::new(ranks, pairs.iter().map(|pair| pair.value.abs()).collect())
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(color).size(6))
                .error_y(ErrorData::new(ErrorType::Data).array(residuals))
                .hover_template(format!(
                    "λ<sub>%{{x}}</sub> = {minus}%{{y:.5g}}<extra></extra>"
                ));
        trace
    })
}

/// Arguments of plotly's `animate`: the frames (null for all, a list of null to stop) and their timing.
fn animate_args(frames: Value, milliseconds: usize) -> Value {
    json!([frames, {
        "mode": "immediate",
        "fromcurrent": true,
        "frame": {"duration": milliseconds, "redraw": true},
        "transition": {"duration": 0},
    }])
}
