//! One peer's progress, rule by rule.

use super::super::membership::Membership;
use super::super::types::ClusterId;
use super::*;

fn replicating() -> Progress {
    let mut progress = Progress::new(Index(0), Time(0));
    progress.on_sent(1, Index(0), 50, Time(0));
    progress.on_matched(1, Index(0), Time(1_000));
    progress
}

/// Pitfall 21: late, repeated and reordered replies never move match_index
/// back, and next_index stays above it (pitfall 28). Every order of five
/// replies, each given twice.
#[test]
fn replies_in_any_order_and_twice_end_at_the_same_place() {
    fn orders(rest: Vec<u64>) -> Vec<Vec<u64>> {
        if rest.is_empty() {
            return vec![vec![]];
        }
        let mut all = vec![];
        for (place, &first) in rest.iter().enumerate() {
            let mut others = rest.clone();
            others.remove(place);
            for mut order in orders(others) {
                order.insert(0, first);
                all.push(order);
            }
        }
        all
    }
    for order in orders(vec![2, 3, 4, 5, 6]) {
        let mut progress = replicating();
        for seq in 2..=6 {
            progress.on_sent(seq, Index(seq), 100, Time(2_000));
        }
        let mut highest = Index(0);
        for seq in order.iter().chain(order.iter().rev()) {
            progress.on_matched(*seq, Index(*seq), Time(3_000));
            highest = highest.max(Index(*seq));
            assert_eq!(progress.match_index(), highest);
        }
        assert_eq!(progress.next_index(), Index(7));
        assert_eq!(progress.deadline(), None, "nothing is left under way");
    }
}

/// Whatever is sent, answered, refused, lost and given up, in any order: what is
/// under way is what a naive list says, and it stays within the window.
#[test]
fn what_is_under_way_is_what_a_naive_list_says() {
    for seed in 0..500 {
        let mut rng = crate::core::rng::Rng::new(seed);
        let mut progress = Progress::new(Index(0), Time(0));
        let (mut seq, mut end, mut now) = (0, 0, 0);
        // All that ever left, and what of it nobody has answered or given up.
        let mut left: Vec<Sent> = Vec::new();
        let mut list: Vec<Sent> = Vec::new();
        for _ in 0..200 {
            now += rng.between(0, 40_000);
            let probing = matches!(progress.state, State::Probe { .. });
            match rng.between(0, 5) {
                0 | 1 => {
                    end += rng.between(0, 3);
                    if progress.may_send(progress.next_index() <= Index(end)) {
                        seq += 1;
                        let (first, again) = progress.next_append();
                        let last = again.unwrap_or(Index(end.max(first.previous().0)));
                        let place = list.iter().position(|sent| Some(sent.last) == again);
                        assert_eq!(place.is_some(), again.is_some(), "seed {seed}: not under way");
                        let before =
                            place.map(|place| place.checked_sub(1).map(|place| list[place]));
                        if let Some(before) = before {
                            let before = before.map_or(progress.match_index(), |sent| sent.last);
                            assert_eq!(first, before.next(), "seed {seed}: it begins where it did");
                        }
                        let new = rng.between(1, 60_000) as usize;
                        let bytes = place.map_or(new, |place| list[place].bytes);
                        let sent = Sent { seq, last, bytes, at: Time(now) };
                        progress.on_sent(seq, last, new, Time(now));
                        left.push(sent);
                        match place {
                            Some(place) => list[place] = sent,
                            None => list.push(sent),
                        }
                    }
                }
                2 | 3 if !left.is_empty() => {
                    let sent = left[rng.between(0, left.len() as u64 - 1) as usize];
                    let before = progress.match_index();
                    progress.on_matched(sent.seq, sent.last, Time(now));
                    assert_eq!(progress.match_index(), before.max(sent.last));
                    let replicates = matches!(progress.state, State::Replicate(_));
                    list.retain(|other| other.last > progress.match_index());
                    if probing && replicates {
                        list.clear();
                    }
                }
                4 if !left.is_empty() => {
                    let sent = left[rng.between(0, left.len() as u64 - 1) as usize];
                    let agree = progress.match_index();
                    progress.on_mismatch(sent.seq, sent.last, agree, Time(now));
                    if matches!(progress.state, State::Probe { .. }) {
                        list.clear();
                    }
                }
                _ if progress.on_tick(Time(now)) => list.clear(),
                _ => {}
            }
            if let State::Replicate(pipeline) = &progress.state {
                let bytes = pipeline.bytes();
                assert_eq!(pipeline.sent(), list, "seed {seed}");
                assert_eq!(bytes, list.iter().map(|sent| sent.bytes).sum::<usize>(), "seed {seed}");
                assert!(bytes < WINDOW_MOST + 60_000, "seed {seed}: {bytes} under way");
            }
            progress.check();
        }
    }
}

