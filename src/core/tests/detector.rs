//! Who is up, decided once for all: what a leader may say, when, and that all hear it.

use super::super::effect::{Note, RoleName};
use super::super::message::{HeartbeatReply, Message, Wish};
use super::super::state::Role;
use super::super::types::{Payload, Protocol};
use super::membership::leader_seq;
use super::world::{Faults, Flight, MS, Plan, World};

pub(super) const TIMEOUT: u64 = 200 * MS;

/// A cluster whose members are all agreed to be up.
pub(super) fn all_up(plan: Plan) -> World {
    let mut world = World::founded(plan.judging());
    let count = world.nodes.len();
    world.run_until(1_000 * MS, "all to be up", |world| {
        (0..count).all(|at| (0..count).all(|of| is_up(world, at, of) == Some(true)))
    });
    // Up for so long that nobody relapses.
    world.run_for(7_000 * MS);
    world
}

/// What `at` knows to be agreed of `of`.
pub(super) fn is_up(world: &World, at: usize, of: usize) -> Option<bool> {
    let name = &world.nodes[of].name;
    world.core(at).verdicts().of(name).map(|agreed| agreed.up)
}

pub(super) fn turns(world: &World, at: usize) -> Vec<(String, bool, u64)> {
    let notes = world.nodes[at].notes.iter();
    let turn = |(_, _, note): &(_, _, Note)| match note {
        Note::Verdict(turn) => Some((turn.name.clone(), turn.up, turn.index.0)),
        _ => None,
    };
    notes.filter_map(turn).collect()
}

pub(super) fn turns_of(world: &World, at: usize, of: usize) -> Vec<bool> {
    let name = &world.nodes[of].name;
    let turns = turns(world, at).into_iter();
    turns.filter(|(member, _, _)| member == name).map(|(_, up, _)| up).collect()
}

/// How long until all that run know that `of` is down, or up.
pub(super) fn until(world: &mut World, of: usize, up: bool) -> u64 {
    world.run_until(20_000 * MS, "the verdict", |world| {
        let mut running = (0..world.nodes.len()).filter(|&at| world.is_up(at));
        running.all(|at| is_up(world, at, of) == Some(up))
    })
}

/// How long the leader has not heard `of`.
fn silent_for(world: &World, leader: usize, of: usize) -> u64 {
    let Role::Leader(leads) = &world.core(leader).role else { panic!("it leads") };
    world.clock(leader).since(leads.progress[&world.nodes[of].incarnation].contact_at)
}

#[test]
fn a_death_is_agreed_in_time() {
    let mut world = all_up(Plan::voters(3).learners(2));
    let leader = world.leaders()[0];
    for dead in [(leader + 1) % 3, 3] {
        world.crash(dead);
        let took = until(&mut world, dead, false);
        assert!(took <= TIMEOUT + 50 * MS, "{dead} died {took} us ago");
        world.start(dead);
        until(&mut world, dead, true);
    }
    world.run_for(1_000 * MS);
    world.crash(leader);
    let took = until(&mut world, leader, false);
    // An election takes up to 300 ms, and more if votes are split.
    assert!(took <= 500 * MS, "the leader died {took} us ago");
    let others: Vec<usize> = (0..3).filter(|place| *place != leader).collect();
    // One of the two was restarted, and passed through the first ones once more.
    let [one, other] = [0, 1].map(|at| turns(&world, others[at]));
    assert!(one.ends_with(&other) || other.ends_with(&one), "{one:?} {other:?}");
}

/// A leader that was cut off with a minority accuses nobody, nor does one that has only
/// just lost its majority and looks from its own evidence.
#[test]
fn who_is_cut_off_accuses_nobody() {
    let mut world = all_up(Plan::voters(5));
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    world.isolate(&[leader, (leader + 1) % 5]);
    world.run_for(2_000 * MS);
    assert_eq!(world.core(leader).log().last_index(), before, "it wrote something");
    let other = world.nodes[(leader + 2) % 5].incarnation;
    assert!(!world.core(leader).suspects(world.clock(leader))(other));
    world.cut.clear();
    world.run_until(10_000 * MS, "all to be up", |world| {
        (0..5).all(|of| is_up(world, leader, of) == Some(true))
    });
}

