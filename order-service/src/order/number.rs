//! The order number: what a person reads out on the telephone.

/// Crockford's alphabet: no I, L, O, U, so that nothing is mistaken for a digit.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// The check character is the number modulo 37, written in this longer alphabet (<https://www.crockford.com/base32.html>).
const CHECK: &[u8; 37] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ*~$=U";
/// Shorter numbers are filled with zeros, so that all numbers of the first million orders look alike.
const MIN_DIGITS: usize = 4;

/// The text of a number from the database: base32, and one check character that catches every wrong digit and every swap of neighbors.
pub fn display(number: i64) -> String {
    let number = number.unsigned_abs();
    let mut text = Vec::with_capacity(MIN_DIGITS + 1);
    let mut rest = number;
    while rest > 0 || text.len() < MIN_DIGITS {
        text.push(DIGITS[(rest % 32) as usize]);
        rest /= 32;
    }
    text.reverse();
    text.push(CHECK[(number % 37) as usize]);
    text.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn is_short_and_unique() {
        assert_eq!(display(1), "00011");
        assert_eq!(display(1234), "016JD");
        assert_eq!(display(i64::MAX).len(), 14);
        let numbers: HashSet<String> = (1..50_000).map(display).collect();
        assert_eq!(numbers.len(), 49_999);
    }

    #[test]
    fn a_swap_of_neighbors_is_noticed() {
        for number in 1..20_000 {
            let text = display(number);
            let check = text.chars().last();
            for at in 0..text.len() - 2 {
                let mut swapped: Vec<char> = text.chars().take(text.len() - 1).collect();
                swapped.swap(at, at + 1);
                let swapped: String = swapped.into_iter().collect();
                let value = swapped
                    .bytes()
                    .fold(0, |value, byte| value * 32 + DIGITS.iter().position(|&digit| digit == byte).unwrap() as i64);
                assert!(value == number || display(value).chars().last() != check);
            }
        }
    }
}
