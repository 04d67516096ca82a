//! The outbox's courier, and the rules for whom it may call.
