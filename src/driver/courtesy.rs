//! When a node lets its clients go on first.
//!
//! Who asks has perhaps more to ask: it is about to, on another core, or it was cut short
//! where it shares this one with the node that it woke. What is asked together leaves
//! together, in one datagram instead of many, and is answered together, so that it is
//! asked together again.

use std::time::{Duration, Instant};

/// So often is one request alone taken as it is, after it was of no use to give way for
/// it: its client has no more to ask before it is answered. And so often all that comes,
/// where others kept the core.
const AT_ONCE: u32 = 32;
/// So many leave together that a datagram more costs little.
const ENOUGH: usize = 64;
/// So often in a turn are others given way, and for so long: a busy machine must not
/// keep a leader from its heartbeats.
const TIMES: u32 = 16;
const AT_MOST: Duration = Duration::from_micros(500);

/// Whether it has been of use of late.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    /// So many turns with one request go by before others are given way again.
    at_once: u32,
    /// So many turns with any.
    at_once_all: u32,
}

impl Courtesy {
    /// Calls `take`, which says how many requests came; and, as long as some do, again
    /// after others were given way.
    pub(super) fn gather<E>(&mut self, take: impl FnMut() -> Result<usize, E>) -> Result<(), E> {
        let mut began = None;
        self.gather_while(take, || {
            let began = began.get_or_insert_with(Instant::now);
            std::thread::yield_now();
            began.elapsed()
        })
    }

    /// `give_way` lets others go on, and says for how long it did by now.
    fn gather_while<E>(
        &mut self,
        mut take: impl FnMut() -> Result<usize, E>,
        mut give_way: impl FnMut() -> Duration,
    ) -> Result<(), E> {
        let mut requests = take()?;
        if requests == 0 {
            return Ok(());
        }
        let left = if requests == 1 { &mut self.at_once } else { &mut self.at_once_all };
        if *left > 0 {
            *left -= 1;
            return Ok(());
        }
        let mut came = requests;
        for _ in 0..TIMES {
            if came == 0 || requests >= ENOUGH {
                break;
            }
            let away = give_way();
            came = take()?;
            requests += came;
            if away > AT_MOST {
                (self.at_once, self.at_once_all) = (AT_ONCE, AT_ONCE);
                return Ok(());
            }
        }
        self.at_once = if requests == 1 { AT_ONCE } else { 0 };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What was taken, and how many requests were left, after one turn in which others had
    /// the core for so long whenever they were given way.
    fn turn_beside(away: Duration, courtesy: &mut Courtesy, coming: &[usize]) -> (usize, usize) {
        let mut coming = coming.iter().copied();
        let mut taken = 0;
        let take = || {
            let came = coming.next().unwrap_or(0);
            taken += came;
            Ok::<_, Infallible>(came)
        };
        let Ok(()) = courtesy.gather_while(take, || away);
        (taken, coming.sum())
    }

    fn turn(courtesy: &mut Courtesy, coming: &[usize]) -> (usize, usize) {
        turn_beside(Duration::ZERO, courtesy, coming)
    }

    #[test]
    fn requests_are_waited_for_while_they_come_and_until_they_are_enough() {
        let mut courtesy = Courtesy::default();
        assert_eq!(turn(&mut courtesy, &[0, 5]), (0, 5), "who was not asked does not wait");
        assert_eq!(turn(&mut courtesy, &[2, 3, 1, 0, 4]), (6, 4));
        assert_eq!(turn(&mut courtesy, &[60, 3, 1, 7]), (64, 7));
        assert_eq!(turn(&mut courtesy, &[65, 1]), (65, 1));
        let (taken, _) = turn(&mut courtesy, &[1; 100]);
        assert!(taken <= TIMES as usize + 1, "{taken} times in one turn");
    }

    #[test]
    fn nobody_keeps_a_node_for_long() {
        let mut courtesy = Courtesy::default();
        assert_eq!(turn_beside(2 * AT_MOST, &mut courtesy, &[2, 3, 4]), (5, 4));
        for _ in 0..AT_ONCE {
            assert_eq!(turn(&mut courtesy, &[2, 2]), (2, 2), "others keep the core");
        }
        assert_eq!(turn(&mut courtesy, &[2, 2]), (4, 0), "and it is tried again");
    }

    #[test]
    fn one_client_that_waits_for_each_answer_is_served_at_once() {
        let mut courtesy = Courtesy::default();
        assert_eq!(turn(&mut courtesy, &[1, 0, 1]), (1, 1), "it is tried");
        for _ in 0..AT_ONCE {
            assert_eq!(turn(&mut courtesy, &[1, 1]), (1, 1), "it was of no use");
        }
        assert_eq!(turn(&mut courtesy, &[1, 1, 0]), (2, 0), "and is tried again");
        assert_eq!(turn(&mut courtesy, &[1, 1, 0]), (2, 0), "as long as it is of use");
    }
}