/// Nor does one that hears many, and no majority of those that vote.
#[test]
fn learners_confirm_no_silence() {
    let mut world = all_up(Plan::voters(3).learners(4));
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    (0..3).filter(|of| *of != leader).for_each(|other| world.crash(other));
    while world.role(leader) == Some(RoleName::Leader) {
        world.run_for(MS);
        assert_eq!(world.core(leader).log().last_index(), before, "it wrote something");
    }
}

fn suspected_by(world: &World, at: usize) -> Vec<usize> {
    let suspects = world.core(at).suspects(world.clock(at));
    (0..world.nodes.len()).filter(|of| suspects(world.nodes[*of].incarnation)).collect()
}

/// A leader suspects whom it misses, and nobody else, before the cluster has agreed on it.
#[test]
fn who_is_missed_is_suspected() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    world.crash(3);
    let mut suspected = 0;
    while is_up(&world, leader, 3) == Some(true) {
        let missed = silent_for(&world, leader, 3) > 75 * MS;
        assert_eq!(suspected_by(&world, leader), Vec::from_iter(missed.then_some(3)));
        suspected += u64::from(missed);
        world.run_for(MS);
    }
    assert!(suspected > 100, "{suspected} ms");
}

/// A node that misses others for longer than the failure timeout, and a majority with them,
/// is cut off: it takes back what it suspected, though it leads, or follows, for a while yet.
#[test]
fn who_is_cut_off_suspects_nobody() {
    let mut world = all_up(Plan::voters(3).learners(4));
    let leader = world.leaders()[0];
    (0..7).for_each(|place| world.isolate(&[place]));
    let start = world.now;
    let mut late = 0;
    for _ in 0..400 {
        world.run_for(MS);
        for place in 0..7 {
            let any = !suspected_by(&world, place).is_empty();
            match world.now - start {
                ..40_000 => assert!(!any, "{place} misses nobody yet"),
                80_000..115_000 => assert!(any, "{place} misses somebody"),
                201_000.. => {
                    assert!(!any, "{place} is cut off");
                    late += u64::from(world.core(place).leader().is_some());
                }
                _ => {}
            }
        }
    }
    assert!(world.leaders() != [leader] && late > 100, "{late}");
}

/// Probes keep their pace, however much else is answered meanwhile.
#[test]
fn probes_keep_their_pace() {
    let mut world = all_up(Plan::voters(3));
    let leader = world.leaders()[0];
    let dead = (leader + 1) % 3;
    world.crash(dead);
    world.sent = Some(Vec::new());
    let end = world.now + 2 * TIMEOUT;
    while is_up(&world, leader, dead) == Some(true) {
        assert!(world.now < end, "nobody declares it");
        world.propose(leader, "something");
        world.run_for(MS / 4);
    }
    let probe = |flight: &&Flight| {
        flight.to == dead && matches!(flight.envelope.message, Message::Heartbeat(_))
    };
    let sent = world.sent.iter().flatten().filter(probe).count();
    // One every 5 ms from 75 ms on, and the heartbeats.
    assert!((20..=45).contains(&sent), "{sent} in {TIMEOUT} us");
}

/// Pitfall 70: a leader that slept, or whose clock jumped, finds all silent, and that is
/// its own silence.
#[test]
fn who_slept_accuses_nobody() {
    for slept in [300, 1_000, 10_000] {
        let mut world = all_up(Plan::voters(3).learners(1));
        let leader = world.leaders()[0];
        let before = turns(&world, leader).len();
        // Twice, the second time when it could not doubt itself anew.
        for pause in [0, 250 * MS] {
            world.run_for(pause);
            world.nodes[leader].ahead += slept * MS;
            world.run_for(MS);
        }
        world.run_for(2_000 * MS);
        for place in 0..4 {
            assert_eq!(turns(&world, place).len(), before, "after {slept} ms");
        }
    }
}

