//! Text: characters as tokens, windows, splits and errors.

use std::fs;

use loss_landscape::data::Text;
use loss_landscape::prelude::*;

const CPU: Device = Device::Cpu;

fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_plays_are_text_alone() {
    let plays = Text::shakespeare().unwrap();
    assert_eq!(plays.len(), 315_697);
    assert_eq!(plays.vocabulary().len(), 69);
    assert!(plays.vocabulary().is_sorted());
    let text = plays.decode(plays.tokens()).unwrap();
    assert!(text.starts_with("HAMLET, PRINCE OF DENMARK\n"));
    assert!(text.contains("To be, or not to be,--that is the question:--"));
    assert!(text.contains("O Romeo, Romeo! wherefore art thou Romeo?"));
    assert!(text.ends_with("[Exeunt.]\n"));
    assert_eq!(Text::new(&text).unwrap(), plays);
    let lower = text.to_lowercase();
    for word in ["gutenberg", "etext", "copyright", "http"] {
        assert!(!lower.contains(word), "{word}");
    }
}

#[test]
fn labels_are_the_next_characters() {
    let text = Text::shakespeare().unwrap();
    for length in [1, 64] {
        let data = text.windows(length, 50, 3, &CPU).unwrap();
        assert_eq!(data.inputs().dtype(), DType::U32);
        assert_eq!(data.inputs().dims(), [50, length]);
        let inputs = data.inputs().to_vec2::<u32>().unwrap();
        let labels = data.labels().unwrap();
        for (input, label) in inputs.iter().zip(labels.chunks(length)) {
            assert_eq!(input[1..], label[..length - 1]);
            let window = [&input[..1], label].concat();
            assert!(text.tokens().windows(length + 1).any(|w| w == window));
        }
    }
}

#[test]
fn windows_are_seeded_and_at_different_positions() {
    let text = Text::new("abcdefghijklmnopqrstuvwxyz").unwrap();
    let rows = |n, seed| {
        let data = text.windows(4, n, seed, &CPU).unwrap();
        data.inputs().to_vec2::<u32>().unwrap()
    };
    assert_eq!(rows(10, 0), rows(10, 0));
    assert_ne!(rows(10, 0), rows(10, 1));
    // Every position once: the last window ends before the last character, which is a label.
    let mut all = rows(22, 5);
    assert_ne!(all[0], [0, 1, 2, 3]);
    all.sort_unstable();
    let expected: Vec<Vec<u32>> = (0..22).map(|i| (i..i + 4).collect()).collect();
    assert_eq!(all, expected);
    let error = message(text.windows(4, 23, 0, &CPU));
    assert!(
        error.contains("22 positions") && error.contains("23"),
        "{error}"
    );
}

#[test]
fn training_and_test_do_not_overlap() {
    let text = Text::shakespeare().unwrap();
    for share in [0.1, 0.5, 1e-5] {
        let (train, test) = text.split(share).unwrap();
        assert_eq!(test.len(), (share * text.len() as f64).round() as usize);
        assert_eq!([train.tokens(), test.tokens()].concat(), text.tokens());
        assert_eq!(train.vocabulary(), text.vocabulary());
    }
    for share in [0.0, 1.0, -0.1, 1.5, f64::NAN] {
        assert!(message(text.split(share)).contains("between 0 and 1"));
    }
}

#[test]
fn files_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.txt");
    fs::write(&path, "naïve café\r\n").unwrap();
    let text = Text::load(&path).unwrap();
    assert_eq!(text.len(), 12);
    assert_eq!(text.decode(text.tokens()).unwrap(), "naïve café\r\n");
    assert_eq!(text.decode(&text.encode("fac").unwrap()).unwrap(), "fac");
    assert_eq!(
        message(text.encode("fax")),
        "character 'x' at position 2 is not in the vocabulary of 11 characters"
    );
    assert!(message(text.decode(&[0, 11])).contains("token 11 at position 1"));

    let refused = |content: Option<&[u8]>, words: &str| {
        let path = dir.path().join("refused.txt");
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = message(Text::load(&path));
        assert!(
            error.contains(words) && error.contains("refused.txt"),
            "{error}"
        );
    };
    refused(None, "is missing");
    refused(Some(b""), "is empty");
    refused(Some(b"ab\xff"), "byte 2 is 0xff");
    assert!(message(Text::load(dir.path())).contains("cannot be read"));
    assert!(message(Text::new("")).contains("empty"));
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let text = Text::new("abc").unwrap();
    assert_eq!(text.windows(2, 1, 0, &CPU).unwrap().len(), 1);
    for (length, n) in [(3, 1), (4, 1), (2, 2), (usize::MAX, 1)] {
        let error = message(text.windows(length, n, 0, &CPU));
        assert!(error.contains("a text of 3 characters"), "{error}");
    }
    for (length, n) in [(0, 1), (1, 0)] {
        assert!(message(text.windows(length, n, 0, &CPU)).contains("at least 1"));
    }
}
