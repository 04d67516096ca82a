//! From an answer to one value, or the reason why there is none.

use super::{Answer, Data};
use crate::analysis::Measured;

/// The one value of an answer.
///
/// A query that answers nothing has no data. One that answers more than one series, or something else than numbers, is
/// wrong, and to choose for its author would be a guess. NaN and infinities are no data: most often
/// they are a division by zero requests.
#[must_use]
pub fn single(answer: &Answer) -> Measured {
    let value = match &answer.data {
        Data::Scalar { value, .. } => *value,
        Data::Vector(samples) => match &**samples {
            [] => return Measured::NoData("the query answered no series".into()),
            [only] => only.value,
            several => {
                return Measured::Error(format!(
                    "the query answered {} series; aggregate it to one, such as with sum(...) or max(...)",
                    several.len()
                ));
            }
        },
        other @ (Data::Matrix(_) | Data::String(_)) => {
            return Measured::Error(format!(
                "the query answered a {}; it must answer one number",
                other.kind()
            ));
        }
    };
    if value.is_nan() {
        Measured::NoData("the query answered NaN, which is what 0 divided by 0 gives".into())
    } else if value.is_infinite() {
        Measured::NoData("the query answered infinity, which is what division by 0 gives".into())
    } else {
        Measured::Value(value)
    }
}
