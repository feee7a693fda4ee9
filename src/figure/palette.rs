//! Colours of all figures. Colour-blind readers can tell them apart (Okabe and Ito, 2008), and each has one meaning.

/// What is measured: losses, positive eigenvalues, positive entries, the first of several series.
pub(super) const BLUE: &str = "#0072B2";
/// A second quantity of the same kind, such as the test loss beside the training loss.
pub(super) const PURPLE: &str = "#CC79A7";
/// What a measurement is compared with: a quadratic model, a theory, a threshold.
pub(super) const GREEN: &str = "#009E73";
/// Negative values, and nothing else.
pub(super) const VERMILION: &str = "#D55E00";
/// A further series.
pub(super) const YELLOW: &str = "#E69F00";
/// A further series.
pub(super) const SKY: &str = "#56B4E9";
/// Text, axes, errors, and the outlines of θ and of a path.
pub(super) const INK: &str = "#222222";
/// Grid lines.
pub(super) const GRID: &str = "#dddddd";
/// Background, zero, and the filling of θ and of a path, which is visible on every colour of a plane.
pub(super) const PAPER: &str = "#ffffff";

/// Colours of several series, in their order. The colour of negative values is not among them.
pub(super) const SERIES: [&str; 6] = [BLUE, PURPLE, GREEN, YELLOW, SKY, INK];

/// A colour between the background and `color`, as `#rrggbb`: 0 is the background.
pub(super) fn tint(color: &str, share: f64) -> String {
    let channel = |at: usize| {
        let full = color.get(at..at + 2).unwrap_or_default();
        let full = u8::from_str_radix(full, 16).unwrap_or(0);
        let mixed = 255.0 + share.clamp(0.0, 1.0) * (f64::from(full) - 255.0);
        mixed.round() as u8
    };
    let [r, g, b] = [1, 3, 5].map(channel);
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tints_lie_between_the_background_and_the_colour() {
        assert_eq!(tint(VERMILION, 0.0), PAPER);
        assert_eq!(tint(VERMILION, 1.0), VERMILION.to_lowercase());
        assert_eq!(tint("#000000", 0.5), "#808080");
    }
}
