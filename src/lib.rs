//! Serin
