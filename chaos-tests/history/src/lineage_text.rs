//! A lineage in a JSON line: `"3-0123456789abcdef0123456789abcdef"`, as it is shown elsewhere.

use std::str::FromStr;

use dag_types::{ActivationId, Lineage};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(crate) fn serialize<S: Serializer>(lineage: &Lineage, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(lineage)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lineage, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no lineage (EPOCH-ID)")))
}

fn parse(text: &str) -> Option<Lineage> {
    let (epoch, activation) = text.split_once('-')?;
    Some(Lineage {
        epoch: epoch.parse().ok()?,
        activation: ActivationId::from_str(activation).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_reads_back_what_it_shows() {
        let lineage = Lineage { epoch: 7, activation: ActivationId(*b"0123456789abcdef") };
        assert_eq!(parse(&lineage.to_string()), Some(lineage));
    }

    #[test]
    fn a_text_without_epoch_or_with_a_short_id_is_no_lineage() {
        for text in ["", "7", "x-30313233343536373839616263646566", "7-00"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