/// Cuts these off from the leader, in both directions.
fn cut(world: &mut World, leader: usize, others: &[usize]) {
    for other in others {
        world.cut.extend([(*other, leader), (leader, *other)]);
    }
}

/// A leader that looks late may have missed as much itself: it doubts what it finds, for
/// one failure timeout, though most others seem well.
#[test]
fn who_looks_late_doubts_itself() {
    for late in [false, true] {
        let mut world = all_up(Plan::voters(3).learners(1));
        let leader = world.leaders()[0];
        let before = turns(&world, leader).len();
        cut(&mut world, leader, &[3]);
        world.run_for(TIMEOUT - 10 * MS);
        if late {
            world.nodes[leader].ahead += 60 * MS;
        }
        world.run_for(60 * MS);
        world.cut.clear();
        world.run_for(1_000 * MS);
        assert_eq!(turns(&world, leader).len() == before, late);
    }
}

/// Nor are most dead at once, more likely than not: the same doubt.
#[test]
fn whom_most_leave_at_once_doubts_itself() {
    for most in [false, true] {
        let mut world = all_up(Plan::voters(3).learners(4));
        let leader = world.leaders()[0];
        let before = turns(&world, leader).len();
        cut(&mut world, leader, if most { &[3, 4, 5, 6] } else { &[3] });
        world.run_for(TIMEOUT - 10 * MS);
        world.cut.clear();
        cut(&mut world, leader, &[3]);
        world.run_for(80 * MS);
        world.cut.clear();
        world.run_for(1_000 * MS);
        assert_eq!(turns(&world, leader).len() == before, most);
    }
}

/// Those that are agreed to be down are silent, and no reason to doubt: whoever dies next is
/// declared in time.
#[test]
fn the_silence_of_the_dead_is_no_doubt() {
    let mut world = all_up(Plan::voters(3).learners(5));
    (3..7).for_each(|dead| world.crash(dead));
    for dead in 3..7 {
        until(&mut world, dead, false);
    }
    for _ in 0..4 {
        world.run_for(2_000 * MS);
        world.crash(7);
        let took = until(&mut world, 7, false);
        assert!(took <= TIMEOUT + 50 * MS, "it died {took} us ago");
        world.start(7);
        until(&mut world, 7, true);
    }
}

/// A doubt ends: a leader that is late for ever declares the dead nevertheless.
#[test]
fn self_doubt_ends() {
    let mut world = all_up(Plan::voters(5));
    let leader = world.leaders()[0];
    let dead = (leader + 1) % 5;
    world.crash(dead);
    for _ in 0..40 {
        world.run_for(20 * MS);
        world.nodes[leader].ahead += 70 * MS;
    }
    assert_eq!(is_up(&world, leader, dead), Some(false));
    let others = (0..5).filter(|of| *of != dead);
    assert!(others.into_iter().all(|of| is_up(&world, leader, of) == Some(true)));
}

/// Loss costs probes, and no verdict.
#[test]
fn loss_is_not_death() {
    for seed in 0..4 {
        let mut world = all_up(Plan::voters(3).learners(1).seed(seed));
        let leader = world.leaders()[0];
        let before = turns(&world, leader).len();
        world.faults = Faults { lost_percent: 10, ..Faults::NONE };
        world.run_for(120_000 * MS);
        assert_eq!(turns(&world, leader).len(), before, "seed {seed}");
        assert_eq!(world.leaders(), [leader]);
    }
}

/// Nobody is probed whom nobody misses.
#[test]
fn without_loss_nobody_is_probed() {
    let mut world = all_up(Plan::voters(3));
    world.sent = Some(Vec::new());
    world.run_for(3_000 * MS);
    let sent = world.sent.take().unwrap();
    let beats = sent.iter().filter(|of| matches!(of.envelope.message, Message::Heartbeat(_)));
    assert!((198..=202).contains(&beats.count()), "two members, every 30 ms");
}

