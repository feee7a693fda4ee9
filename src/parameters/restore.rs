//! [`Restore`]: restores variables to their previous values.

use candle_core::{Tensor, Var};

use crate::error::Result;

/// Restores the variables on drop, also after an error or a panic.
pub(crate) struct Restore(Vec<(Var, Tensor)>);

impl Restore {
    /// Saves the variables' current values.
    pub(crate) fn new<'a>(vars: impl IntoIterator<Item = &'a Var>) -> Result<Self> {
        let vars = vars.into_iter();
        let saved = vars.map(|var| Ok((var.clone(), var.copy()?.detach())));
        Ok(Self(saved.collect::<Result<_>>()?))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        for (var, saved) in &self.0 {
            // The copies have the variables' own shapes and types, so this cannot fail.
            let _ = var.set(saved);
        }
    }
}
