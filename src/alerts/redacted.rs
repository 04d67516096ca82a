//! What a Secret holds, in a wrapper that does not print it.

use std::fmt;

/// A value from a Secret. It has no `Display`, and its `Debug` says nothing of it, so that it
/// reaches a log or a status only by a call to [`Redacted::expose`], which is easy to search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself, for the wire alone.
    #[must_use]
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}