/// A probe that nobody answers is repeated where it was: it does not go back to the
/// start of the log.
#[test]
fn an_unanswered_probe_asks_the_same_again() {
    let mut progress = Progress::new(Index(1_000), Time(0));
    progress.on_sent(1, Index(1_001), 50, Time(0));
    assert!(progress.on_tick(progress.deadline().expect("an answer is awaited")));
    assert_eq!(progress.next_index(), Index(1_001));
}

/// A path that became slow is measured by the answers to what was given up: else
/// each append would be given up for ever.
#[test]
fn a_path_that_became_slow_is_measured() {
    let mut progress = Progress::new(Index(0), Time(0));
    progress.on_sent(1, Index(1), 50, Time(0));
    progress.on_matched(1, Index(1), Time(1_000));
    progress.on_sent(2, Index(2), 50, Time(10_000));
    assert!(progress.on_tick(Time(60_000)), "it was quick before");
    progress.on_sent(3, Index(2), 50, Time(60_000));
    progress.on_matched(2, Index(2), Time(90_000));
    progress.on_sent(4, Index(3), 50, Time(100_000));
    let patience = progress.deadline().expect("an answer is awaited").since(Time(100_000));
    assert!(patience > 80_000, "an answer takes 80 ms, {patience} us are waited");
}

/// Pitfall 22: a stale rejection winds progress back after a later success.
#[test]
fn a_rejection_of_what_is_no_longer_under_way_changes_nothing() {
    let mut progress = replicating();
    progress.on_sent(2, Index(5), 100, Time(0));
    progress.on_sent(3, Index(9), 100, Time(0));
    progress.on_matched(3, Index(9), Time(1_000));
    assert!(!progress.on_mismatch(2, Index(0), Index(0), Time(2_000)));
    assert!(!progress.on_mismatch(7, Index(20), Index(3), Time(2_000)), "never sent");
    assert_eq!((progress.match_index(), progress.next_index()), (Index(9), Index(10)));
}

fn sent_a_snapshot() -> (Progress, SnapshotId) {
    let id = SnapshotId { index: Index(9), length: 10_000, ..SnapshotId::default() };
    let members = Membership::new(ClusterId(1), Vec::new());
    let data = Bytes::from(vec![7; 10_000]);
    let snapshot =
        Snapshot { id, members_index: Index(1), members, verdicts: Default::default(), data };
    let mut progress = Progress::new(Index(9), Time(0));
    progress.become_snapshot(&snapshot);
    (progress, id)
}

/// The same for pieces of a snapshot: else one at a time would travel for ever.
#[test]
fn a_path_that_became_slow_is_measured_by_pieces() {
    let (mut progress, id) = sent_a_snapshot();
    progress.next_piece(1_000, 1, Time(0)).expect("a piece");
    progress.on_received(1, id, 1_000, Time(1_000));
    progress.next_piece(1_000, 2, Time(10_000)).expect("a piece");
    assert!(progress.on_tick(Time(60_000)), "it was quick before");
    progress.next_piece(1_000, 3, Time(60_000)).expect("the same piece");
    progress.on_received(2, id, 2_000, Time(90_000));
    progress.next_piece(1_000, 4, Time(100_000)).expect("the next piece");
    let patience = progress.deadline().expect("an answer is awaited").since(Time(100_000));
    assert!(patience > 80_000, "an answer takes 80 ms, {patience} us are waited");
}

/// A peer that answers heartbeats and no piece of its snapshot is asked anew what it
/// has; else the transfer would wait for ever for what the peer does not keep.
#[test]
fn a_transfer_of_which_nothing_is_heard_begins_anew() {
    let (mut progress, id) = sent_a_snapshot();
    progress.next_piece(1_000, 1, Time(0)).expect("a piece");
    progress.on_received(1, id, 1_000, Time(1_000));
    progress.next_piece(1_000, 2, Time(1_000)).expect("a piece");
    let mut now = 1_000;
    while now < 5_000_000 {
        now += 30_000;
        progress.on_tick(Time(now));
        assert!(matches!(progress.state, State::Snapshot(_)), "after {now} us");
        progress.on_heartbeat_answer(1, Index(0), Time(now - 30_000));
        while progress.next_piece(1_000, 3, Time(now)).is_some() {}
    }
    progress.on_heartbeat_answer(1, Index(0), Time(now + 30_000));
    assert!(matches!(progress.state, State::Probe { .. }));
    assert_eq!(progress.next_index(), Index(10));
}

