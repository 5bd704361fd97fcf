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
    pub(super) fn gather<E>(
        &mut self,
        mut take: impl FnMut() -> Result<usize, E>,
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
        let (mut came, began) = (requests, Instant::now());
        for _ in 0..TIMES {
            if came == 0 || requests >= ENOUGH {
                break;
            }
            std::thread::yield_now();
            came = take()?;
            requests += came;
            if began.elapsed() > AT_MOST {
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

    /// What was taken, and how many requests were left, after one turn.
    fn turn(courtesy: &mut Courtesy, coming: &[usize]) -> (usize, usize) {
        let mut coming = coming.iter().copied();
        let mut taken = 0;
        let Ok(()) = courtesy.gather(|| {
            let came = coming.next().unwrap_or(0);
            taken += came;
            Ok::<_, Infallible>(came)
        });
        (taken, coming.sum())
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
        let mut calls = 0;
        let Ok(()) = courtesy.gather(|| {
            calls += 1;
            std::thread::sleep(AT_MOST);
            Ok::<_, Infallible>(1)
        });
        assert!(calls <= 2, "{calls} times, each as long as all may take");
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
