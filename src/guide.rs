//! How to use it, for what, and what to mind. There is no code in here.
//!
//! | you want | read |
//! |---|---|
//! | several nodes in one program | [`one_program`] |
//! | nodes in several processes or on several hosts, from one file | [`processes`] |
//! | to know who is up, in a larger program | [`failure_detector`] |
//! | strangers to have no say in the cluster, and none to read along | [`secrets`] |
//! | the right timeouts for your network | [`timeouts`] |
//! | a node to start that does not, or that starts and takes no part | [`no_start`] |
//! | to go to another version of the library, or of your program | [`upgrading`] |
//! | to know what it takes of memory, disk and network | [`sizing`] |
//!
//! The [page of the crate](crate) has a cluster of three in twenty lines, and the items
//! themselves say what they promise.

/// Several nodes in one program: for tests, for learning, for threads that must agree.
///
/// Each [`RaftNode`](crate::RaftNode) has an OS thread and a UDP socket of its own, so nodes
/// of one program speak to each other as those of several do. All can be made of one
/// [`Config`](crate::Config).
///
/// A test wants ports that nobody else has. It asks the system for them, all at once so that
/// they differ, and lets them go again when the nodes are about to take them:
///
/// ```
/// use kontiki::{BoxError, Config, RaftNode};
/// use serde_json::json;
/// use std::net::UdpSocket;
///
/// fn main() -> Result<(), BoxError> {
///     let names = ["ann", "ben", "cleo"];
///     let sockets = names.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
///     let addresses = sockets.map(|socket| socket.local_addr().unwrap());
///     let config = Config::new(names.into_iter().zip(addresses))?;
///
///     // What `events` gives begins now, so it is called before the nodes are made.
///     let events = config.events();
///     let [ann, ben, cleo] = names.map(|name| RaftNode::new(&config, name).unwrap());
///     for node in [&ann, &ben, &cleo] {
///         node.start()?;
///     }
///     ben.client_request(json!("hello"))?.wait()?;
///
///     // A node falls silent, as if it were gone. The other two are a majority.
///     ann.stop();
///     cleo.client_request(json!("without ann"))?.wait()?;
///
///     // It comes back with all that it knew, and is told what it missed.
///     ann.start()?;
///     let newest = ann.client_request(kontiki::Request::query(&()))?.wait()?;
///     assert_eq!(newest.value, json!("without ann"));
///     assert!(!events.is_empty());
///     Ok(())
/// }
/// ```
///
/// Mind:
///
/// - [`stop`](crate::RaftNode::stop) and [`start`](crate::RaftNode::start) keep a node's
///   memory; to drop it and make another forgets it. A forgotten voter is a lost one until
///   [`is_voter`](crate::Committed::is_voter) is true of what came in its place.
/// - `wait` blocks the thread that calls it. A [`Pending`](crate::Pending) can be polled and
///   awaited as well. Within a node's own callbacks nothing blocks: there `wait` answers with
///   an error.
/// - To know that a node shows an entry, ask *that* node: after
///   [`wait`](crate::Pending::wait) the node that was asked has applied it, others a little
///   later.
/// - To try a state machine under every fault there is, without sockets and threads, there
///   is the simulator (`sim`, a feature).
pub mod one_program {}

