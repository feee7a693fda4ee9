//! Words for numbers: the bands of a quantity, and which of them a number with its error lies in.

use crate::spectral::Bracket;

/// What sizes of a quantity are usually taken to mean.
pub(crate) struct Bands {
    /// Ascending. Each belongs to the band that begins with it, the last one to the band that ends with it.
    edges: &'static [f64],
    /// One for each band.
    words: &'static [&'static str],
    /// One sentence for each band.
    advice: &'static [&'static str],
}

/// Of κ: how fast gradient descent converges.
pub(crate) const CONDITION: Bands = Bands {
    edges: &[100.0, 1_000.0],
    words: &["excellent", "good", "challenging"],
    advice: &[
        "Gradient descent converges fast.",
        "Standard optimisers work well.",
        "Tune the learning rate or use a preconditioner.",
    ],
};

/// Of the rise of the loss nearby.
pub(crate) const SHARPNESS: Bands = Bands {
    edges: &[0.1, 1.0],
    words: &["flat", "moderate", "sharp"],
    advice: &[
        "This often goes with good generalisation.",
        "Generalisation is likely to be good.",
        "There is a risk of overfitting: compare the test loss.",
    ],
};

/// Of the barrier between two models.
pub(crate) const BARRIER: Bands = Bands {
    edges: &[0.1, 1.0],
    words: &["connected", "moderately connected", "disconnected"],
    advice: &[
        "The models lie in one basin along this path.",
        "The models are related solutions.",
        "The models lie in different basins along this path.",
    ],
};

/// Of the number of negative eigenvalues where the gradient is small.
pub(crate) const NEGATIVE: Bands = Bands {
    edges: &[5.0],
    words: &["near a minimum", "likely a saddle point"],
    advice: &[
        "Up to five negative eigenvalues are usual during training.",
        "Training can go on along the directions that curve down.",
    ],
};

impl Bands {
    /// The word for a number, those that its error allows besides, and a sentence of advice.
    pub(crate) fn verdict(&self, number: &Bracket) -> String {
        self.word(number) + &self.advice(number.value)
    }

    /// The word for a number, and those that its error allows besides.
    pub(crate) fn word(&self, number: &Bracket) -> String {
        let [low, own, high] = [number.low, number.value, number.high].map(|x| self.band(x));
        let (Some(low), Some(own), Some(high)) = (low, own, high) else {
            return "not meaningful: it is no number".into();
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

    /// What follows the word: ". " and the sentence for the band of a number. Empty for NaN.
    pub(crate) fn advice(&self, x: f64) -> String {
        self.band(x)
            .map_or(String::new(), |band| format!(". {}", self.advice[band]))
    }

    /// Which band a number lies in, from 0; none for NaN.
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
        assert_eq!(at(&CONDITION, f64::NAN), "not meaningful: it is no number");
    }

    #[test]
    fn an_error_that_spans_edges_is_said() {
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
