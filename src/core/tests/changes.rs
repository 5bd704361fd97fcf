//! Members that come and go by request: what scripts show only clumsily.

use super::super::effect::{Note, RoleName};
use super::super::message::{
    AppendEntries, AppendEntriesReply, AppendOutcome, ChangeOutcome, Commit, Heartbeat,
    HeartbeatReply, Message, PreVote, PreVoteReply, RequestVote, RequestVoteReply, TimeoutNow,
    WhyNot, Wish,
};
use super::super::properties::Disk;
use super::super::state::{Hard, Refused, Role};
use super::super::types::{Index, Term};
use super::world::{Flight, MS, Plan, World};

/// A cluster of three, whose leader is `a`, and as many spares.
pub(super) fn three_and(spares: usize) -> World {
    let mut world = World::new(Plan::voters(3).spares(spares));
    (0..3).for_each(|place| world.start(place));
    world.run_until(1_000 * MS, "a leader", World::is_settled);
    assert_eq!(world.leaders(), [0]);
    world
}

fn remove(world: &mut World, asked: usize, place: usize) {
    let name = world.nodes[place].name.clone();
    assert!(world.wish(asked, Wish::Remove { name }));
}

pub(super) fn answered(world: &mut World, place: usize) -> ChangeOutcome {
    world.run_until(5_000 * MS, "an answer", |world| world.answer(place).is_some());
    world.answer(place).unwrap().outcome.clone()
}

pub(super) fn done(world: &mut World, place: usize) {
    let outcome = answered(world, place);
    assert!(matches!(outcome, ChangeOutcome::Done { .. }), "{outcome:?}");
}

fn was_told(world: &World, place: usize) -> bool {
    world.nodes[place].notes.iter().any(|(_, _, note)| matches!(note, Note::Removed(_)))
}

fn asks_for_votes(flight: &Flight) -> bool {
    matches!(flight.envelope.message, Message::PreVote(_) | Message::RequestVote(_))
}

/// A newcomer that remembers another cluster is refused, and its hello, which is still
/// being answered then, is nobody's any more: its name stands in no file and no log.
#[test]
fn a_newcomer_of_another_cluster_is_refused() {
    let mut world = three_and(1);
    let mut elsewhere = World::founded(Plan::voters(1).seed(9));
    elsewhere.propose(0, "elsewhere");
    let disk = elsewhere.disks[&elsewhere.nodes[0].incarnation].clone();
    assert_ne!(disk.hard.cluster, world.core(0).hard().cluster);
    let incarnation = world.nodes[3].incarnation;
    world.disks.insert(incarnation, disk);
    world.start(3);
    let wish = world.adding(3, true);
    assert!(world.wish(0, wish));
    assert_eq!(answered(&mut world, 0), ChangeOutcome::Refused(WhyNot::Foreign));
    assert_eq!(world.core(0).members().unwrap().members.len(), 3);
}

/// One log counts once: the folder of b, started under another name, is no fourth member.
#[test]
fn one_log_is_one_member() {
    let mut world = three_and(1);
    world.crash(1);
    world.nodes[3].incarnation = world.nodes[1].incarnation;
    world.start(3);
    for voter in [true, false] {
        let wish = world.adding(3, voter);
        assert!(world.wish(0, wish));
        let outcome = answered(&mut world, 0);
        assert_eq!(outcome, ChangeOutcome::Refused(WhyNot::AlreadyMember));
    }
}

/// A removed member asks nobody, so whoever speaks to it anew has to be asked by it all
/// the same: else what one lost echo leaves behind is silence for ever.
#[test]
fn who_is_added_again_and_missed_an_echo_finds_its_leader() {
    let mut world = three_and(0);
    world.run_for(1_000 * MS);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    world.run_for(100 * MS);
    assert_eq!(world.role(2), Some(RoleName::Removed));
    // The others are other runs by now, which c has not met.
    [0, 1].iter().for_each(|&place| world.crash(place));
    [0, 1].iter().for_each(|&place| world.start(place));
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    let leader = world.leader().unwrap();
    let wish = world.adding(2, true);
    assert!(world.wish(leader, wish));
    // c echoes and asks in its turn, and gets no answer before it is a member.
    let asks = |flight: &Flight| flight.from == 2 && flight.to == leader;
    world.run_until(1_000 * MS, "c to ask", |world| world.flights.values().any(asks));
    world.cut.insert((leader, 2));
    let named = |world: &World| world.core(leader).members().unwrap().named("c").is_some();
    world.run_until(1_000 * MS, "c to be a member", named);
    world.run_for(2_500 * MS);
    world.cut.clear();
    done(&mut world, leader);
}

