//! Datagrams that no node should have sent: garbage, cut short, with bits flipped,
//! too long, of another cluster, of strangers, of a former run or life, sent again.
//! No panic, no answer, no change of state, no memory; the cluster goes on.
//! And messages forged in a member's name, which a checksum cannot keep out, and a seal
//! not if a member itself lies: they may cost the cluster its leader, but no node its
//! thread.

#[macro_use]
#[path = "common/both.rs"]
mod both;
mod common;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use common::chance::Chance;
use common::forge::{Forger, HEAD, Head, Liar, SECRET, close, first_fragment, head_between, hello};
use common::machine::Tally;
use common::relay::Taped;
use common::{Cluster, Plan, answer, ask, ms, resident_mib, until};
use kontiki::{Request, RequestError};
use serde_json::{Value, json};

both!(
    garbage_is_dropped_in_silence,
    foreign_frames_change_nothing,
    hellos_of_nobody_are_not_answered_to_nobody,
    floods_of_first_fragments_take_no_memory,
    replays_change_nothing,
    a_former_life_stays_gone,
    an_earlier_cluster_does_not_come_back,
    forged_messages_make_no_node_panic
);

fn keys(sealed: bool, request_timeout_ms: u64) -> Value {
    let mut keys = json!({ "request_timeout_ms": request_timeout_ms });
    if sealed {
        keys["secret"] = json!(SECRET);
    }
    keys
}

fn cluster(seed: u64, sealed: bool) -> Cluster {
    let keys = keys(sealed, 40_000);
    let plan = Plan::voters(3).relay(seed).keys(keys);
    plan.dress(|config| config.state_machine(|_| Tally::default())).make()
}

/// A cluster of three with the tape of its founding, its first election and some
/// commits.
fn taped(seed: u64, sealed: bool) -> (Cluster, Vec<Taped>) {
    let cluster = cluster(seed, sealed);
    cluster.relay().start_tape();
    cluster.all().for_each(|node| node.start().expect("it starts"));
    for n in 0..9 {
        ask(cluster.node(n % 3), json!({"n": format!("taped {n}")}));
    }
    ask(cluster.node(0), Request::query(&()));
    cluster.commit_everywhere(1, json!({"n": "last taped"}));
    let tape = cluster.relay().take_tape();
    assert!(tape.len() > 20, "only {} datagrams on the tape", tape.len());
    (cluster, tape)
}

/// Nobody's sockets, which listen for answers that must not come.
struct Nobody(Vec<UdpSocket>);

impl Nobody {
    fn new(count: usize) -> Nobody {
        let socket = |_| {
            let socket = UdpSocket::bind(common::address()).expect("a socket");
            socket.set_nonblocking(true).expect("a socket that does not block");
            socket
        };
        Nobody((0..count).map(socket).collect())
    }

    fn send(&self, by: usize, datagram: &[u8], to: SocketAddr) {
        // What the system will not send is not what is tried here.
        let _ = self.0[by % self.0.len()].send_to(datagram, to);
    }

    #[track_caller]
    fn was_not_answered(&self) {
        for socket in &self.0 {
            let got = socket.recv_from(&mut [0; 100]);
            let silent = got.as_ref().is_err_and(|error| {
                matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused)
            });
            assert!(silent, "nobody was answered: {got:?}");
        }
    }
}

/// Commits through all nodes as long as the attack lasts, and at least so often;
/// gives how often it was.
fn commits_during(
    cluster: &Cluster,
    name: &str,
    least: u64,
    attack: impl FnOnce(&dyn Fn() -> u64) + Send,
) -> u64 {
    let over = AtomicBool::new(false);
    let commits = AtomicU64::new(0);
    let count = || commits.load(Ordering::SeqCst);
    std::thread::scope(|scope| {
        let attacker = scope.spawn({
            let over = &over;
            let count = &count;
            move || {
                // Also if it panics.
                struct End<'a>(&'a AtomicBool);
                impl Drop for End<'_> {
                    fn drop(&mut self) {
                        self.0.store(true, Ordering::SeqCst);
                    }
                }
                let _end = End(over);
                attack(&count);
            }
        });
        let mut n = 0;
        while !over.load(Ordering::SeqCst) || count() < least {
            let reply = ask(cluster.node(n % 3), json!({"n": format!("{name} {n}")}));
            assert_eq!(reply.value, json!(1));
            n += 1;
            commits.fetch_add(1, Ordering::SeqCst);
        }
        attacker.join().expect("the attack did not fail");
    });
    count()
}

