//! [`Text`]: a text whose characters are the tokens of a language model.

use std::fmt;
use std::io::Read;
use std::path::Path;

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use rand::seq::SliceRandom;

use super::{Dataset, PublicSet};
use crate::error::{Error, Result, counted};
use crate::files::read;
use crate::random::{Purpose, generator};

const PLAYS: &[u8] = include_bytes!("../../data/shakespeare/plays.txt.gz");

/// A text whose characters are tokens. A token is the index of its character in the vocabulary, the characters that occur in
/// order of their code points.
///
/// ```
/// use loss_landscape::data::Text;
/// use loss_landscape::prelude::*;
///
/// let plays = Text::shakespeare()?;
/// let (train, test) = plays.split(0.1)?;
/// assert_eq!(train.len() + test.len(), plays.len());
///
/// // 32 sequences of 64 characters; the label of each character is the next one.
/// let data = train.windows(64, 32, 0, &Device::Cpu)?;
/// assert_eq!(data.inputs().dims(), [32, 64]);
/// assert_eq!(plays.encode("Ham.")?.len(), 4);
/// assert_eq!(plays.decode(&plays.encode("Ham.")?)?, "Ham.");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    tokens: Vec<u32>,
    vocabulary: Vec<char>,
}

impl Text {
    /// A text with the vocabulary of its own characters.
    ///
    /// ```
    /// # use loss_landscape::data::Text;
    /// # use loss_landscape::prelude::*;
    /// let text = Text::new("banana")?;
    /// assert_eq!(text.vocabulary(), ['a', 'b', 'n']);
    /// assert_eq!(text.tokens(), [1, 0, 2, 0, 2, 0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// An empty text.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(
                "the text is empty: it needs at least one character",
            ));
        }
        let mut vocabulary: Vec<char> = text.chars().collect();
        vocabulary.sort_unstable();
        vocabulary.dedup();
        let mut read = Self {
            tokens: Vec::new(),
            vocabulary,
        };
        read.tokens = read.encode(text)?;
        Ok(read)
    }

    /// *Hamlet* and *Romeo and Juliet*: 315,697 characters with a vocabulary of 69. `data/shakespeare/README.md` names the
    /// source.
    ///
    /// # Errors
    /// None if the library is compiled from intact sources.
    pub fn shakespeare() -> Result<Self> {
        let mut text = String::new();
        let unpacked = GzDecoder::new(PLAYS).read_to_string(&mut text);
        unpacked.map_err(|e| {
            Error::invalid(format!(
                "the plays in the library are damaged ({e}): compile it again"
            ))
        })?;
        Self::new(&text)
    }

    /// The validation text of TinyStories (Eldan and Li, 2023), 22,000 short stories in 19 MB: `TinyStories-valid.txt` in the
    /// directory of [`PublicSet::TinyStories`], which is downloaded if it is not there.
    ///
    /// # Errors
    /// As [`PublicSet::fetch`] and [`Text::load`].
    pub fn tiny_stories() -> Result<Self> {
        Self::load_tiny_stories(PublicSet::TinyStories.find_or_fetch()?)
    }

    /// As [`Text::tiny_stories`], with the file in `dir`.
    ///
    /// # Errors
    /// As [`Text::load`].
    pub fn load_tiny_stories(dir: impl AsRef<Path>) -> Result<Self> {
        let file = PublicSet::TinyStories.files().concat();
        Self::load(dir.as_ref().join(file))
    }

    /// Reads a file of plain text in UTF-8.
    ///
    /// # Errors
    /// A file that cannot be read, is empty or is not UTF-8.
    pub fn load(file: impl AsRef<Path>) -> Result<Self> {
        let path = file.as_ref();
        let advice = "Give a file of plain text in UTF-8";
        let text = String::from_utf8(read(path, advice)?).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            let problem = format!(
                "is not text in UTF-8: byte {at} is {:#04x}",
                e.as_bytes()[at]
            );
            Error::file(path, problem, advice)
        })?;
        match text.is_empty() {
            true => Err(Error::file(path, "is empty", advice)),
            false => Self::new(&text),
        }
    }

    /// Number of characters.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens of the text, in order.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The character of each token: the number of classes of a language model is its length.
    pub fn vocabulary(&self) -> &[char] {
        &self.vocabulary
    }

    /// The tokens of another text.
    ///
    /// # Errors
    /// A character outside the vocabulary.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let token = |(i, c): (usize, char)| match self.vocabulary.binary_search(&c) {
            Ok(token) => Ok(token as u32),
            Err(_) => Err(Error::invalid(format!(
                "character {c:?} at position {i} is not in the vocabulary of {}",
                counted(self.vocabulary.len(), "character")
            ))),
        };
        text.chars().enumerate().map(token).collect()
    }

    /// The text of some tokens.
    ///
    /// # Errors
    /// A token outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let character = |(i, token): (usize, &u32)| {
            let found = self.vocabulary.get(*token as usize).copied();
            found.ok_or_else(|| {
                Error::invalid(format!(
                    "token {token} at position {i} is out of range: the vocabulary has {}",
                    counted(self.vocabulary.len(), "character")
                ))
            })
        };
        tokens.iter().enumerate().map(character).collect()
    }

    /// Splits the text into training and test text: the last `share` of the characters, rounded, is for the test. Both keep
    /// this vocabulary.
    ///
    /// ```
    /// # use loss_landscape::data::Text;
    /// # use loss_landscape::prelude::*;
    /// let text = Text::new("to be or not to be")?;
    /// let (train, test) = text.split(0.25)?;
    /// assert_eq!(train.decode(train.tokens())?, "to be or not ");
    /// assert_eq!(test.decode(test.tokens())?, "to be");
    /// assert_eq!(train.vocabulary(), test.vocabulary());
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// A share that leaves one of both without a character.
    pub fn split(&self, share: f64) -> Result<(Self, Self)> {
        let test = (share * self.len() as f64).round();
        if !(test >= 1.0 && test < self.len() as f64) {
            return Err(Error::invalid(format!(
                "a share of {share} of {} leaves no character for training or for the test: give a share between 0 and 1",
                counted(self.len(), "character")
            )));
        }
        let part = |tokens: &[u32]| Self {
            tokens: tokens.to_vec(),
            vocabulary: self.vocabulary.clone(),
        };
        let (train, test) = self.tokens.split_at(self.len() - test as usize);
        Ok((part(train), part(test)))
    }

    /// `n` windows of `length` characters at different random positions, which may overlap; `seed` determines them. The label
    /// of each character is the next one in the text.
    ///
    /// # Shapes
    /// Inputs and labels `(n, length)`, `u32`.
    ///
    /// # Errors
    /// `n` or `length` is 0; a text shorter than `length` + 1 characters; fewer than `n` positions.
    pub fn windows(&self, length: usize, n: usize, seed: u64, device: &Device) -> Result<Dataset> {
        if length == 0 || n == 0 {
            return Err(Error::invalid(format!(
                "{n} windows of {} hold no token: both numbers must be at least 1",
                counted(length, "character")
            )));
        }
        let positions = self.len().saturating_sub(length);
        if positions < n {
            return Err(Error::invalid(format!(
                "a text of {} has {} for windows of {length} and the character after them, not {n}: take fewer or shorter \
                 windows",
                counted(self.len(), "character"),
                counted(positions, "position")
            )));
        }
        let mut starts: Vec<usize> = (0..positions).collect();
        let (starts, _) = starts.partial_shuffle(&mut generator(Purpose::TextWindows, seed, 0), n);
        let from = |shift: usize| -> Result<Tensor> {
            let windows = starts
                .iter()
                .map(|start| &self.tokens[start + shift..][..length]);
            let tokens = windows.collect::<Vec<_>>().concat();
            Ok(Tensor::from_vec(tokens, (n, length), device)?)
        };
        Dataset::classification(&from(0)?, &from(1)?)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Text")
            .field("characters", &self.len())
            .field("vocabulary", &self.vocabulary.iter().collect::<String>())
            .finish()
    }
}