/// Nodes in several processes or on several hosts, from one file.
///
/// The same file lies on every host, and each process is told who it is:
///
/// ```json
/// {
///   "nodes": {
///     "node0": {"ip": "10.0.0.1", "port": 5565},
///     "node1": {"ip": "10.0.0.2", "port": 5565},
///     "node2": {"ip": "10.0.0.3", "port": 5565}
///   },
///   "data_dir": "/var/lib/my-program"
/// }
/// ```
///
/// ```no_run
/// // Not run here: it waits for the other two processes.
/// use kontiki::{BoxError, Config, RaftNode};
/// use serde_json::json;
///
/// fn main() -> Result<(), BoxError> {
///     let name = std::env::args().nth(1).ok_or("usage: my-program NAME")?;
///     let config = Config::load("cluster.json")?;
///     let node = RaftNode::new(&config, &name)?;
///     node.start()?;
///     let reply = node.client_request(json!({"started": name}))?.wait()?;
///     println!("committed at {} in term {}", reply.index, reply.term);
///     println!("{}", node.check_committed_entry());
///     Ok(())
/// }
/// ```
///
/// Mind:
///
/// - Addresses are IP addresses, those by which the others reach the node; names are not
///   looked up. A node that has to listen elsewhere, behind a port mapping say, is told so by
///   [`listen_at`](crate::Config::listen_at).
/// - The first start of all needs every voter once, in any order; until they are there each
///   says whom it waits for ([`Committed::waiting_for`](crate::Committed::waiting_for)). Later
///   starts need a majority.
/// - Without `data_dir` a process that ends has forgotten everything. It is given all anew,
///   and a vote, while a majority is there. With it, all processes may die at once.
/// - The file founds a cluster and never changes one: members come and go by request
///   ([`Request::add_member`](crate::Request::add_member)). Keep the file up to date all the
///   same, for a node that starts with an empty memory.
/// - A program that wants to answer its own clients while the cluster has no majority looks at
///   [`quorum_ago`](crate::Committed::quorum_ago); what it reads from
///   [`check_committed_entry`](crate::RaftNode::check_committed_entry) then is true, and may be
///   old.
/// - `examples/node.rs` and `examples/durable.rs` are such programs.
pub mod processes {}

/// Nodes as a failure detector in a larger program.
///
/// The workers of a program join as learners: they are watched and told, and their number
/// does not slow commits down as that of voters does. Three or five voters decide. Each
/// verdict is an entry of the log, so all nodes see the same ones in the same order.
///
/// ```
/// use kontiki::{BoxError, Config, Event, RaftNode};
/// use serde_json::{Map, json};
/// use std::net::UdpSocket;
/// use std::time::Duration;
///
/// fn main() -> Result<(), BoxError> {
///     let names = ["voter0", "voter1", "voter2", "worker"];
///     let sockets = names.map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
///     let node = |(name, socket): (&str, UdpSocket)| {
///         let role = if name == "worker" { "learner" } else { "voter" };
///         let port = socket.local_addr().unwrap().port();
///         (name.to_string(), json!({"ip": "127.0.0.1", "port": port, "role": role}))
///     };
///     let nodes: Map<_, _> = names.into_iter().zip(sockets).map(node).collect();
///     let config = Config::try_from(json!({"nodes": nodes, "failure_timeout_ms": 200}))?;
///
///     let events = config.events();
///     let [voters @ .., worker] = names.map(|name| RaftNode::new(&config, name).unwrap());
///     for node in voters.iter().chain([&worker]) {
///         node.start()?;
///     }
///     // What the first voter learns of the worker.
///     let next = || loop {
///         match events.recv_timeout(Duration::from_secs(20)).expect("a verdict comes") {
///             Event::MemberUp { node, member, index, .. }
///                 if (&*node, &*member) == ("voter0", "worker") => break (true, index),
///             Event::MemberDown { node, member, index, .. }
///                 if (&*node, &*member) == ("voter0", "worker") => break (false, index),
///             _ => {}
///         }
///     };
///     let (up, since) = next();
///     assert!(up);
///     worker.stop();
///     let (up, index) = next();
///     assert!(!up && index > since); // a later verdict is a greater fencing token
///
///     let known = voters[0].check_committed_entry();
///     let worker = known.members.iter().find(|member| member.name == "worker").unwrap();
///     assert_eq!(worker.verdict.map(|verdict| verdict.index), Some(index));
///     Ok(())
/// }
/// ```
///
/// Mind:
///
/// - Events are for watching, and a slow reader loses some
///   ([`Event::Missed`](crate::Event::Missed)). What must not be lost belongs into a state
///   machine, which is told in the order of the log
///   ([`StateMachine::verdict`](crate::StateMachine::verdict)).
/// - A verdict may be wrong of one that lives: it could not be heard for
///   `failure_timeout_ms`. So what a worker does is done under its own token
///   ([`up_since`](crate::Committed::up_since)), and refused once another verdict of it is
///   agreed.
/// - The nodes that share a program with heavy work need their thread to get the processor
///   in time. One that is starved for longer than the timeout is taken for dead.
/// - `examples/failure_detector.rs` is such a program, with processes that are stopped and
///   killed.
pub mod failure_detector {}