/// Each node holds so many values, none of them twice, and the three voters are the
/// members that they were.
#[track_caller]
fn all_is_well(cluster: &Cluster, values: u64) {
    for place in 0..3 {
        let expected = json!({"values": values, "twice": [], "entries": values});
        assert_eq!(ask(cluster.node(place), Request::query(&())).value, expected);
        let members = cluster.knows(place).members;
        assert_eq!(members.len(), 3, "{members:?}");
        assert!(members.iter().all(|member| member.voter), "{members:?}");
    }
}

/// The values that `taped` commits.
const TAPED: u64 = 10;

/// Garbage at a high rate, of every length, and what is nearly right: cut short,
/// lengthened, with bits flipped, with another magic, version or seal, with parts
/// that are none, with messages of unknown kinds. No answer, no panic, and the
/// cluster goes on committing. Pitfalls 64, 66.
fn garbage_is_dropped_in_silence(sealed: bool) {
    let (cluster, tape) = taped(31, sealed);
    let nobody = Nobody::new(3);
    let commits = commits_during(&cluster, "garbage", 30, |commits| {
        let mut chance = Chance::new(31);
        let mut sent = 0_u64;
        while sent < 12_000 || (commits() < 30 && sent < 400_000) {
            let mut bytes = match chance.below(3) {
                0 => {
                    let length = [0, 1, 49, 50, 51, 52, 1_400, 60_000, 65_507][chance.below(9)];
                    let mut bytes = chance.bytes(length.min(3_000));
                    bytes.resize(length, 0x55);
                    bytes
                }
                _ => tape[chance.below(tape.len())].bytes.clone(),
            };
            match chance.below(6) {
                0 => bytes.truncate(chance.below(bytes.len() + 1)),
                1 => bytes.push(chance.draw() as u8),
                2 if !bytes.is_empty() => {
                    let bit = chance.below(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                // With a checksum that is right all the same, and for nobody: another
                // format, or a part that says nothing.
                3 if bytes.len() > HEAD => {
                    bytes[chance.below(6)] ^= 1 << chance.below(8);
                    close(&mut bytes);
                }
                4 if bytes.len() > HEAD => {
                    bytes.truncate(HEAD);
                    let rest = chance.below(80);
                    bytes.extend(chance.bytes(rest));
                    // From a life that nobody knows.
                    bytes[14..22].copy_from_slice(&chance.draw().to_le_bytes());
                    close(&mut bytes);
                }
                _ => bytes = chance.bytes(60),
            }
            let to = cluster.addresses[chance.below(3)];
            nobody.send(sent as usize, &bytes, to);
            sent += 1;
        }
    });
    all_is_well(&cluster, TAPED + commits);
    nobody.was_not_answered();
}

/// Frames in which all is right but the cluster, the sender's life or the
/// addressee's, with every kind of message in them: nothing comes of them.
/// Pitfall 64.
fn foreign_frames_change_nothing(sealed: bool) {
    let (cluster, tape) = taped(32, sealed);
    let nobody = Nobody::new(3);
    let commits = commits_during(&cluster, "foreign", 30, |commits| {
        let (mut liar, mut forger) = (Liar::new(32), Forger::new(sealed));
        let mut sent = 0_u64;
        while sent < 12_000 || (commits() < 30 && sent < 400_000) {
            let (from, to) = [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)][liar.chance.below(6)];
            let mut head = head_between(&tape, from, to);
            match liar.chance.below(6) {
                0 => head.cluster ^= 1 + liar.chance.draw() % 1_000,
                1 => head.cluster = 0,
                2 => head.from[0] ^= 1 + liar.chance.draw() % 1_000,
                3 => head.from[1] ^= 1 + liar.chance.draw() % 1_000,
                4 => head.to[0] ^= 1 + liar.chance.draw() % 1_000,
                _ => head.to[1] ^= 1 + liar.chance.draw() % 1_000,
            }
            // Who seals in a member's own run makes that member's own frames too old.
            if sealed && head.from[1] == head_between(&tape, from, to).from[1] {
                head.from[1] ^= 1 + liar.chance.draw() % 1_000;
            }
            let part = liar.message();
            nobody.send(sent as usize, &forger.message(&head, &part), cluster.addresses[to]);
            sent += 1;
        }
    });
    all_is_well(&cluster, TAPED + commits);
    nobody.was_not_answered();
}

/// A flood of hellos of lives that are nobody's, in the names of members and of
/// none: they are answered to the configured address of the name or not at all,
/// with no more bytes than came, and no life that exists is forgotten for them.
/// Pitfall 66.
fn hellos_of_nobody_are_not_answered_to_nobody(sealed: bool) {
    let (cluster, tape) = taped(33, sealed);
    let nobody = Nobody::new(3);
    let mut sent = 0_u64;
    let before = cluster.relay().passed();
    let begun = Instant::now();
    let commits = commits_during(&cluster, "hello", 30, |commits| {
        let (mut chance, mut forger) = (Chance::new(33), Forger::new(sealed));
        while sent < 6_000 || (commits() < 30 && sent < 400_000) {
            let place = chance.below(3);
            let known = head_between(&tape, (place + 1) % 3, place);
            let fresh = chance.below(2) == 0;
            let head = Head {
                cluster: if fresh { 0 } else { [known.cluster, chance.draw()][chance.below(2)] },
                from: [chance.draw(), chance.draw()],
                to: if chance.below(2) == 0 { [0, 0] } else { known.to },
            };
            let name = ["node0", "node1", "node2", "nobody"][chance.below(4)];
            let (question, echo) =
                (chance.draw() % 2 * chance.draw(), chance.draw() % 2 * chance.draw());
            let datagram = forger.message(&head, &hello(name, fresh, question, echo));
            nobody.send(sent as usize, &datagram, cluster.addresses[place]);
            sent += 1;
        }
    });
    let passed = cluster.relay().passed() - before;
    // Beside the answers: heartbeats and what the commits need.
    let own = begun.elapsed().as_secs() * 400 + 400 + commits * 40;
    assert!(passed <= sent + own, "{passed} datagrams for {sent} hellos and {commits} commits");
    all_is_well(&cluster, TAPED + commits);
    nobody.was_not_answered();
}

/// A flood of first fragments of messages that are never completed, from lives
/// that are nobody's: they take no memory. And of a member's own, forged: they
/// take no more than a bound. Pitfall 65.
fn floods_of_first_fragments_take_no_memory(sealed: bool) {
    let (cluster, tape) = taped(34, sealed);
    let nobody = Nobody::new(3);
    let memory = resident_mib();
    let fragment = vec![0x5a; 50_000];
    let commits = commits_during(&cluster, "fragment", 20, |commits| {
        let (mut chance, mut forger) = (Chance::new(34), Forger::new(sealed));
        let mut sent = 0_u64;
        while sent < 6_000 || (commits() < 20 && sent < 100_000) {
            let place = chance.below(3);
            let mut head = head_between(&tape, (place + 1) % 3, place);
            // Every third in a member's name, with numbers far above its own; if sealed, that
            // would make the member's own frames too old, and its links with them.
            if sealed || !sent.is_multiple_of(3) {
                head.from = [chance.draw(), chance.draw()];
            }
            let total = [60_000, 1 << 20, 30 << 20, 1 << 40, u64::MAX][chance.below(5)];
            let part = first_fragment((1 << 40) + sent, total, &fragment);
            nobody.send(sent as usize, &forger.message(&head, &part), cluster.addresses[place]);
            sent += 1;
        }
    });
    if let (Some(before), Some(after)) = (memory, resident_mib()) {
        // 300 MB of fragments were sent; other tests of this process take some, too.
        assert!(after < before + 150, "{before} MiB before, {after} MiB after");
    }
    all_is_well(&cluster, TAPED + commits);
    nobody.was_not_answered();
}

/// All that was ever said is said again, in any order and many times: to the same
/// runs, to later runs of all nodes, and while these start. Nothing comes twice, the
/// members stay, and the cluster goes on. Pitfalls 52, 64.
fn replays_change_nothing(sealed: bool) {
    let (cluster, tape) = taped(35, sealed);
    let mut chance = Chance::new(35);
    let mut replay = |cluster: &Cluster, count: usize| {
        for _ in 0..count {
            let Taped { to, bytes, .. } = &tape[chance.below(tape.len())];
            cluster.relay().inject(*to, bytes);
        }
    };
    let mut commits = commits_during(&cluster, "replay", 20, |_| replay(&cluster, 5_000));
    for round in 0..3 {
        cluster.all().for_each(kontiki::RaftNode::stop);
        for place in 0..3 {
            replay(&cluster, 200);
            cluster.node(place).start().expect("it starts again");
            replay(&cluster, 200);
        }
        let name = format!("replay {round}");
        commits += commits_during(&cluster, &name, 20, |_| replay(&cluster, 3_000));
    }
    all_is_well(&cluster, TAPED + commits);
}

/// What a node sent in a former life, and what was sent to it, comes late and
/// again, after another node took its place: the old life is not believed any
/// more, the new one stays what it is, and neither votes. Pitfalls 45, 52, 64.
fn a_former_life_stays_gone(sealed: bool) {
    let (mut cluster, mut tape) = taped(36, sealed);
    let mut chance = Chance::new(36);
    let leader = cluster.wait_leader();
    let lost = (leader + 1) % 3;
    cluster.relay().start_tape();
    cluster.lose(lost);
    cluster.renew(lost);
    cluster.wait_voter(lost);
    let life = Some(cluster.knows(lost).incarnation);
    let voters = |at: usize| {
        let members = cluster.knows(at).members;
        members.into_iter().filter(|member| member.voter).collect::<Vec<_>>()
    };
    let is_there = |at| voters(at).iter().any(|member| member.incarnation == life);
    until("the new life to vote, as all have it", || (0..3).all(is_there));
    // Also what was said while it was admitted.
    tape.extend(cluster.relay().take_tape());
    let commits = commits_during(&cluster, "former life", 40, |commits| {
        let mut sent = 0;
        while sent < 10_000 || (commits() < 40 && sent < 400_000) {
            let Taped { to, bytes, .. } = &tape[chance.below(tape.len())];
            cluster.relay().inject(*to, bytes);
            sent += 1;
        }
    });
    for place in 0..3 {
        let values = TAPED + commits;
        let expected = json!({"values": values, "twice": [], "entries": values});
        assert_eq!(ask(cluster.node(place), Request::query(&())).value, expected);
        assert_eq!(cluster.standing(place, lost), (1, 0));
        assert!(is_there(place) && voters(place).len() == 3, "{:?}", voters(place));
    }
    assert!(cluster.knows(lost).is_voter());
}

/// All that an earlier cluster said is said again to a later one at the same
/// addresses, from its first moment on: it is founded all the same, as a cluster of
/// its own. Pitfalls 47, 64.
fn an_earlier_cluster_does_not_come_back(sealed: bool) {
    let (mut cluster, tape) = taped(37, sealed);
    for place in 0..3 {
        cluster.lose(place);
    }
    let over = AtomicBool::new(false);
    for place in 0..3 {
        cluster.renew(place);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance::new(37);
            while !over.load(Ordering::SeqCst) {
                for _ in 0..20 {
                    let Taped { to, bytes, .. } = &tape[chance.below(tape.len())];
                    cluster.relay().inject(*to, bytes);
                }
                std::thread::sleep(ms(1));
            }
        });
        // A panic here must end the other thread, too.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for n in 0..30 {
                ask(cluster.node(n % 3), json!({"n": format!("later {n}")}));
            }
            all_is_well(&cluster, 30);
        }));
        over.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Messages of every kind, forged in a member's name, with numbers at which