/// The next leader believes a life of c's name that is long superseded: it asks after the
/// one that the members name, which may take itself for removed, and so asks nobody.
#[test]
fn a_leader_asks_after_the_life_that_is_named() {
    let mut world = three_and(0);
    world.run_for(1_000 * MS);
    // What b hears of c ends here.
    world.crash(2);
    world.forget(2);
    world.cut.insert((2, 1));
    world.start(2);
    let votes =
        |world: &World| world.core(0).members().unwrap().is_voter(world.nodes[2].incarnation);
    world.run_until(2_000 * MS, "c to be back", votes);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    world.run_until(1_000 * MS, "c to know", |world| was_told(world, 2));
    let wish = world.adding(2, true);
    assert!(world.wish(0, wish));
    let named = |world: &World| world.core(0).members().unwrap().named("c").is_some();
    world.run_until(1_000 * MS, "c to be a member", named);
    world.cut.insert((0, 2));
    world.run_until(1_000 * MS, "b to know", |world| {
        world.core(1).members() == world.core(0).members()
    });
    assert_eq!(world.role(2), Some(RoleName::Removed));
    world.crash(0);
    world.start(0);
    // They meet again, and b is the first to stand.
    world.run_for(10 * MS);
    world.timeout(1);
    world.run_until(1_000 * MS, "b to lead", |world| world.leaders() == [1]);
    world.run_for(1_000 * MS);
    world.cut.clear();
    world.run_until(3_000 * MS, "c to follow", World::is_settled);
    assert_eq!(world.leaders(), [1]);
}

/// Pitfall 43: who was cut off when it was removed, and comes back when all the others
/// are other runs, is told nevertheless.
#[test]
fn who_comes_back_to_strangers_is_told_that_it_was_removed() {
    let mut world = three_and(0);
    // By now all have heard of each other that none is fresh any more.
    world.run_for(1_000 * MS);
    world.isolate(&[2]);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    world.run_for(2_000 * MS);
    for place in [0, 1] {
        world.crash(place);
        world.start(place);
    }
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    world.run_for(30_000 * MS);
    world.cut.clear();
    world.run_until(5_000 * MS, "c to know", |world| was_told(world, 2));
    world.sent = Some(Vec::new());
    world.run_for(2_000 * MS);
    assert!(!world.sent.iter().flatten().any(asks_for_votes));
}

/// A leader writes a removal just when it is cut off from all others: a moment before it
/// had still heard them.
fn write_removal(world: &mut World, leader: usize, name: &str) {
    world.step(leader, |core, now| {
        let next = core.members().expect("it leads").without(name);
        core.append_members(next, now);
    });
}

/// What a program is told of the members is what is committed: the newest entry that
/// states them counts for the protocol as soon as it is appended, and may come to nothing.
#[test]
fn what_is_agreed_is_what_is_committed() {
    let mut world = three_and(0);
    let (agreed, before) = world.core(0).members_agreed().unwrap().clone();
    world.isolate(&[0]);
    write_removal(&mut world, 0, "c");
    assert_eq!(world.core(0).members().unwrap().members.len(), 2);
    assert_eq!(world.core(0).members_agreed(), Some(&(agreed, before)));
    world.cut.clear();
    world.run_until(1_000 * MS, "the removal", |world| was_told(world, 2));
    assert_eq!(world.core(0).members_agreed().unwrap().1.members.len(), 2);
}