/// Keeping strangers out.
///
/// Without a secret a node trusts its network: whoever can send it a datagram can speak in a
/// member's name. That is well on loopback, or where only hosts that you trust reach the ports;
/// elsewhere give the cluster a secret. The example `keygen` makes one, in a file that its owner
/// alone may read:
///
/// ```sh
/// cargo run --example keygen -- cluster.key
/// ```
///
/// (So does `(umask 077; head -c 32 /dev/urandom | base64 > cluster.key)`.) Copy it to every
/// node, and name it in the cluster's file; a relative path is relative to that file:
///
/// ```json
/// {
///   "nodes": {
///     "node0": {"ip": "10.0.0.1", "port": 5565},
///     "node1": {"ip": "10.0.0.2", "port": 5565},
///     "node2": {"ip": "10.0.0.3", "port": 5565}
///   },
///   "secret_file": "cluster.key"
/// }
/// ```
///
/// A test has its secret in the config itself:
///
/// ```
/// use kontiki::{Config, RaftNode};
/// use serde_json::json;
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
/// let config = Config::new([("node0", free)])?.with(json!({"secret": secret}))?;
/// let node = RaftNode::new(&config, "node0")?;
/// node.start()?;
/// node.client_request(json!("nobody else can read this on its way"))?.wait()?;
/// assert!(!format!("{config:?}").contains("0001")); // nor in a log line
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Each datagram then is encrypted and authenticated, bound to cluster, sender, addressee and the
/// present start of both, and taken once: who has no secret can neither speak, nor read, nor
/// repeat what was said. Not protected are a cluster whose secret is stolen (all nodes have the
/// same, and what was recorded before can be read with it), what is on the disk, who speaks to
/// whom and how much, and the network itself, which can be delayed, cut and flooded. The README
/// has both lists whole, in its section "A secret".
///
/// To change the secret while clients go on, write two into the file, one on a line: the first
/// seals, both open. It takes three rounds of restarts, one node after the other, waiting until
/// each counts again (as in [`upgrading`]):
///
/// 1. the old secret first, the new one below it;
/// 2. the new one first, the old one below it;
/// 3. the new one alone.
///
/// Mind:
///
/// - All nodes need it. Nodes with and without a secret, or with different ones, do not hear
///   each other, and both say so at level `warn`.
/// - A cluster gets its first secret, or does without again, by a stop of all nodes, as where
///   [`upgrading`] has another format of datagrams.
/// - A file that others than its owner may read or write is refused when the node starts.
/// - A machine that is copied while it runs, or continued from a snapshot of it, seals by
///   numbers that it has used before: restart its node.
pub mod secrets {}

/// Choosing timeouts.
///
/// The defaults suit one machine or one local network, where a datagram is there and back in
/// a few milliseconds: a heartbeat each 30 ms, an election after 150 to 300 ms without one, a
/// verdict after 200 ms. All nodes of a cluster should have the same.
///
/// Let *trip* be the longest time that a datagram takes there and back on a bad day, with the
/// time that a busy host lets a thread wait.
///
/// | key | what it has to be | if it is too low | if it is too high |
/// |---|---|---|---|
/// | `heartbeat_ms` | about one trip or more | requests that show no sign for two heartbeats are sent again for nothing; idle traffic | all that follows becomes slow |
/// | `election_timeout_ms` | from ten trips and five heartbeats on; up to twice that | leaders are deposed that are well, and commits stand still meanwhile | after a leader's death commits stand still for longer |
/// | `failure_timeout_ms` | well above a trip, and six heartbeats | who lives is agreed to be down now and then | deaths are noticed late |
/// | `request_timeout_ms` | several elections | requests end as `Unknown` that would have been answered | a client waits long where there is no majority |
///
/// The config refuses what cannot work at all: an election timeout that begins before two
/// heartbeats, or a failure timeout below four. The span between the two election timeouts
/// keeps candidates apart, so it should be several trips wide.
///
/// Hosts that are 80 ms apart, there and back, might have:
///
/// ```
/// # use kontiki::Config;
/// # use serde_json::json;
/// # let config = Config::new([("node0", ([127, 0, 0, 1], 5565))])?;
/// let config = config.with(json!({
///     "heartbeat_ms": 150,
///     "election_timeout_ms": [1000, 2000],
///     "failure_timeout_ms": 1500,
///     "request_timeout_ms": 30000,
/// }))?;
/// # Ok::<(), kontiki::Error>(())
/// ```
///
/// A slow disk does not cost a heartbeat, since it is written to by another thread. But votes
/// and acknowledgements wait for it, so an election takes the time of a sync on top. A leader
/// whose disk has not finished a write for five of the longest election timeouts, or ten
/// seconds if that is less, steps down.
///
/// To see whether they fit, let the log show level `info` under load: leaders that change
/// while nobody dies say that the election timeout is too low, and members that are down and
/// up again that the failure timeout is. `sim::Vigil` (feature `sim`) counts such false
/// verdicts in a made-up network.
pub mod timeouts {}

