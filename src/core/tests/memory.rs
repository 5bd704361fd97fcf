//! Where memory is all that there is: one flush writes, and lets out what waits for that.

use super::super::Core;
use super::super::effect::{Effects, Outgoing};
use super::super::message::{AppendEntries, AppendOutcome, Envelope, Message, RequestVote};
use super::super::types::{Entry, Index, Payload, Time};
use super::world::{Plan, World};

/// What one flush lets out, and the first index that is new.
fn flushed(core: &mut Core, now: Time) -> (Vec<Message>, Option<Index>) {
    let mut effects = Effects::default();
    let first = core.flush_in_memory(now, &mut effects);
    let message = |outgoing: Outgoing| outgoing.envelope.message;
    (effects.sends.into_iter().map(message).collect(), first)
}

fn take(world: &World, from: usize, message: Message, core: &mut Core, now: Time) {
    let sender = world.core(from);
    let cluster = sender.hard().cluster.expect("it was founded");
    let envelope = Envelope { cluster, from: sender.me(), to: core.me(), message };
    core.receive(envelope, now).expect("it is taken");
}

#[test]
fn entries_are_acknowledged_by_the_flush_that_writes_them() {
    let world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let follower = (leader + 1) % 3;
    let (mut core, now) = (world.core(follower).clone(), world.clock(follower));
    let (term, last) = (core.term(), core.log().last_index());
    let entry = || Entry { term, payload: Payload::Client("x".into()) };
    let append = AppendEntries {
        term,
        seq: 1,
        prev_log_index: last,
        prev_log_term: core.log().last_term(),
        leader_commit: core.commit_index(),
        entries: vec![entry(), entry()],
    };
    take(&world, leader, Message::AppendEntries(append), &mut core, now);
    let end = last.next().next();
    let (sends, first) = flushed(&mut core, now);
    let [Message::AppendEntriesReply(reply)] = &sends[..] else { panic!("{sends:?}") };
    assert_eq!(
        (&reply.outcome, first),
        (&AppendOutcome::Matched { index: end }, Some(last.next()))
    );
    assert_eq!(flushed(&mut core, now), (vec![], None), "all is said");
}

/// The term and vote that a reply speaks for are written before it leaves.
#[test]
fn a_vote_is_given_by_the_flush_that_writes_it() {
    let world = World::founded(Plan::voters(3));
    let leader = world.leaders()[0];
    let (candidate, voter) = ((leader + 1) % 3, (leader + 2) % 3);
    let (mut core, now) = (world.core(voter).clone(), world.clock(voter));
    let log = core.log();
    let ask = RequestVote {
        term: core.term().next(),
        last_log_index: log.last_index(),
        last_log_term: log.last_term(),
        handed_over: true,
    };
    take(&world, candidate, Message::RequestVote(ask), &mut core, now);
    let (sends, first) = flushed(&mut core, now);
    let [Message::RequestVoteReply(reply)] = &sends[..] else { panic!("{sends:?}") };
    assert!(reply.granted && first.is_none());
}

/// Its own vote elects it, and its own log commits: each of the two is a write.
#[test]
fn who_is_alone_leads_and_commits_in_one_flush() {
    let world = World::founded(Plan::voters(1));
    let saved = world.core(0).clone().into_saved();
    let (setup, run) = (world.core(0).setup.clone(), world.core(0).me().run);
    let mut core = Core::new(setup, saved, run, 1, Time(0));
    let due = core.deadline();
    core.tick(due);
    let last = core.log().last_index();
    let (_, first) = flushed(&mut core, due);
    assert!(core.leads() && first == Some(last.next()));
    assert_eq!(core.applicable(), core.log().last_index());
    assert!(core.deadline() > due, "nothing is left to do");
}