/// Pitfall 43: a leader that was cut off wrote a change of its own that stands further on
/// than its own removal: it is told, and believes it.
#[test]
fn a_change_that_came_to_nothing_hides_no_removal() {
    let mut world = three_and(1);
    world.start(3);
    world.isolate(&[0]);
    world.propose(0, "lost");
    world.propose(0, "lost as well");
    write_removal(&mut world, 0, "c");
    let own = world.core(0).configurations.current_index();
    assert_eq!(own, Index(5));
    world.run_until(2_000 * MS, "another leader", |world| {
        world
            .leaders()
            .iter()
            .any(|&leader| leader != 0 && world.core(leader).commit_index() >= Index(3))
    });
    world.run_for(300 * MS);
    let leader = world.leader().unwrap();
    remove(&mut world, leader, 0);
    done(&mut world, leader);
    assert_eq!(world.core(leader).configurations.current_index(), Index(4));
    world.cut.clear();
    world.run_until(5_000 * MS, "a to know", |world| was_told(world, 0));
    assert_eq!(world.role(0), Some(RoleName::Removed));
}

/// An old folder that is put back is told that its time is over, also when the first
/// words to it are lost.
#[test]
fn an_old_folder_is_told_though_the_first_words_are_lost() {
    let mut world = three_and(0);
    world.crash(2);
    world.forget(2);
    world.start(2);
    world.run_until(2_000 * MS, "c to be back", World::is_settled);
    world.run_for(1_000 * MS);
    world.crash(2);
    world.put_back(2);
    world.start(2);
    let removed = |flight: &Flight| matches!(flight.envelope.message, Message::Removed(_));
    world.run_until(1_000 * MS, "the news", |world| {
        world.flights.values().filter(|flight| removed(flight)).count() == 2
    });
    assert_eq!(world.take(removed).len(), 2);
    world.run_until(5_000 * MS, "c to know", |world| was_told(world, 2));
    world.sent = Some(Vec::new());
    world.run_for(2_000 * MS);
    assert!(!world.sent.iter().flatten().any(asks_for_votes));
    assert_eq!((world.role(2), world.leaders()), (Some(RoleName::Removed), vec![0]));
}

fn acknowledges(flight: &Flight) -> bool {
    let message = &flight.envelope.message;
    matches!(message, Message::AppendEntriesReply(_) | Message::HeartbeatReply(_))
}

/// A voter whose name another life uses is gone, however lately it was heard: to remove
/// b while c has lost its memory would leave a with nobody to agree with, for ever.
#[test]
fn who_came_back_empty_is_no_majority_to_rely_on() {
    let mut world = World::founded(Plan::voters(3).learners(1));
    assert_eq!(world.leaders(), [0]);
    // A change is under way: the learner came back empty, and nobody has acknowledged it.
    let mut held = Vec::new();
    let mut hold = |world: &mut World| {
        for _ in 0..20 {
            world.run_for(MS);
            held.extend(world.take(|flight| flight.to == 0 && acknowledges(flight)));
        }
    };
    world.crash(3);
    world.forget(3);
    world.start(3);
    hold(&mut world);
    assert!(world.core(0).configurations.current_index() > world.core(0).commit_index());
    remove(&mut world, 0, 1);
    world.crash(2);
    world.forget(2);
    world.start(2);
    hold(&mut world);
    for flight in held.into_iter().filter(|flight| flight.from == 1) {
        world.arrive(flight);
    }
    // It waits until the new life votes.
    done(&mut world, 0);
    world.run_until(2_000 * MS, "healing", World::is_settled);
    let members = world.core(0).members().unwrap();
    assert!(members.is_voter(world.nodes[2].incarnation) && members.named("b").is_none());
}

/// A new leader relies on nobody that it has not heard: to remove b when a, which led, is
/// down would leave c alone with a.
#[test]
fn a_new_leader_relies_on_nobody_that_it_has_not_heard() {
    let mut world = three_and(0);
    world.crash(0);
    world.run_until(2_000 * MS, "a leader", |world| !world.leaders().is_empty());
    let leader = world.leader().unwrap();
    remove(&mut world, leader, 3 - leader);
    assert_eq!(answered(&mut world, leader), ChangeOutcome::Refused(WhyNot::NoMajorityLeft));
    assert!(world.propose(leader, "x"));
    world.run_for(50 * MS);
    assert_eq!(world.history.times_committed(b"x"), 1);
}