/// What to do when a node refuses to start, or starts and takes no part.
///
/// [`RaftNode::new`](crate::RaftNode::new) and [`start`](crate::RaftNode::start) answer with
/// an [`Error`](crate::Error). Nothing was changed then: the folder is as it was.
///
/// ```
/// use kontiki::{Config, Error, RaftNode};
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let config = Config::new([("node0", free)])?;
/// let first = RaftNode::new(&config, "node0")?;
/// match RaftNode::new(&config, "node0") {
///     Err(Error::Io { doing, source, .. }) => println!("cannot {doing}: {source}"),
///     other => panic!("two nodes at one address: {other:?}"),
/// }
/// drop(first); // it lets go of socket and folder at once
/// RaftNode::new(&config, "node0")?.start()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// | error | it says | what to do |
/// |---|---|---|
/// | `Config` | a key of the file, what is wrong with it and what would be right; or that the name is not in the file | correct the file, or the name |
/// | `Io` | *cannot start node0: cannot bind a UDP socket to ..* | another process has the port, or the address is none of this host's: then say where to listen by [`listen_at`](crate::Config::listen_at) |
/// | `Io` | *cannot lock the directory ..: another process, or another node of this one, has it* | end that process; each node needs a folder of its own. A lock never outlives its process |
/// | `Io` | *No space left on device*, or *quota* | make room: a start wants 16 MiB for a segment of the log |
/// | `Io` | a path, and that it cannot be made, opened or read | rights and mounts |
/// | `Storage` | *the directory is that of node ..*; *this is node0 of another cluster* | folders or files were mixed up: put them right. Do not remove anything |
/// | `Storage` | *its format version is .., which this build does not know* | the folder is of another version of the library: see [`upgrading`] |
/// | `Storage` | *a record is not as it was written*, *it is missing*, *it belongs to the log ..*, and other damage, with file and byte | see below |
/// | `Machine` | the error of your maker of state machines, or its panic | whatever it says. The node's folder is sound |
/// | `Failed` | the node's thread was lost, or `start` was called within a node's callback | make the node anew; call it from another thread |
///
/// # Damage
///
/// What a crash leaves half written is no damage: it is cut off, and a line in the log says
/// so. Damage means that the disk gives back something else than what was acknowledged. A
/// node that went on with it might vote against its own promise, so it does not start.
///
/// 1. Look at the folder with [`inspect`](crate::inspect), or the example of that name.
/// 2. Do the others have a majority *without* this node, with their logs? Then move its folder
///    away and start it without. It comes back as a new life, is brought up to date and given
///    a vote. This is the usual way.
/// 3. If not, do not start it without its folder: entries that only this node and lost ones
///    had would be gone. An exact copy of the damaged file, made after it was last written to,
///    may be put in its place. An older copy may not, whatever else is lost: the node would
///    have forgotten what it promised, and nothing can notice.
///
/// # It starts, and takes no part
///
/// [`check_committed_entry`](crate::RaftNode::check_committed_entry) and the lines of the log
/// at level `warn` tell:
///
/// | what you see | why | what to do |
/// |---|---|---|
/// | role `fresh`, and [`waiting_for`](crate::Committed::waiting_for) names others | the first start needs all voters; a new node needs a member | start them; add the node by request, if the cluster does not know it |
/// | role `removed` | it is no member any more | add it again, or end it |
/// | role `candidate` again and again, [`quorum_ago`](crate::Committed::quorum_ago) grows or is `None` | it reaches no majority | start the others; look at ports and firewalls (UDP, both ways) |
/// | the log names voters whose memory is lost | a majority has forgotten | start those that have their folders. If there is none, the cluster is gone: see "Three terminals" in the README |
/// | role `stopped`, and requests end with [`Failed`](crate::RequestError::Failed) | it failed after its start: the disk, a state machine that could not [`restore`](crate::StateMachine::restore) or panicked, or proof that safety is broken. The reason says which | see to that, then `stop` and `start` |
/// | the log says that others seal by another secret, or by none | files of secrets differ | give all the same: see [`secrets`] |
/// | at level `debug`, datagrams dropped as *version* | others speak another version of the wire format | see [`upgrading`] |
pub mod no_start {}

