//! Where samples come from, and how each data plane names its series.
