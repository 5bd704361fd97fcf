//! Sessions: who opens one, what its numbers are worth, and when it ends.

use super::*;

#[test]
fn a_session_is_named_by_the_entry_that_opens_it() {
    let mut replica = replica();
    step(&mut replica, 1, &Step::Protocol);
    assert_eq!(step(&mut replica, 1, &open(1)), opened(2));
    assert_eq!(step(&mut replica, 1, &open(3)), [], "another node's session is its own affair");
    assert_eq!(step(&mut replica, 2, &open(1)), opened(2), "a life has one session");
    assert_eq!(step(&mut replica, 2, &command(2, 1, 3)), replied(2, 1, 5, 2, json!("xxx")));
    assert_eq!(step(&mut replica, 2, &command(3, 1, 4)), [], "applied, for another node");
    assert_eq!(newest(&replica), Some(6));
    assert_eq!(newest(&replica), Some(replica.applied().0));
    assert_eq!(replica.client_entries(), 5);
}

#[test]
fn numbers_are_applied_in_any_order_each_once() {
    let mut replica = replica();
    step(&mut replica, 1, &open(1));
    for seq in [5, 2, 9, 0] {
        let index = replica.applied().0 + 1;
        assert_eq!(
            step(&mut replica, 1, &command(1, seq, 1)),
            replied(1, seq, index, 1, json!("x"))
        );
    }
    for seq in [0, 9, 5, 2] {
        assert_eq!(step(&mut replica, 2, &command(1, seq, 7)), []);
    }
    assert_eq!(newest(&replica), Some(5));
}

#[test]
fn what_lies_below_the_floor_is_settled() {
    let mut replica = replica();
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &with_floor(1, 8, 6));
    assert_eq!(step(&mut replica, 1, &with_floor(1, 5, 5)), [], "below the floor");
    assert_eq!(step(&mut replica, 1, &with_floor(1, 6, 3)).len(), 1, "a floor never falls");
    step(&mut replica, 1, &Step::Renew { session: 1, floor: 20 });
    assert_eq!(step(&mut replica, 1, &with_floor(1, 19, 0)), []);
    assert_eq!(step(&mut replica, 1, &with_floor(1, 20, 0)).len(), 1);
    step(&mut replica, 1, &Step::Renew { session: 1, floor: u64::MAX });
    assert_eq!(step(&mut replica, 1, &with_floor(1, u64::MAX, 0)).len(), 1);
    assert_eq!(replica.state.sessions.places(), 1);
}

#[test]
fn a_number_too_far_above_the_floor_is_refused_and_stays_free() {
    let limits = Limits { window: 4, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &open(2));
    assert_eq!(step(&mut replica, 1, &command(1, 4, 1)), refused(1, 4));
    assert_eq!(step(&mut replica, 1, &command(1, u64::MAX, 1)), refused(1, u64::MAX));
    assert_eq!(step(&mut replica, 1, &command(2, 4, 1)), [], "not this node's");
    assert_eq!(newest(&replica), None);
    assert_eq!(step(&mut replica, 1, &command(1, 3, 1)).len(), 1);
    assert_eq!(step(&mut replica, 1, &with_floor(1, 4, 1)), replied(1, 4, 7, 1, json!("x")));
}

/// Pitfall 51: a session expires by the number of client entries, the same on
/// every node; a request that comes too late is refused and never run.
#[test]
fn a_session_expires_by_client_entries_alone() {
    let limits = Limits { session_span: 3, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    let mut other = replica_with(life(2), &limits);
    let log = [open(1), open(2), Step::Protocol, command(2, 0, 1), command(2, 1, 1)];
    for entry in &log {
        step(&mut replica, 1, entry);
        step(&mut other, 1, entry);
    }
    assert_eq!(replica.session_age(Index(1)), Some(3), "the protocol's own does not count");
    assert_eq!(step(&mut replica, 1, &command(2, 2, 1)), expired(1));
    assert_eq!(step(&mut other, 1, &command(2, 2, 1)).len(), 1, "its own reply, no more");
    assert_eq!(replica.session_age(Index(1)), None);

    assert_eq!(step(&mut replica, 1, &command(1, 0, 1)), expired(1));
    assert_eq!(step(&mut other, 1, &command(1, 0, 1)), []);
    assert_eq!(newest(&replica), Some(6), "it was not run");
    assert_eq!(replica.digest(), other.digest());

    assert_eq!(step(&mut replica, 1, &open(1)), opened(8), "the life opens a new one");
    assert_eq!(step(&mut replica, 1, &command(8, 0, 1)).len(), 1);
}

#[test]
fn whoever_is_named_within_the_span_lives_on() {
    let limits = Limits { session_span: 2, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    let touches = [
        Step::Renew { session: 1, floor: 0 },
        command(1, 0, 1),
        command(1, 0, 1), // a duplicate
        open(1),
    ];
    for touch in &touches {
        for other in [Step::Junk, Step::Junk] {
            assert_eq!(step(&mut replica, 1, &other), []);
        }
        step(&mut replica, 1, touch);
        assert_eq!(replica.session_age(Index(1)), Some(0), "{touch:?}");
    }
    step(&mut replica, 1, &Step::Junk);
    step(&mut replica, 1, &Step::Junk);
    assert_eq!(step(&mut replica, 1, &Step::Junk), expired(1));
    assert_eq!(replica.unreadable(), 11);
}

#[test]
fn where_sessions_are_many_the_one_untouched_for_longest_makes_room() {
    let limits = Limits { sessions: 2, ..Limits::default() };
    let mut replica = replica_with(life(1), &limits);
    step(&mut replica, 1, &open(1));
    step(&mut replica, 1, &open(2));
    step(&mut replica, 1, &Step::Renew { session: 1, floor: 0 });
    assert_eq!(step(&mut replica, 1, &open(3)), []);
    assert_eq!(replica.session_age(Index(2)), None);
    assert_eq!(step(&mut replica, 1, &open(4)), expired(1));
    assert_eq!(step(&mut replica, 1, &command(1, 0, 1)), expired(1));
}

/// Pitfall 52: a session belongs to a run. After a restart the numbers begin
/// anew in a new session, and late entries of the old run do not collide.
#[test]
fn a_restarted_node_never_meets_its_old_numbers() {
    let (before, after) = (life(1), life(2));
    assert_eq!(before.incarnation, after.incarnation);
    let mut replica = replica_with(after, &Limits::default());
    step(&mut replica, 1, &Step::Open(before));
    step(&mut replica, 1, &command(1, 0, 1));
    assert_eq!(step(&mut replica, 2, &Step::Open(after)), opened(3));
    assert_eq!(step(&mut replica, 2, &command(3, 0, 2)), replied(3, 0, 4, 2, json!("xx")));
    assert_eq!(step(&mut replica, 2, &command(1, 1, 1)), [], "the old run's, and applied");
    assert_eq!(newest(&replica), Some(5));
    assert_eq!(step(&mut replica, 2, &command(3, 1, 1)).len(), 1);
}
