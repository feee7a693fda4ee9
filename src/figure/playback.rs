//! Frames with a slider and buttons.

use serde_json::{Value, json};

use super::Figure;

/// A frame: its label on the slider, and the new traces.
pub(super) struct PlaybackFrame {
    pub(super) label: String,
    pub(super) data: Vec<Value>,
}

impl Figure {
    /// Adds frames that replace the `traces`, a slider, and buttons to play and to pause. The labels follow `prefix`. Adds
    /// 120 pixels to the height.
    pub(super) fn with_playback(
        mut self,
        prefix: &str,
        frame_ms: usize,
        traces: &[usize],
        frames: Vec<PlaybackFrame>,
    ) -> Self {
        let steps = frames.iter().enumerate().map(|(i, frame)| {
            json!({"label": frame.label, "method": "animate", "args": animate_args(&json!([i.to_string()]), 0)})
        });
        let slider = json!({
            "steps": steps.collect::<Vec<_>>(),
            "currentvalue": {"prefix": prefix, "xanchor": "right"},
            "x": 0.3, "len": 0.7, "pad": {"t": 50, "b": 10, "l": 0},
        });
        let button = |label: &str, frames: Value, frame_ms| json!({"label": label, "method": "animate", "args": animate_args(&frames, frame_ms)});
        let buttons = json!({
            "type": "buttons", "direction": "right", "showactive": false,
            "buttons": [button("Play", Value::Null, frame_ms), button("Pause", json!([null]), 0)],
            "x": 0, "xanchor": "left", "y": 0, "yanchor": "top", "pad": {"t": 75, "b": 10, "l": 0},
        });
        let frames = frames
            .into_iter()
            .enumerate()
            .map(|(i, frame)| json!({"name": i.to_string(), "data": frame.data, "traces": traces}));
        self.json["frames"] = frames.collect();
        let layout = &mut self.json["layout"];
        layout["sliders"] = json!([slider]);
        match layout["updatemenus"].as_array_mut() {
            Some(menus) => menus.push(buttons),
            None => layout["updatemenus"] = json!([buttons]),
        }
        for side in [&["height"][..], &["margin", "b"]] {
            let value = side.iter().fold(&mut *layout, |at, name| &mut at[*name]);
            *value = (value.as_u64().unwrap_or(0) + 120).into();
        }
        self
    }
}

/// Arguments of plotly's `animate`: the frames (null for all, a list of null to stop) and their timing.
fn animate_args(frames: &Value, milliseconds: usize) -> Value {
    json!([frames, {
        "mode": "immediate",
        "fromcurrent": true,
        "frame": {"duration": milliseconds, "redraw": true},
        "transition": {"duration": 0},
    }])
}
