//! Watch, gather facts, decide, act, report.