/// A run that is over within the failure timeout was a death all the same.
#[test]
fn a_restart_is_a_down_and_an_up() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    for restarted in [(leader + 1) % 3, 3] {
        let before = turns_of(&world, leader, restarted).len();
        world.crash(restarted);
        world.run_for(20 * MS);
        world.start(restarted);
        world.run_until(2_000 * MS, "its new run to be up", |world| {
            turns_of(world, leader, restarted).len() == before + 2
        });
        assert_eq!(turns_of(&world, leader, restarted)[before..], [false, true]);
        until(&mut world, restarted, true);
        assert!(world.core(restarted).up_since().is_some());
    }
    // The leader comes back as the leader, or as whoever follows.
    let watcher = (leader + 1) % 3;
    world.run_for(7_000 * MS);
    let before = turns_of(&world, watcher, leader).len();
    world.crash(leader);
    world.start(leader);
    world.run_until(3_000 * MS, "its new run to be up", |world| {
        turns_of(world, watcher, leader).len() == before + 2
    });
    assert_eq!(turns_of(&world, watcher, leader)[before..], [false, true]);
}

/// Each relapse doubles the steady time that `up` needs, within a bound, until the member
/// stays up for long.
#[test]
fn relapses_need_more_patience() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    let restart = |world: &mut World| {
        world.crash(3);
        until(world, 3, false);
        world.start(3);
        until(world, 3, true)
    };
    let steady: Vec<u64> = (0..8).map(|_| restart(&mut world) / TIMEOUT).collect();
    assert_eq!(steady, [1, 2, 4, 8, 16, 32, 32, 32]);
    world.run_for(7_000 * MS);
    assert_eq!(restart(&mut world) / TIMEOUT, 1);
    assert_eq!(world.leaders(), [leader]);
}

/// The first entry of a term says that its leader is up, and so does no other leader for
/// it; who was not heard when it came is judged from then on.
#[test]
fn the_first_entry_of_a_term_declares_its_leader() {
    let mut world = all_up(Plan::voters(3));
    let leader = world.leaders()[0];
    world.crash(leader);
    world.run_until(2_000 * MS, "another leader", |world| {
        world.leader().is_some_and(|next| {
            world.core(next).commit_index() == world.core(next).log().last_index()
        })
    });
    let next = world.leader().unwrap();
    let core = world.core(next);
    let first = core.log().from(super::super::types::Index(1)).find(|(_, e)| e.term == core.term());
    let Some((_, entry)) = first else { panic!("it has an entry of its term") };
    let Payload::Protocol(Protocol::Verdict(verdict)) = entry.payload else { panic!("{entry:?}") };
    assert_eq!((verdict.life, verdict.up), (core.me(), true));
    assert_eq!(is_up(&world, next, 3 - leader - next), Some(true), "nobody accuses it");
}

/// The leader before is judged by what its successor last heard of it while it followed: its
/// death is agreed soon after the election, not a failure timeout later.
#[test]
fn the_dead_leader_was_silent_before_the_election() {
    for seed in 0..4 {
        let mut world = all_up(Plan::voters(3).learners(1).seed(seed));
        let leader = world.leaders()[0];
        world.crash(leader);
        world.run_until(2_000 * MS, "another leader", |world| !world.leaders().is_empty());
        let next = world.leaders()[0];
        let took = until(&mut world, leader, false);
        // It may be elected after 150 ms of silence, and the accused has a heartbeat's time.
        assert!(took <= 100 * MS, "seed {seed}: {took} us after the election");
        assert_eq!(turns_of(&world, next, 3), [true], "seed {seed}: nobody else is judged by that");
    }
}