/// An answer that comes again is no news: it makes no room for more.
#[test]
fn a_repeated_answer_to_a_piece_widens_nothing() {
    let (mut progress, id) = sent_a_snapshot();
    let before = progress.window;
    for (seq, offset) in [(1, 0), (2, 1_000)] {
        let (_, at, piece) = progress.next_piece(1_000, seq, Time(0)).expect("a piece");
        assert_eq!((at, piece.len()), (offset, 1_000));
        for _ in 0..100 {
            progress.on_received(seq, id, offset + 1_000, Time(500));
        }
    }
    assert_eq!(progress.window, before + 2 * WINDOW_STEP);
}

/// A probe that was taken and is being written is not sent again.
#[test]
fn what_a_probe_carried_is_sent_once() {
    let mut progress = Progress::new(Index(5), Time(0));
    progress.on_sent(1, Index(8), 300, Time(0));
    progress.on_matched(1, Index(5), Time(1_000));
    assert_eq!((progress.match_index(), progress.next_index()), (Index(5), Index(9)));
    progress.on_matched(1, Index(8), Time(2_000));
    assert_eq!((progress.match_index(), progress.next_index()), (Index(8), Index(9)));
    assert_eq!(progress.deadline(), None);
}

#[test]
fn the_window_bounds_what_is_under_way() {
    let mut progress = replicating();
    let mut sent = 0;
    while progress.may_send(true) {
        sent += 1;
        progress.on_sent(1 + sent, Index(sent), 60_000, Time(0));
    }
    assert!(sent as usize * 60_000 <= WINDOW_START + 60_000, "{sent} datagrams");
    assert!(!progress.may_send(false));
    progress.on_matched(2, Index(1), Time(500));
    assert!(progress.may_send(true), "an answer makes room");
}

#[test]
fn a_dead_peer_is_probed_twice_and_then_only_when_it_is_heard() {
    let mut progress = replicating();
    progress.on_sent(2, Index(1), 100, Time(0));
    assert!(progress.on_tick(Time(1_000_000)));
    assert!(progress.may_send(true));
    progress.on_sent(3, Index(1), 100, Time(1_000_000));
    assert!(progress.on_tick(Time(2_000_000)));
    assert!(!progress.may_send(true), "nobody answers");
    assert_eq!(progress.deadline(), None);
    progress.on_heartbeat_answer(9, Index(0), Time(0));
    assert!(progress.may_send(true), "it lives");
}

#[test]
fn a_heartbeat_shows_what_was_lost_before_it() {
    let mut progress = replicating();
    progress.on_sent(2, Index(4), 100, Time(0));
    assert!(!progress.on_heartbeat_answer(3, Index(4), Time(0)), "it is there, if not yet durable");
    assert!(progress.on_heartbeat_answer(4, Index(2), Time(0)));
    assert_eq!(progress.next_append(), (Index(1), Some(Index(4))));
}

#[test]
fn who_has_all_and_verified_less_is_probed() {
    let mut progress = replicating();
    progress.on_sent(2, Index(4), 100, Time(0));
    progress.on_matched(2, Index(4), Time(1_000));
    assert!(!progress.may_send(false), "nothing to say");
    assert!(!progress.on_heartbeat_answer(3, Index(0), Time(0)), "nothing was lost");
    assert!(progress.may_send(false), "the logs are compared again");
    assert_eq!((progress.match_index(), progress.next_index()), (Index(4), Index(5)));
}

/// Entries 2 to `last` - 1 under way, one an append with the number after it; 1 matches.
fn sending_through(last: u64) -> Progress {
    let mut progress = replicating();
    progress.on_sent(2, Index(1), 100, Time(1_000));
    progress.on_matched(2, Index(1), Time(2_000));
    for seq in 3..=last {
        progress.on_sent(seq, Index(seq - 1), 100, Time(2_000));
    }
    progress
}

/// What `progress` sends again, each from its first to its last entry.
fn sent_again(progress: &mut Progress, mut seq: u64, now: Time) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    while let (first, Some(last)) = progress.next_append() {
        assert!(progress.may_send(false), "{first} to {last} is lost");
        progress.on_sent(seq, last, 100, now);
        all.push((first.0, last.0));
        seq += 1;
    }
    assert!(!progress.may_send(false), "nothing else is lost");
    all
}

