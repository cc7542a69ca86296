//! The known names nearest to a mistyped one.

use alloc::vec::Vec;

/// Names that differ from the asked one in few letters, the nearest first, at most three.
pub fn nearest<'a>(asked: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    const SHOWN: usize = 3;
    let asked = asked.to_ascii_lowercase();
    let limit = 1 + asked.len() / 3;
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (distance(&asked, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort();
    near.into_iter().take(SHOWN).map(|(_, name)| name).collect()
}

/// Letters to insert, remove or exchange to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = core::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_finds_its_neighbours_and_a_foreign_one_nothing() {
        let known = ["sales", "sales-2", "support", "directory"];
        assert_eq!(nearest("Slaes", known), ["sales"]);
        assert_eq!(nearest("sales2", known), ["sales", "sales-2"]);
        assert_eq!(nearest("zzzz", known), Vec::<&str>::new());
    }
}