/// Who led before is judged by what this node last heard of it while it followed, once: not
/// after it has led itself, and heard that one all the time.
#[test]
fn an_earlier_leader_is_judged_by_no_old_word() {
    let mut world = all_up(Plan::voters(3));
    let (first, next) = (world.leaders()[0], (world.leaders()[0] + 1) % 3);
    let to = world.nodes[next].name.clone();
    assert!(world.wish(first, Wish::Transfer { to }));
    world.run_until(1_000 * MS, "another leader", |world| world.leaders() == [next]);
    world.run_for(5_000 * MS);
    let before = turns_of(&world, next, first).len();
    // It steps down and is elected once more; the first one's disk is slow then.
    world.step(next, |core, now| {
        let term = core.term();
        core.become_follower(term, None, now, "is told to");
    });
    world.cut.insert((first, next));
    for other in (0..3).filter(|of| *of != next) {
        world.step(other, |core, _| core.leader_heard_at = None);
    }
    let heard = world.core(next).leader_heard_at;
    world.timeout(next);
    world.nodes[next].core.as_mut().expect("it runs").leader_heard_at = heard;
    world.run_until(100 * MS, "it to lead again", |world| world.leaders() == [next]);
    world.run_for(120 * MS);
    world.cut.clear();
    world.run_for(1_000 * MS);
    assert_eq!(turns_of(&world, next, first).len(), before);
}

/// The leader stalls while answers wait, and takes them in one after the other: that of the
/// accused, the last, is not too late.
#[test]
fn an_answer_that_waits_to_be_read_is_an_answer() {
    let mut world = all_up(Plan::voters(3));
    let leader = world.leaders()[0];
    let (paused, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let before = turns(&world, leader).len();
    world.cut.extend([(leader, paused), (paused, leader)]);
    world.run_for(TIMEOUT - 30 * MS);
    while silent_for(&world, leader, paused) < TIMEOUT {
        world.run_for(MS);
    }
    // The round has begun, and everybody hears it.
    world.cut.clear();
    world.run_for(2 * MS);
    let heard = world.take(|flight| flight.to == leader);
    let seq = leader_seq(&world, leader);
    let answer = |from: usize| {
        let log = world.core(from).log().last_index();
        let term = world.core(leader).term();
        Message::HeartbeatReply(HeartbeatReply { term, seq, matched: log, verified: log })
    };
    let answers = [(other, answer(other)), (paused, answer(paused))];
    drop(heard);
    world.now += 31 * MS;
    for (from, message) in answers {
        world.forge(from, leader, message).expect("it is a reply");
    }
    world.tick(leader);
    world.run_for(1_000 * MS);
    assert_eq!(turns(&world, leader).len(), before);
}

/// On a slow path an accusation waits for those that confirm it, and for nothing else.
#[test]
fn what_confirms_late_is_looked_at_when_it_comes() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    world.faults.latency = (21 * MS, 21 * MS);
    world.run_for(1_000 * MS);
    let before = world.core(leader).log().last_index();
    world.crash(3);
    let verdict = |world: &World| world.core(leader).log().last_index() > before;
    world.run_until(400 * MS, "a verdict", verdict);
    assert_eq!(silent_for(&world, leader, 3), TIMEOUT + 42 * MS, "silence, and there and back");
}

/// An accusation that was answered is over: the next one waits for a round of its own.
#[test]
fn each_silence_needs_a_round_of_its_own() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    let before = world.core(leader).log().last_index();
    cut(&mut world, leader, &[3]);
    world.run_until(300 * MS, "a round", |world| silent_for(world, leader, 3) > TIMEOUT + 5 * MS);
    world.cut.clear();
    world.run_for(1_000 * MS);
    assert_eq!(world.core(leader).log().last_index(), before, "it has answered in time");
    world.crash(3);
    let verdict = |world: &World| world.core(leader).log().last_index() > before;
    world.run_until(400 * MS, "a verdict", verdict);
    assert!(silent_for(&world, leader, 3) >= TIMEOUT + 30 * MS, "a heartbeat's time to answer");
}