/// Going to another version of the library, or of your program.
///
/// # What has a version
///
/// | what | where it stands | what happens where it differs |
/// |---|---|---|
/// | datagrams | a byte at the head of each | they are dropped, counted as *version*, and not answered. The nodes do not hear each other at all |
/// | the files of the log | at the head of each file | the node refuses to start ([`Error::Storage`](crate::Error::Storage)) and leaves the folder as it is |
/// | a snapshot's frame | its first byte, on the disk and on its way | on the disk: as above. On its way: it is not installed, a warning says so, and the node is not brought up to date |
/// | sessions, ids and replies within a snapshot | a byte of their own | the node stops, and says that the state cannot be restored |
///
/// A build knows one version of each and no other. There is no negotiation, and nothing is
/// converted. A change of any of them raises its number, and `CHANGELOG.md` says so. They
/// have numbers of their own, which have nothing to do with that of the package.
///
/// # Where no format has changed
///
/// One node after the other, while clients go on. Have another lead first, so that nobody
/// waits for an election:
///
/// ```no_run
/// // Not run here: it is for a cluster that is in use.
/// use kontiki::{RaftNode, Request, RequestError};
/// use std::{thread, time::Duration};
///
/// /// Before the process of `name` is stopped; asked at any other node.
/// fn hand_over(at: &RaftNode, name: &str, to: &str) -> Result<(), RequestError> {
///     if at.check_committed_entry().leader.as_deref() == Some(name) {
///         at.client_request(Request::transfer_leadership(to))?.wait()?;
///     }
///     Ok(())
/// }
///
/// /// In the new process, before the next one is stopped.
/// fn wait_until_it_counts(node: &RaftNode) {
///     let counts = || {
///         let known = node.check_committed_entry();
///         known.is_voter() && known.quorum_ago.is_some_and(|ago| ago < Duration::from_secs(1))
///     };
///     while !counts() {
///         thread::sleep(Duration::from_millis(100));
///     }
/// }
/// ```
///
/// # Where the datagrams' format has changed
///
/// Old and new nodes cannot be one cluster. Stop all of them and start all of them with the
/// new version. With `data_dir` nothing is lost, provided that the files' format is the same.
/// A cluster in memory loses everything by this, so take out before what is to be kept, by a
/// query, and put it in again.
///
/// # Where the files' format has changed
///
/// The new version does not read the old folders. If the datagrams' format is the same, and
/// that of snapshots, go node by node: stop it, move its folder away, start it with the new
/// version, and wait until it is a voter before the next. Each is brought up to date by the
/// others. If those have changed too, the state has to go by way of your program: read it with
/// the old version by a query, found a new cluster with the new version in an empty `data_dir`,
/// and commit it there.
///
/// # Your own program
///
/// - *Commands.* For a while old and new programs apply the same log, and the same entry must
///   do the same in both, for ever: it is applied again after each restart. Send a new kind of
///   command only when all nodes know it, or give commands a number by which the machine
///   decides. An old machine answers what it does not know with a value that says so, and does
///   not panic.
/// - *Snapshots.* [`restore`](crate::StateMachine::restore) is given what an earlier version's
///   [`snapshot`](crate::StateMachine::snapshot) wrote, and on a node that is not yet new what
///   a later version's wrote. Begin the bytes with a number of your own.
/// - *The file.* An unknown key is an error, so a file with a new key is for new nodes only.
///
/// # The package
///
/// Until 1.0 a change of the second number (0.1 to 0.2) may break programs, one of the third
/// does not. Structs and enums that will grow are `#[non_exhaustive]`. Texts of errors and lines
/// of the log are for people and may change at any time; so may the output of
/// [`inspect`](crate::inspect). The module `sim` is for tests, and changes more freely.
pub mod upgrading {}