/// A request to stand that comes after the target was given up, in the term in which it
/// was sent: the target follows that leader, and takes over; nothing is lost by it.
#[test]
fn a_late_request_to_stand_loses_nothing() {
    let mut world = three_and(0);
    let asked = |flight: &Flight| matches!(flight.envelope.message, Message::TimeoutNow(_));
    assert!(world.wish(0, Wish::Transfer { to: "b".to_string() }));
    let mut late = Vec::new();
    while world.answer(0).is_none() {
        late.extend(world.take(asked));
        assert!(!world.propose(0, "too soon"), "nothing is taken meanwhile");
        world.run_until(50 * MS, "a request, or the end", |world| {
            world.flights.values().any(asked) || world.answer(0).is_some()
        });
    }
    assert_eq!(answered(&mut world, 0), ChangeOutcome::Refused(WhyNot::NotTakenOver));
    assert!(world.propose(0, "precious"));
    world.run_for(10 * MS);
    assert_eq!(world.leaders(), [0]);
    for flight in late {
        world.arrive(flight);
    }
    world.run_until(100 * MS, "b to lead", |world| world.leaders() == [1] && world.is_settled());
    assert_eq!(world.core(1).term().0, 2, "it stood once");
    assert_eq!(world.history.times_committed(b"precious"), 1);
}

/// Thesis §4.2.3: who hears a leader keeps faith with it, whatever term a candidate
/// claims; unless that leader asked the candidate to stand.
#[test]
fn only_a_candidate_that_was_asked_to_stand_is_heard_beside_a_leader() {
    let mut world = three_and(0);
    let ask = |world: &World, handed_over| {
        let log = world.core(2).log();
        let (last_log_index, last_log_term) = (log.last_index(), log.last_term());
        let term = Term(7);
        Message::RequestVote(RequestVote { term, last_log_index, last_log_term, handed_over })
    };
    for place in [0, 1] {
        let message = ask(&world, false);
        world.forge(2, place, message).unwrap();
        assert_eq!(world.core(place).term(), Term(1));
    }
    assert_eq!(world.leaders(), [0]);
    for place in [0, 1] {
        let message = ask(&world, true);
        world.forge(2, place, message).unwrap();
        assert_eq!(world.core(place).hard().voted_for, Some(world.nodes[2].incarnation));
    }
}

/// Pitfall 43: whatever a removed member says to the leader is dropped, in every message
/// and in newer terms: it keeps leading.
#[test]
fn a_leader_hears_nothing_from_a_removed_member() {
    let mut world = three_and(0);
    // c was led by nobody since, and says what it likes.
    world.cut.extend([(0, 2), (1, 2)]);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    let term = Term(9);
    let (round, seq, index) = (1, 1, world.core(0).log().last_index());
    let matched = AppendOutcome::Matched { index };
    let (last_log_index, last_log_term) = (Index(99), Term(8));
    let ask = RequestVote { term, last_log_index, last_log_term, handed_over: true };
    let append = AppendEntries {
        term,
        seq,
        prev_log_index: Index(1),
        prev_log_term: Term(0),
        leader_commit: Index(0),
        entries: Vec::new(),
    };
    let heartbeat = Heartbeat { term, seq, leader_commit: Index(0), quorum_age_us: 0 };
    let messages = [
        Message::PreVote(PreVote { round, term, last_log_index, last_log_term }),
        Message::PreVoteReply(PreVoteReply { round, term, granted: false }),
        Message::RequestVote(ask),
        Message::RequestVoteReply(RequestVoteReply { term, granted: false }),
        Message::AppendEntries(append),
        Message::AppendEntriesReply(AppendEntriesReply { term, seq, outcome: matched }),
        Message::Heartbeat(heartbeat),
        Message::HeartbeatReply(HeartbeatReply { term, seq, matched: index, verified: index }),
        Message::Commit(Commit { term, leader_commit: index }),
        Message::TimeoutNow(TimeoutNow { term }),
    ];
    for message in messages {
        let what = format!("{message:?}");
        assert_eq!(world.forge(2, 0, message), Err(Refused::NoMember), "{what}");
        assert_eq!((world.leaders(), world.core(0).term()), (vec![0], Term(1)), "{what}");
    }
}

