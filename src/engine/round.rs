//! The bookkeeping of turns: how much a call may do, which ready descriptors are not handled yet, and for how long the
//! host has been kept. `turn.rs` describes the rules.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::progress::Progress;
use crate::fdset::Token;
use crate::time::Instant;

/// How many places a round has beside one for each entry: for descriptors with more to read than is read in one call.
const REPEATS: usize = 256;

/// The shortest time after which a host counts as kept, and the shortest gap between calls that counts as a pause.
pub(crate) const SHORTEST_STREAK: Duration = Duration::from_millis(1);

/// How much work a call may do. The first item is always allowed, so each call makes progress.
pub(crate) struct Budget {
    until: Instant,
    items: u32,
    is_first: bool,
}

impl Budget {
    pub(crate) const fn new(until: Instant, items: u32) -> Budget {
        Budget {
            until,
            items,
            is_first: true,
        }
    }

    /// Takes one item. `false` if the budget is used up.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let is_first = std::mem::replace(&mut self.is_first, false);
        let is_left = self.items > 0 && (is_first || now < self.until);
        self.items -= u32::from(is_left);
        is_left
    }
}

/// The work that was ready or due at one moment, and how far it is done.
pub(crate) struct Round {
    began: Instant,
    /// Some of this work is left.
    is_open: bool,
    /// All descriptors of that moment are handled. Those that are handled now became ready later.
    is_handled: bool,
    /// Reported by the epoll and not handled.
    waiting: VecDeque<Token>,
    /// Handled in this call, with more to read.
    unfinished: Vec<Token>,
    /// The buffer for a report of the epoll.
    batch: Vec<Token>,
    /// How many descriptors the round may still handle.
    places: usize,
    /// The last report had room left, so it named all ready entries.
    is_complete: bool,
    /// Such a report was made in this call.
    is_fresh: bool,
}

impl Round {
    /// A round with reports that have room for `batch` entries.
    pub(crate) fn new(batch: usize) -> Round {
        Round {
            began: Instant::ZERO,
            is_open: false,
            is_handled: true,
            waiting: VecDeque::with_capacity(2 * batch),
            unfinished: Vec::with_capacity(batch),
            batch: Vec::with_capacity(batch),
            places: 0,
            is_complete: true,
            is_fresh: false,
        }
    }

    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// Begins a call, with a set of this many entries. Descriptors with more to read have another turn. A new round
    /// begins if nothing of the last one is left.
    pub(crate) fn begin(&mut self, now: Instant, entries: usize) {
        self.is_fresh = false;
        let left = self.places.saturating_sub(self.waiting.len());
        self.waiting.extend(self.unfinished.drain(..).take(left));
        let is_over = self.is_over();
        self.is_handled |= is_over;
        if !self.is_open {
            (self.began, self.is_open, self.is_handled) = (now, true, false);
        }
        if is_over {
            self.places = entries.saturating_add(REPEATS);
            self.is_complete = false;
        }
    }

    /// Ends a call. `more`: deadlines or requests of the round are left. Returns whether any work of it is.
    pub(crate) fn end(&mut self, more: bool) -> bool {
        self.is_handled |= self.is_over();
        self.is_open = more || !self.is_handled;
        self.is_open
    }

    fn is_over(&self) -> bool {
        let is_all_reported = self.is_complete || self.places == 0;
        self.waiting.is_empty() && self.unfinished.is_empty() && is_all_reported
    }

    /// This descriptor has more to read: it has another turn in the next call.
    pub(crate) fn repeat(&mut self, token: Token) {
        self.unfinished.push(token);
    }

    /// The next ready descriptor. `report` fills the buffer with ready entries.
    pub(crate) fn next(&mut self, report: impl FnOnce(&mut Vec<Token>) -> io::Result<()>) -> io::Result<Option<Token>> {
        if self.waiting.is_empty() && !self.is_complete && self.places > 0 {
            // After an error the next round asks again.
            self.is_complete = true;
            report(&mut self.batch)?;
            self.is_complete = self.batch.len() < self.batch.capacity();
            self.is_fresh = self.is_complete;
            self.waiting.extend(self.batch.drain(..).take(self.places));
        }
        let token = self.waiting.pop_front();
        self.places = self.places.saturating_sub(usize::from(token.is_some()));
        Ok(token)
    }

