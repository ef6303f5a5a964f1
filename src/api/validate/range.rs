//! A range of whole numbers, as the options `value`, `size`, `length` and `bytes` write it.
//!
//! Owns the grammar and the words of a refusal. Knows nothing of fields.

/// Whole numbers between two bounds, both included; at least one bound is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    low: Option<i128>,
    high: Option<i128>,
}

/// What a range counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Characters,
    Bytes,
    Elements,
}

impl Range {
    /// Reads `N-M`, `<=N`, `>=N`, `<N`, `>N` or `N`; bounds may be negative.
    ///
    /// Returns `None` for any other text, and for a range that nothing can be in.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (low, high) = if let Some(bound) = text.strip_prefix("<=") {
            (None, Some(number(bound)?))
        } else if let Some(bound) = text.strip_prefix(">=") {
            (Some(number(bound)?), None)
        } else if let Some(bound) = text.strip_prefix('<') {
            (None, Some(number(bound)? - 1))
        } else if let Some(bound) = text.strip_prefix('>') {
            (Some(number(bound)? + 1), None)
        } else {
            // A minus in front belongs to the first number.
            let dash = text.char_indices().skip(1).find(|(_, c)| *c == '-').map_or(text.len(), |(at, _)| at);
            let low = number(&text[..dash])?;
            (Some(low), Some(if dash == text.len() { low } else { number(&text[dash + 1..])? }))
        };
        let hollow = low.zip(high).is_some_and(|(low, high)| low > high);
        (!hollow).then_some(Self { low, high })
    }

    /// The lowest number inside; `None` when there is none.
    pub fn low(&self) -> Option<i128> {
        self.low
    }

    /// The highest number inside; `None` when there is none.
    pub fn high(&self) -> Option<i128> {
        self.high
    }

    pub(super) fn contains(&self, number: impl Into<i128>) -> bool {
        let number = number.into();
        self.low.is_none_or(|low| low <= number) && self.high.is_none_or(|high| number <= high)
    }

    pub(super) fn counts(&self, number: usize) -> bool {
        // No request is as long as that.
        self.contains(i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// The range in words, such as `from 0 to 1000`.
    pub(super) fn words(&self) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) if low == high => low.to_string(),
            (Some(low), Some(high)) => format!("from {low} to {high}"),
            (Some(low), None) => format!("at least {low}"),
            (None, Some(high)) => format!("at most {high}"),
            (None, None) => "any number".to_owned(),
        }
    }

    /// The range of a count in words, such as `at most 50 characters`.
    pub(super) fn count_words(&self, unit: Unit) -> String {
        match (self.low, self.high) {
            (Some(low), Some(high)) if low == high => format!("exactly {low} {}", unit.noun(low)),
            (Some(low), Some(high)) => format!("{low} to {high} {}", unit.noun(high)),
            (Some(low), None) => format!("at least {low} {}", unit.noun(low)),
            (None, Some(high)) => format!("at most {high} {}", unit.noun(high)),
            (None, None) => format!("any number of {}", unit.noun(0)),
        }
    }
}

impl Unit {
    fn noun(self, count: i128) -> &'static str {
        match (self, count) {
            (Self::Characters, 1) => "character",
            (Self::Characters, _) => "characters",
            (Self::Bytes, 1) => "byte",
            (Self::Bytes, _) => "bytes",
            (Self::Elements, 1) => "element",
            (Self::Elements, _) => "elements",
        }
    }
}

fn number(text: &str) -> Option<i128> {
    // The standard parser takes a plus, the grammar does not.
    if text.starts_with('+') { None } else { text.parse::<i64>().ok().map(i128::from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let table: [(&str, &[i64], &[i64]); 10] = [
            ("0-1000", &[0, 1, 1000], &[-1, 1001]),
            ("<=50", &[i64::MIN, 0, 50], &[51]),
            (">=10", &[10, i64::MAX], &[9, -10]),
            (">0", &[1], &[0, -1]),
            ("<5", &[4, -5], &[5]),
            ("7", &[7], &[6, 8]),
            ("-5-2048", &[-5, 0, 2048], &[-6, 2049]),
            ("-9--7", &[-9, -7], &[-10, -6, 7, 9]),
            (">=-1", &[-1], &[-2]),
            ("-3", &[-3], &[3]),
        ];
        for (text, inside, outside) in table {
            let range = Range::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert!(inside.iter().all(|number| range.contains(*number)), "{text}");
            assert!(!outside.iter().any(|number| range.contains(*number)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", "--", "<", "<=", "=5", "5-", "-5-", "9-1", "1-+5", "+1", "1 - 5", "a-b", "5s", "1-2-3", "é", "99999999999999999999"] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }

    #[test]
    fn words_fit_the_range() {
        let table = [
            ("1-256", Unit::Characters, "from 1 to 256", "1 to 256 characters"),
            ("<=1", Unit::Elements, "at most 1", "at most 1 element"),
            (">0", Unit::Elements, "at least 1", "at least 1 element"),
            ("8", Unit::Bytes, "8", "exactly 8 bytes"),
        ];
        for (text, unit, words, count_words) in table {
            let range = Range::parse(text).unwrap();
            assert_eq!((range.words().as_str(), range.count_words(unit).as_str()), (words, count_words));
        }
    }
}
