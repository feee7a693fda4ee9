//! Verdicts: qualitative words for a number and its error interval.

use crate::spectral::Bracket;

/// Bands of a quantity, each with a word and advice.
pub(crate) struct Bands {
    /// Ascending edges. Each belongs to the band above it, except the last, which belongs to the band below it.
    edges: &'static [f64],
    /// One word per band.
    words: &'static [&'static str],
    /// One sentence per band.
    advice: &'static [&'static str],
}

/// Bands of the condition number κ.
pub(crate) const CONDITION: Bands = Bands {
    edges: &[100.0, 1_000.0],
    words: &["excellent", "good", "challenging"],
    advice: &[
        "Gradient descent converges fast.",
        "Standard optimisers work well.",
        "Tune the learning rate or use a preconditioner.",
    ],
};

/// Bands of sharpness, an increase of the loss.
pub(crate) const SHARPNESS: Bands = Bands {
    edges: &[0.1, 1.0],
    words: &["flat", "moderate", "sharp"],
    advice: &[
        "This often goes with good generalisation.",
        "Generalisation is likely to be good.",
        "There is a risk of overfitting: check the test loss.",
    ],
};

/// Bands of the loss barrier between two models.
pub(crate) const BARRIER: Bands = Bands {
    edges: &[0.1, 1.0],
    words: &["connected", "moderately connected", "disconnected"],
    advice: &[
        "The models lie in one basin along this path.",
        "The models are related solutions.",
        "The models lie in different basins along this path.",
    ],
};

/// Bands of the number of negative eigenvalues at a small gradient.
pub(crate) const NEGATIVE: Bands = Bands {
    edges: &[5.0],
    words: &["near a minimum", "likely a saddle point"],
    advice: &[
        "Up to five negative eigenvalues are usual during training.",
        "Training can continue along directions of negative curvature.",
    ],
};

impl Bands {
    /// Returns the word for a number, the other words within its error, and advice.
    pub(crate) fn verdict(&self, number: &Bracket) -> String {
        self.word(number) + &self.advice(number.value)
    }

    /// Returns the word for a number and the other words within its error.
    pub(crate) fn word(&self, number: &Bracket) -> String {
        let [low, own, high] = [number.low, number.value, number.high].map(|x| self.band(x));
        let (Some(low), Some(own), Some(high)) = (low, own, high) else {
            return "not meaningful: not a number".into();
        };
        let others: Vec<&str> = (low..=high)
            .filter(|band| *band != own)
            .map(|band| self.words[band])
            .collect();
        match others[..] {
            [] => self.words[own].into(),
            _ => format!(
                "{}; its error reaches {}",
                self.words[own],
                others.join(" and ")
            ),
        }
    }

    /// Returns ". " and the advice for a number; empty for NaN.
    pub(crate) fn advice(&self, x: f64) -> String {
        self.band(x)
            .map_or(String::new(), |band| format!(". {}", self.advice[band]))
    }

    /// Index of the band that contains a number; `None` for NaN.
    pub(crate) fn band(&self, x: f64) -> Option<usize> {
        let last = self.edges.len() - 1;
        let passed = |(i, edge): (usize, &f64)| x > *edge || (i < last && x == *edge);
        let edges = self.edges.iter().enumerate();
        (!x.is_nan()).then(|| edges.filter(|edge| passed(*edge)).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bands: &Bands, low: f64, value: f64, high: f64) -> String {
        bands.word(&Bracket { value, low, high })
    }

    #[test]
    fn each_band_has_a_word_and_a_sentence() {
        for bands in [CONDITION, SHARPNESS, BARRIER, NEGATIVE] {
            assert_eq!(bands.words.len(), bands.edges.len() + 1);
            assert_eq!(bands.advice.len(), bands.words.len());
        }
        let verdict = CONDITION.verdict(&Bracket {
            value: 99.0,
            low: 90.0,
            high: 100.0,
        });
        assert_eq!(
            verdict,
            "excellent; its error reaches good. Gradient descent converges fast."
        );
    }

    #[test]
    fn numbers_at_the_edges_of_bands() {
        let at = |bands: &Bands, x: f64| word(bands, x, x, x);
        for (x, expected) in [
            (99.999, "excellent"),
            (100.0, "good"),
            (1_000.0, "good"),
            (1_000.001, "challenging"),
            (f64::INFINITY, "challenging"),
        ] {
            assert_eq!(at(&CONDITION, x), expected);
        }
        for (x, expected) in [
            (0.0, "flat"),
            (0.1, "moderate"),
            (1.0, "moderate"),
            (1.1, "sharp"),
        ] {
            assert_eq!(at(&SHARPNESS, x), expected);
        }
        assert_eq!(at(&BARRIER, 0.0999), "connected");
        assert_eq!(at(&BARRIER, 0.5), "moderately connected");
        assert_eq!(at(&BARRIER, 1.5), "disconnected");
        assert_eq!(at(&NEGATIVE, 5.0), "near a minimum");
        assert_eq!(at(&NEGATIVE, 6.0), "likely a saddle point");
        assert_eq!(at(&CONDITION, f64::NAN), "not meaningful: not a number");
    }

    #[test]
    fn an_error_that_spans_edges_is_stated() {
        assert_eq!(word(&CONDITION, 50.0, 70.0, 99.0), "excellent");
        assert_eq!(
            word(&CONDITION, 90.0, 99.0, 100.0),
            "excellent; its error reaches good"
        );
        assert_eq!(
            word(&SHARPNESS, 0.05, 0.5, 2.0),
            "moderate; its error reaches flat and sharp"
        );
        assert_eq!(
            word(&NEGATIVE, 5.0, 5.0, 7.0),
            "near a minimum; its error reaches likely a saddle point"
        );
    }
}