    /// Whether all that was ready when the call began is handled.
    pub(crate) fn is_fresh(&self) -> bool {
        self.is_fresh && self.is_over()
    }

    /// Whether anything is ready now.
    pub(crate) fn is_anything_ready(&mut self, report: impl FnOnce(&mut Vec<Token>) -> io::Result<()>) -> bool {
        let is_ready = report(&mut self.batch).is_err() || !self.batch.is_empty();
        self.batch.clear();
        is_ready
    }
}

/// A series of calls without a pause.
#[derive(Default)]
pub(crate) struct Streak {
    /// The beginning of the first call and the end of the last one.
    lasts: Option<(Instant, Instant)>,
    /// A round was completed in it.
    is_complete: bool,
}

impl Streak {
    pub(crate) fn begin(&mut self, now: Instant, patience: Duration) {
        let goes_on = |(_, ended)| now.saturating_duration_since(ended) < patience;
        if !self.lasts.is_some_and(goes_on) {
            (self.lasts, self.is_complete) = (Some((now, now)), false);
        }
    }

    /// Ends a call with this result. Returns whether the host has been kept for long enough.
    pub(crate) fn end(&mut self, progress: Progress, now: Instant, patience: Duration) -> bool {
        let (began, _) = self.lasts.unwrap_or((now, now));
        let is_enough = self.is_complete && now.saturating_duration_since(began) >= patience;
        self.is_complete |= progress == Progress::Done;
        let is_over = is_enough || progress == Progress::Nothing;
        self.lasts = (!is_over).then_some((began, now));
        is_enough && progress != Progress::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn token(number: u64) -> Token {
        Token::from_raw(1 << 32 | number)
    }

    /// A set with entries that are always ready, reported in rotation.
    struct Ready {
        tokens: VecDeque<Token>,
        reports: u32,
    }

    impl Ready {
        fn of(entries: u64) -> Ready {
            Ready {
                tokens: (0..entries).map(token).collect(),
                reports: 0,
            }
        }

        fn report(&mut self, tokens: &mut Vec<Token>) -> io::Result<()> {
            self.reports += 1;
            let room = tokens.capacity().min(self.tokens.len());
            tokens.extend(self.tokens.drain(..room));
            self.tokens.extend(tokens.iter());
            Ok(())
        }
    }

    fn next(round: &mut Round, ready: &mut Ready) -> Option<Token> {
        round.next(|tokens| ready.report(tokens)).unwrap()
    }

    #[test]
    fn a_round_handles_everything_that_was_ready_and_ends() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(10));
        let mut handled = Vec::new();
        for call in 0.. {
            round.begin(at(call), 10);
            assert_eq!(round.began(), at(0), "it is the same round");
            handled.extend((0..3).map_while(|_| next(&mut round, &mut ready)));
            if !round.end(false) {
                break;
            }
        }
        assert!((0..10).all(|number| handled.contains(&token(number))));
        assert!(handled.len() <= 10 + REPEATS);
        round.begin(at(1_000), 10);
        assert_eq!(round.began(), at(1_000), "another one");
    }

    #[test]
    fn a_report_with_room_left_ends_a_round() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(3));
        round.begin(at(0), 3);
        let handled: Vec<_> = std::iter::from_fn(|| next(&mut round, &mut ready)).collect();
        assert_eq!(handled, [0, 1, 2].map(token));
        assert!(!round.end(false) && round.is_fresh());
        assert_eq!(ready.reports, 1);
    }

    #[test]
    fn a_descriptor_with_more_to_read_keeps_a_round_open_until_it_is_read() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(1));
        for _ in 0..5 {
            round.begin(at(0), 1);
            assert_eq!(next(&mut round, &mut ready), Some(token(0)));
            round.repeat(token(0));
            assert_eq!(next(&mut round, &mut ready), None, "once in a call");
            assert!(round.end(false));
        }
        round.begin(at(0), 1);
        assert_eq!(next(&mut round, &mut ready), Some(token(0)));
        assert!(!round.end(false));
        assert!(!round.is_fresh(), "the report is from an earlier call");
    }

    #[test]
    fn a_flood_ends_a_round_all_the_same() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(1));
        let calls = (0..10_000).take_while(|_| {
            round.begin(at(0), 1);
            if let Some(token) = next(&mut round, &mut ready) {
                round.repeat(token);
            }
            round.end(false)
        });
        assert!(calls.count() <= REPEATS + 1);
    }

    #[test]
    fn deadlines_keep_a_round_open_and_descriptors_are_handled_meanwhile() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(2));
        for call in 0..3 {
            round.begin(at(call), 2);
            assert_eq!(next(&mut round, &mut ready), Some(token(0)));
            assert_eq!(next(&mut round, &mut ready), Some(token(1)));
            assert!(round.end(true));
            assert_eq!(round.began(), at(0));
        }
        assert_eq!(ready.reports, 3);
    }

    #[test]
    fn a_full_report_may_not_be_all_that_is_ready() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(4));
        round.begin(at(0), 4);
        let handled = (0..4).map_while(|_| next(&mut round, &mut ready)).count();
        assert!(handled == 4 && ready.reports == 1);
        assert!(round.end(false));
    }

    #[test]
    fn a_round_without_a_place_asks_for_no_report() {
        let (mut round, mut ready) = (Round::new(4), Ready::of(4));
        round.begin(at(0), 0);
        let handled = std::iter::from_fn(|| next(&mut round, &mut ready)).count();
        assert_eq!((handled, ready.reports), (REPEATS, REPEATS as u32 / 4));
        assert!(!round.end(false));
    }

    #[test]
    fn a_report_that_fails_may_hide_something_ready() {
        let mut round = Round::new(4);
        assert!(round.is_anything_ready(|tokens| {
            tokens.push(token(1));
            Ok(())
        }));
        assert!(!round.is_anything_ready(|_| Ok(())), "that report is forgotten");
        assert!(round.is_anything_ready(|_| Err(io::ErrorKind::Other.into())));
    }

    #[test]
    fn an_error_of_a_report_ends_it_for_this_call() {
        let mut round = Round::new(4);
        round.begin(at(0), 1);
        assert!(round.next(|_| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!(round.next(|_| Ok(())).unwrap(), None);
        assert!(!round.is_fresh());
    }

    #[test]
    fn a_host_is_let_go_when_a_round_is_complete_and_a_slice_is_over() {
        let mut streak = Streak::default();
        let mut call = |from: u64, to: u64, progress| {
            streak.begin(at(from), 5 * MS);
            streak.end(progress, at(to), 5 * MS)
        };
        // However long the first round takes, it is done to its end.
        assert!(!call(0, 6, Progress::More));
        assert!(!call(6, 12, Progress::More));
        assert!(!call(12, 13, Progress::Done));
        assert!(call(13, 14, Progress::More));
        // Then the next streak begins.
        assert!(!call(14, 15, Progress::Done));
        assert!(!call(15, 16, Progress::Done));
        assert!(call(16, 19, Progress::Done));
    }

    #[test]
    fn a_pause_ends_a_streak() {
        let mut streak = Streak::default();
        for turn in 0..20 {
            let began = at(turn * 10);
            streak.begin(began, 5 * MS);
            assert!(!streak.end(Progress::Done, began.saturating_add(MS), 5 * MS));
        }
    }

    #[test]
    fn a_gap_as_long_as_the_patience_is_a_pause() {
        let enough = |gap: u64| {
            let mut streak = Streak::default();
            streak.begin(at(0), 5 * MS);
            assert!(!streak.end(Progress::Done, at(1), 5 * MS));
            streak.begin(at(1 + gap), 5 * MS);
            streak.end(Progress::Done, at(1 + gap + 5), 5 * MS)
        };
        assert!(enough(4));
        assert!(
            !enough(5),
            "it is another streak, and its first round is done to the end"
        );
    }

    #[test]
    fn the_first_item_of_a_budget_is_free() {
        let mut budget = Budget::new(at(0), 2);
        assert!(budget.take(at(9)));
        assert!(!budget.take(at(9)), "the time is over");
        let mut budget = Budget::new(at(9), 2);
        assert!(budget.take(at(0)) && !budget.take(at(9)), "the time is over at its end");
        let mut budget = Budget::new(at(9), 2);
        assert!(budget.take(at(0)) && budget.take(at(8)));
        assert!(!budget.take(at(8)), "no item is left");
    }
}