/// something may turn over: a checksum cannot keep them out, and they may cost the
/// cluster its leader or its progress, or stop a node with a reason; but no node
/// panics. Pitfall 64.
fn forged_messages_make_no_node_panic(sealed: bool) {
    for seed in 0..8 {
        let keys = keys(sealed, 300);
        let cluster = Plan::voters(3).relay(38 + seed).keys(keys).make();
        cluster.relay().start_tape();
        cluster.all().for_each(|node| node.start().expect("it starts"));
        for place in 0..3 {
            cluster.commit_everywhere(place, json!(place));
        }
        let leader = cluster.wait_leader();
        let tape = cluster.relay().take_tape();
        let nobody = Nobody::new(1);
        let (mut liar, mut forger) = (Liar::new(38 + seed), Forger::new(sealed));
        liar.last_terms = seed % 4 == 0;
        for round in 0..100 {
            for _ in 0..20 {
                // In the names of all, of the leader, or of a follower.
                let from = match seed % 4 {
                    0 | 1 => liar.chance.below(3),
                    2 => leader,
                    _ => (leader + 1) % 3,
                };
                let to = (from + 1 + liar.chance.below(2)) % 3;
                let head = head_between(&tape, from, to);
                let part = liar.message();
                nobody.send(0, &forger.message(&head, &part), cluster.addresses[to]);
            }
            if round % 50 != 0 {
                std::thread::sleep(ms(1));
                continue;
            }
            // Each node has taken what was sent to it once it answers.
            for place in 0..3 {
                if let Ok(mut pending) = cluster.node(place).client_request(json!(round)) {
                    let _ = answer("a request amid forgeries", &mut pending);
                }
            }
        }
        for place in 0..3 {
            let ended = match cluster.node(place).client_request(json!(1)) {
                Ok(mut pending) => answer("a request after forgeries", &mut pending),
                Err(error) => Err(error),
            };
            if let Err(RequestError::Failed { reason, .. }) = ended {
                assert!(!reason.contains("panicked"), "seed {seed}, node {place}: {reason}");
            }
        }
        nobody.was_not_answered();
    }
}