/// What left before a refused append and was not refused is sent again, and nothing else:
/// nor does the peer hear a second time of what it refused.
#[test]
fn what_is_lost_is_sent_again_alone() {
    let mut progress = sending_through(8);
    // The appends 4 and 7 are lost; 3 arrived, and its answer is late.
    assert!(progress.on_mismatch(5, Index(3), Index(2), Time(3_000)));
    assert_eq!(sent_again(&mut progress, 9, Time(3_000)), [(3, 3)]);
    progress.on_mismatch(6, Index(4), Index(2), Time(3_000));
    progress.on_mismatch(8, Index(6), Index(2), Time(3_000));
    assert_eq!(sent_again(&mut progress, 10, Time(3_000)), [(6, 6)]);
    assert_eq!(progress.next_index(), Index(8), "and the rest goes on behind it");
    progress.on_matched(10, Index(7), Time(4_000));
    assert_eq!((progress.match_index(), progress.deadline()), (Index(7), None));
}

/// What is sent again may be lost again: what left after it shows it, and only that.
#[test]
fn what_is_lost_twice_is_sent_twice_again() {
    let mut progress = sending_through(5);
    progress.on_mismatch(4, Index(2), Index(1), Time(3_000));
    assert_eq!(sent_again(&mut progress, 6, Time(3_000)), [(2, 2)]);
    progress.on_mismatch(5, Index(3), Index(1), Time(3_000));
    assert!(sent_again(&mut progress, 7, Time(3_000)).is_empty(), "5 had left before it");
    progress.on_sent(7, Index(5), 100, Time(3_000));
    progress.on_mismatch(7, Index(4), Index(1), Time(4_000));
    assert_eq!(sent_again(&mut progress, 8, Time(4_000)), [(2, 2)]);
}

/// A peer need not hold what it refused: a heartbeat shows that it does not.
#[test]
fn what_is_not_held_after_all_is_sent_again() {
    let mut progress = sending_through(5);
    progress.on_mismatch(4, Index(2), Index(1), Time(3_000));
    progress.on_mismatch(5, Index(3), Index(1), Time(3_000));
    assert_eq!(sent_again(&mut progress, 6, Time(3_000)), [(2, 2)]);
    progress.on_heartbeat_answer(7, Index(1), Time(3_500));
    assert_eq!(sent_again(&mut progress, 8, Time(3_500)), [(2, 2)], "the others may be held");
    progress.on_matched(8, Index(2), Time(4_000));
    assert!(progress.on_heartbeat_answer(9, Index(2), Time(5_000)));
    assert_eq!(sent_again(&mut progress, 10, Time(5_000)), [(3, 3), (4, 4)]);
}

/// What continues all that matches has overtaken nothing: the logs differ.
#[test]
fn a_refusal_of_the_first_under_way_is_no_loss() {
    let mut progress = Progress::new(Index(5), Time(0));
    progress.on_sent(1, Index(5), 50, Time(0));
    progress.on_matched(1, Index(5), Time(1_000));
    progress.match_index = Index(2);
    progress.on_sent(2, Index(6), 100, Time(1_000));
    progress.on_sent(3, Index(7), 100, Time(1_000));
    assert!(progress.on_mismatch(2, Index(5), Index(3), Time(2_000)));
    assert!(matches!(progress.state, State::Probe { .. }));
    assert_eq!(progress.next_index(), Index(4));
}

/// A quarter of the window for the losses of a round trip; the next may take another.
#[test]
fn losses_of_one_round_trip_narrow_the_window_once() {
    let mut progress = sending_through(9);
    let before = progress.window;
    progress.on_mismatch(5, Index(3), Index(1), Time(3_000));
    assert_eq!(progress.window, before * 3 / 4);
    progress.on_mismatch(9, Index(7), Index(1), Time(3_000));
    assert_eq!(progress.window, before * 3 / 4, "6 to 8 left before the first was seen");
    sent_again(&mut progress, 10, Time(3_000));
    progress.on_sent(20, Index(9), 100, Time(3_000));
    progress.on_mismatch(20, Index(8), Index(1), Time(4_000));
    assert_eq!(progress.window, before * 3 / 4 * 3 / 4, "what was sent again was lost again");
}

/// What waits at the peer is answered with what it waited for: that says nothing of how
/// long an answer takes. The refusal does.
#[test]
fn what_waited_for_a_gap_measures_nothing() {
    let mut progress = sending_through(4);
    progress.on_mismatch(4, Index(2), Index(1), Time(4_000));
    sent_again(&mut progress, 5, Time(4_000));
    let measured = progress.round_trip;
    assert_eq!(measured.expect("by the refusal, too").0, (7 * 1_000 + 2_000) / 8);
    progress.on_matched(4, Index(3), Time(90_000));
    assert_eq!(progress.round_trip, measured);
}