/// What it takes of memory, disk and network, and where the limits are.
///
/// # Limits
///
/// | what | limit |
/// |---|---|
/// | voters | 1 to 9 |
/// | members, learners included | 256 |
/// | a command or query | `max_value_bytes` of JSON, 1 MiB unless the file says otherwise, at most 16 MiB |
/// | requests outstanding at one node | 65,536, or 256 MiB; then [`Busy`](crate::RequestError::Busy) |
/// | an id of the caller's | 256 bytes; remembered for 131,072 client entries |
/// | replies that are kept for those who ask again | 64 MiB together |
/// | a snapshot | 64 GiB, and the memory for it |
/// | events that wait for a reader | 1024 a channel |
///
/// `max_value_bytes` is looked at where a request comes in. What another node has taken is
/// taken by all, so nodes whose files differ can still work together.
///
/// # Memory
///
/// The log is in memory, on nodes with a disk as well: entries since the last snapshot, and a
/// tail before it for followers that are a little behind. A snapshot is due after
/// `snapshot_every` entries, or after 64 MiB of them (or as much as the last snapshot had, if
/// that is more). The tail has at most as many entries, and 16 MiB. A small entry of 64 bytes takes
/// some 120 bytes (the README has the measurement), and large ones hardly more than their JSON.
/// What a snapshot stands for is given back bit by bit, within seconds; up to 64 datagrams'
/// buffers (4 MiB) are kept while they are used.
///
/// So a node with small entries and the default of 10,000 needs a few megabytes for its log;
/// with entries of 100 KB, up to 80 MiB and as much as is outstanding. A thread that makes
/// requests has up to 32 KiB of its own, where it writes those of less than 4 KiB. While a member is being
/// brought up to date its leader keeps up to 64 MiB for it.
///
/// The newest snapshot is in memory, too. A state machine whose state takes *s* bytes as a
/// snapshot makes a node hold *s* for the snapshot beside the state itself, and some three
/// times that for a moment, while a new one is made or comes in. A snapshot of more than a megabyte is taken less often: the
/// log since the last one then has at least a quarter of its size.
///
/// # Disk
///
/// In `<data_dir>/<name>`: segments of 16 MiB, which are taken from the file system when they
/// are begun and shortened when they are finished, and the newest snapshot. A snapshot is
/// written beside the old one before that goes. What the log needs is freed by whole segments.
/// So allow for the log as above, plus 32 MiB, plus twice the snapshot. A disk that is full
/// stops its node before it has acknowledged what it could not write; the other nodes go on.
///
/// Each commit is synced on a majority, many at once where many are outstanding. So the time
/// of one sync bounds what a single client sees, and hardly what many together do.
///
/// # Network
///
/// All commands go to the leader, and from there to every other member: with *n* members the
/// leader sends each byte *n - 1* times. Between loopback addresses datagrams have up to 60,000
/// bytes, elsewhere 1,400, so that IP does not cut them. What is longer goes in
/// fragments, and only those that are lost are sent again.
///
/// The socket's buffers are asked to hold 4 MiB. What the system grants instead is logged when
/// a node starts (level `info`). On Linux it grants no more than
/// `net.core.rmem_max` and `net.core.wmem_max`, by default some 200 KB: a few datagrams of 60 KB.
/// What does not fit is lost and sent again, which costs time under load. To allow it:
///
/// ```sh
/// sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304
/// ```
///
/// An idle member costs a heartbeat and its answer each `heartbeat_ms`.
pub mod sizing {}