/// Pitfall 44: votes of one that was removed, and of a learner, make no majority, though
/// they are given.
#[test]
fn votes_of_removed_members_and_of_learners_do_not_count() {
    let mut world = World::founded(Plan::voters(3).learners(1));
    assert_eq!(world.leaders(), [0]);
    // The removal of c is in the logs of a and b, and committed nowhere.
    world.cut.extend([(1, 0), (2, 0)]);
    write_removal(&mut world, 0, "c");
    world.run_for(2 * MS);
    world.crash(0);
    world.cut.clear();
    world.step(1, |core, now| core.become_candidate(true, now));
    let term = world.core(1).term();
    for place in [2, 3] {
        let vote = Message::RequestVoteReply(RequestVoteReply { term, granted: true });
        world.forge(place, 1, vote).unwrap();
    }
    assert_eq!(world.role(1), Some(RoleName::Candidate));
    assert_eq!(world.leaders(), [] as [usize; 0]);
}

/// A member moves: it is removed, and added again where it lives now, with its memory.
/// The file of the others still has the old address.
#[test]
fn a_member_moves() {
    let mut world = three_and(1);
    world.crash(2);
    remove(&mut world, 0, 2);
    done(&mut world, 0);
    // Its folder is taken to where d would live.
    world.nodes[3].incarnation = world.nodes[2].incarnation;
    world.nodes[3].name = "c".to_string();
    world.nodes[2].name = "nobody".to_string();
    world.start(3);
    let wish = world.adding(3, true);
    assert!(world.wish(1, wish));
    done(&mut world, 1);
    world.run_until(1_000 * MS, "c to follow", World::is_settled);
    let member = world.core(0).members().unwrap().named("c").unwrap().clone();
    assert_eq!(member.incarnation, Some(world.nodes[3].incarnation));
    assert_eq!(member.address.port(), 4);
    // All restart with their files.
    [0, 1, 3].iter().for_each(|&place| world.crash(place));
    [0, 1, 3].iter().for_each(|&place| world.start(place));
    world.run_until(3_000 * MS, "a leader, followed by all", World::is_settled);
    world.crash(0);
    world.run_until(3_000 * MS, "another leader", |world| world.leaders().iter().any(|&l| l != 0));
}

/// Two wishes from two nodes, and the answers lost: whoever asks again hears what became
/// of its own, and nothing is done twice.
#[test]
fn what_is_asked_again_is_done_once() {
    let mut world = three_and(2);
    world.start(3);
    world.start(4);
    let wish = world.adding(3, true);
    assert!(world.wish(1, wish));
    let answers = |flight: &Flight| matches!(flight.envelope.message, Message::ChangeReply(_));
    world.run_until(2_000 * MS, "the answer", |world| world.flights.values().any(answers));
    world.take(answers);
    world.run_until(1_000 * MS, "d to follow", World::is_settled);
    let last = world.core(0).log().last_index();
    assert!(world.wish_again(1));
    done(&mut world, 1);
    assert_eq!(world.core(0).log().last_index(), last, "nothing was written for it");
    // The same to another leader, which has not answered it.
    assert!(world.wish(2, Wish::Remove { name: "d".to_string() }));
    world.run_until(2_000 * MS, "the answer", |world| world.flights.values().any(answers));
    world.take(answers);
    world.crash(0);
    world.run_until(3_000 * MS, "another leader", World::is_settled);
    let last = world.core(world.leader().unwrap()).log().last_index();
    assert!(world.wish_again(2));
    done(&mut world, 2);
    assert_eq!(world.core(2).log().last_index(), last, "nothing was written for it");
}

