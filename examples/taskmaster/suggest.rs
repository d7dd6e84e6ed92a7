//! Suggestions for what is almost right: the command or the name that was probably meant.

use strsim::osa_distance;

/// The candidate that is most like `typed`. `None` if none is like it.
///
/// A few mistakes are allowed: one letter in a short word, and one more for each three letters. An exchange of two
/// neighbouring letters counts as one mistake. Without such a candidate, the only one that begins with `typed` is
/// meant. A candidate that differs only in digits is another instance, and was not meant.
pub fn closest(typed: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let typed = typed.to_lowercase();
    let length = typed.chars().count();
    if length == 0 {
        return None;
    }
    let most = (length / 3).max(1);
    let mut best: Option<(usize, String)> = None;
    let mut beginnings = Vec::new();
    for candidate in candidates {
        let lower = candidate.to_lowercase();
        if without_digits(&lower) == without_digits(&typed) && lower != typed {
            continue;
        }
        // A candidate of another length is too far away, and its distance need not be measured.
        let distance = if lower.chars().count().abs_diff(length) <= most {
            osa_distance(&typed, &lower)
        } else {
            usize::MAX
        };
        let is_alike = distance <= most && distance < length;
        if is_alike && best.as_ref().is_none_or(|(least, _)| distance < *least) {
            best = Some((distance, candidate));
        } else if lower.starts_with(&typed) {
            beginnings.push(candidate);
        }
    }
    match (best, beginnings.as_slice()) {
        (Some((_, best)), _) => Some(best),
        (None, [one]) if length > 1 => Some(one.clone()),
        (None, _) => None,
    }
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|char| !char.is_ascii_digit()).collect()
}

/// The suggestion as the second half of a sentence. Empty if no candidate is like `typed`.
pub fn did_you_mean(typed: &str, candidates: impl Iterator<Item = String>) -> String {
    match closest(typed, candidates) {
        Some(meant) => format!("; did you mean {meant:?}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(typed: &str) -> Option<String> {
        let all = ["status", "start", "stop", "restart", "web", "worker:worker_10"];
        closest(typed, all.into_iter().map(str::to_owned))
    }

    #[test]
    fn a_few_mistakes_are_forgiven() {
        for (typed, meant) in [
            ("stauts", "status"),
            ("statsu", "status"),
            ("START", "start"),
            ("stpo", "stop"),
            ("sotp", "stop"),
            ("reastart", "restart"),
            ("wbe", "web"),
            ("we", "web"),
            ("workr:worker_10", "worker:worker_10"),
            ("stat", "start"),
            ("res", "restart"),
        ] {
            assert_eq!(found(typed).as_deref(), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_word_that_is_like_nothing_gets_no_suggestion() {
        for typed in ["", "x", "w", "dance", "help", "s", "database", "worker:worker_1"] {
            assert_eq!(found(typed), None, "{typed}");
        }
    }
}
