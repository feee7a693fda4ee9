//! [`Pool`]: buffers that are kept between uses. Memory that is new to the process costs a page fault per 4 KiB.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Buffers that nobody uses now.
pub(crate) struct Pool<B>(Mutex<Vec<B>>);

impl<B> Default for Pool<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Default> Pool<B> {
    /// A buffer with the contents of its last use, or a new one.
    pub(crate) fn lend(&self) -> Lent<'_, B> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Lent {
            buffer: free.pop().unwrap_or_default(),
            pool: self,
        }
    }
}

/// A buffer that is returned on drop.
pub(crate) struct Lent<'a, B: Default> {
    buffer: B,
    pool: &'a Pool<B>,
}

impl<B: Default> Deref for Lent<'_, B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.buffer
    }
}

impl<B: Default> DerefMut for Lent<'_, B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.buffer
    }
}

impl<B: Default> Drop for Lent<'_, B> {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(std::mem::take(&mut self.buffer));
    }
}