/// What was asked before may be done by now: who asks again while another wish is under
/// way is not told that nothing was changed.
#[test]
fn a_repeated_wish_is_not_refused_for_another() {
    let mut world = three_and(0);
    let answers = |flight: &Flight| matches!(flight.envelope.message, Message::ChangeReply(_));
    remove(&mut world, 1, 2);
    world.run_until(1_000 * MS, "the answer", |world| world.flights.values().any(answers));
    world.take(answers);
    world.crash(0);
    world.start(0);
    world.run_until(3_000 * MS, "a leader", World::is_settled);
    let leader = world.leader().unwrap();
    // Somebody asks for another that takes its time, and b asks again.
    let mut wish = world.adding(2, true);
    if let Wish::Add { address, .. } = &mut wish {
        address.set_port(9);
    }
    assert!(world.wish(0, wish));
    world.run_for(10 * MS);
    assert!(matches!(&world.core(leader).role, Role::Leader(l) if l.changing.is_some()));
    assert!(world.wish_again(1));
    world.run_for(10 * MS);
    assert_eq!(world.answer(1), None);
    assert!(matches!(answered(&mut world, 0), ChangeOutcome::Refused(WhyNot::Unreachable)));
    assert!(world.wish_again(1));
    done(&mut world, 1);
}

/// A learner asks nobody for votes: one that was cut off when it was removed asks who is
/// there, and is told.
#[test]
fn a_learner_that_was_cut_off_hears_that_it_was_removed() {
    let mut world = World::founded(Plan::voters(2).learners(1));
    world.run_for(2_000 * MS);
    world.isolate(&[2]);
    let leader = world.leader().unwrap();
    remove(&mut world, leader, 2);
    done(&mut world, leader);
    world.run_for(20_000 * MS);
    world.cut.clear();
    world.run_until(5_000 * MS, "c to know", |world| was_told(world, 2));
}

/// A cluster of three and `d`, which joined later, stands in no file but its own, and
/// leads.
fn led_by_a_newcomer() -> World {
    let mut world = three_and(1);
    world.start(3);
    let wish = world.adding(3, true);
    assert!(world.wish(0, wish));
    done(&mut world, 0);
    assert!(world.wish(0, Wish::Transfer { to: "d".to_string() }));
    world.run_until(1_000 * MS, "d to lead", |world| world.leaders() == [3] && world.is_settled());
    world.crash(1);
    world.forget(1);
    world
}

/// The same for one that remembers, and was down while that one came; be it a learner.
#[test]
fn who_was_down_while_the_leader_came_finds_it() {
    for (learners, place) in [(0, 1), (1, 3)] {
        let mut world = World::new(Plan::voters(3).learners(learners).spares(1));
        let newcomer = 3 + learners;
        (0..newcomer).for_each(|place| world.start(place));
        world.run_until(1_000 * MS, "a leader", World::is_settled);
        world.run_for(1_000 * MS);
        world.crash(place);
        world.start(newcomer);
        let wish = world.adding(newcomer, true);
        assert!(world.wish(0, wish));
        done(&mut world, 0);
        let to = world.nodes[newcomer].name.clone();
        assert!(world.wish(0, Wish::Transfer { to }));
        world.run_until(1_000 * MS, "the newcomer to lead", |world| {
            world.leaders() == [newcomer] && world.is_settled()
        });
        world.start(place);
        world.run_until(3_000 * MS, "its return", World::is_settled);
        assert_eq!(world.leaders(), [newcomer]);
    }
}

fn is_taken_back(world: &mut World, place: usize) {
    world.run_until(2_000 * MS, "its return", World::is_settled);
    world.run_for(100 * MS);
    assert_eq!(world.leaders(), [3]);
    assert!(world.core(3).members().unwrap().is_voter(world.nodes[place].incarnation));
}

/// A member loses its memory while one leads that its file does not name: the others tell
/// it who the members are, or it would not know the leader's name, and never be back.
#[test]
fn who_forgot_is_taken_back_by_a_leader_that_its_file_does_not_name() {
    let mut world = led_by_a_newcomer();
    world.start(1);
    is_taken_back(&mut world, 1);
}

/// The same where what admitted it was lost with a leader: it belongs to the cluster, is
/// fresh no more, and keeps asking those that it knows.
#[test]
fn who_was_admitted_in_vain_is_taken_back_by_such_a_leader() {
    let mut world = led_by_a_newcomer();
    let cluster = world.core(0).hard().cluster;
    let hard = Hard { cluster, term: Term(1), voted_for: None };
    let incarnation = world.nodes[1].incarnation;
    world.disks.insert(incarnation, Disk { hard, ..Disk::default() });
    world.start(1);
    is_taken_back(&mut world, 1);
}