/// A member that was removed and is added again counts as heard then.
#[test]
fn a_member_anew_is_judged_from_then_on() {
    let mut world = all_up(Plan::voters(3).learners(1));
    let leader = world.leaders()[0];
    let name = world.nodes[3].name.clone();
    let answered = |world: &World| world.answer(leader).is_some();
    assert!(world.wish(leader, Wish::Remove { name }));
    world.run_until(1_000 * MS, "its removal", answered);
    let wish = world.adding(3, false);
    assert!(world.wish(leader, wish));
    let named = |world: &World| world.core(leader).members().unwrap().named("d").is_some();
    world.run_until(1_000 * MS, "it to be named", named);
    world.cut.insert((3, leader));
    let before = turns_of(&world, leader, 3).len();
    world.run_for(TIMEOUT - 20 * MS);
    assert_eq!(turns_of(&world, leader, 3).len(), before);
    world.cut.clear();
    until(&mut world, 3, true);
    assert_eq!(turns_of(&world, leader, 3)[before..], [true]);
}

/// Who lost its memory comes back as another life under its name: that one was down, and
/// is up when it is heard steadily.
#[test]
fn a_life_that_is_replaced_is_down() {
    let mut world = all_up(Plan::voters(3));
    let leader = world.leaders()[0];
    let lost = (leader + 1) % 3;
    let before = turns_of(&world, leader, lost).len();
    world.crash(lost);
    world.forget(lost);
    world.start(lost);
    let incarnation = world.nodes[lost].incarnation;
    world.run_until(3_000 * MS, "the new life to be up", |world| {
        let agreed = world.core(leader).verdicts().of(&world.nodes[lost].name);
        agreed.is_some_and(|agreed| agreed.up && agreed.life.incarnation == incarnation)
    });
    assert_eq!(turns_of(&world, leader, lost)[before..], [false, true]);
    world.crash(lost);
    until(&mut world, lost, false);
}

/// Who was away passes through what it missed, in order; or, by a snapshot, to the present.
#[test]
fn who_was_away_hears_what_it_missed() {
    for compacts in [false, true] {
        let mut world = all_up(Plan::voters(5).learners(1));
        let leader = world.leaders()[0];
        let (away, dead, restarted) = ((leader + 1) % 5, (leader + 2) % 5, 5);
        world.isolate(&[away]);
        until_but(&mut world, away, away, false);
        world.crash(restarted);
        until_but(&mut world, away, restarted, false);
        world.start(restarted);
        until_but(&mut world, away, restarted, true);
        world.crash(dead);
        until_but(&mut world, away, dead, false);
        if compacts {
            // Nobody keeps the log for who is away for long.
            world.run_for(4_000 * MS);
            assert!(world.compact(leader));
        }
        let before = turns(&world, away).len();
        world.cut.clear();
        let caught_up = |world: &World| {
            world.core(away).commit_index() == world.core(leader).commit_index()
                && is_up(world, leader, away) == Some(true)
        };
        world.run_until(10_000 * MS, "it to be up", caught_up);
        let (all, missed) = (turns(&world, leader), &turns(&world, away)[before..]);
        assert_eq!(compacts, world.installs > 0);
        if compacts {
            let present = |place: usize| {
                let agreed = world.core(leader).verdicts().of(&world.nodes[place].name).unwrap();
                (world.nodes[place].name.clone(), agreed.up, agreed.index.0)
            };
            assert_eq!(missed[1..3], [present(restarted), present(dead)]);
        } else {
            assert_eq!(missed, &all[all.len() - missed.len()..]);
            assert_eq!(missed.len(), 5);
        }
        assert!(missed.is_sorted_by_key(|(_, _, index)| *index));
        let verdicts = |place: usize| world.core(place).verdicts().clone();
        assert_eq!(verdicts(away), verdicts(leader));
    }
}

/// Until all but one that run know.
fn until_but(world: &mut World, but: usize, of: usize, up: bool) {
    world.run_until(20_000 * MS, "the verdict", |world| {
        let mut running = (0..world.nodes.len()).filter(|&at| world.is_up(at) && at != but);
        running.all(|at| is_up(world, at, of) == Some(up))
    });
}
