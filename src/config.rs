//! The config: what the shared file says, checked as a whole, and what only a
//! program can give (a state machine, watchers, readers of events).
//!
//! ```text
//! file ──► read: text to keys ─┐
//! Value ───────────────────────┼─► keys, in the full form ──► check ──► Settings
//! Config::new(names, addresses)┘            ▲
//!                              Config::with ┘ (some keys anew, then all checked again)
//! ```
//!
//! A `Config` that exists has passed all checks, and where its `data_dir` is has been
//! settled; nothing asks again later. Its
//! parts are shared: a clone is one reference count. A change copies the
//! settings if they are shared, but never the hub of events, so that a reader
//! hears every node of every config that came from the same start.

mod check;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use serde_json::{Map, Value};

use crate::committed::Entry;
use crate::error::{BoxError, Error};
use crate::event::{Event, Hub};
use crate::machine::StateMachine;
use crate::machine::sealed::IntoMachine;
use crate::secret::Secrets;

pub(crate) use self::check::{address_problem, name_problem};

/// Who the nodes are and how they behave: the cluster's file, plus what only a
/// program can give.
///
/// Wherever a config is wanted, a path will do, a `serde_json::Value`, or a `&Config`.
/// Every key is checked at once; a config that exists is sound. A clone is cheap.
///
/// ```
/// use kontiki::Config;
/// use serde_json::json;
///
/// let config = Config::try_from(json!({
///     "nodes": {
///         "node0": {"ip": "127.0.0.1", "port": 5565},
///         "node1": {"ip": "127.0.0.1", "port": 5566},
///         "node2": {"ip": "127.0.0.1", "port": 5567, "role": "learner"},
///     },
///     "heartbeat_ms": 50,
/// }))?;
/// assert_eq!(config.names().collect::<Vec<_>>(), ["node0", "node1", "node2"]);
/// # Ok::<(), kontiki::Error>(())
/// ```
///
/// # The keys
///
/// | key | default | meaning and range |
/// |---|---|---|
/// | `nodes` | must be given | a map of 1 to 256 names (1 to 64 bytes) to nodes |
/// | `nodes.*.ip` | must be given | the IPv4 or IPv6 address at which the other nodes reach this one; all nodes of one kind |
/// | `nodes.*.port` | must be given | its UDP port, 1 to 65535, as a number or as text |
/// | `nodes.*.role` | `"voter"` | `"voter"`, of which there are 1 to 9, or `"learner"`, which receives the log and does not count |
/// | `data_dir` | none | the directory in which nodes keep their log and snapshots, each in one of its own that is called as the node is: `<data_dir>/<name>/`; a path, not empty |
/// | `secret_file` | none | a file with the secret that all nodes share, by which each datagram is sealed: 32 bytes as hex or base64 on a line of their own, readable for its owner alone; it is read at each start of a node |
/// | `secret` | none | the same here in the config, as text, for tests; not both |
/// | `heartbeat_ms` | 30 | how often a leader shows that it lives; 1 to 60000 ms |
/// | `election_timeout_ms` | `[150, 300]` | from and up to how long a node waits for its leader before it campaigns; at least two heartbeats, at least one heartbeat apart, at most 600000 ms |
/// | `failure_timeout_ms` | 200, or six heartbeats if that is more | a member that is silent for so long is agreed to be down ([`Member::verdict`](crate::Member::verdict)); well above the time that a datagram takes there and back, at least 20 ms and four heartbeats, at most 600000 ms |
/// | `request_timeout_ms` | 10000 | how long a request is pursued before it ends as unknown; 1 to 3600000 ms |
/// | `snapshot_every` | 10000 | after how many entries a snapshot is taken, which stands in for the log up to there; 1 to 1000000000 |
/// | `max_value_bytes` | 1048576 | how large a request may be, in bytes of JSON; 1 to 16777216 |
/// | `founding` | `"all"` | who must be there at a cluster's first start: `"all"` voters, or a `"majority"`, which is safe only if there never was a cluster of these nodes |
///
/// A flat map of names to nodes, as raft-lite's file has it, works too; all else is
/// then by default. An unknown key is an error, as is a key that stands twice.
///
/// The nodes of the file are those that found a cluster, and those by which a node finds
/// it. The file never changes one that is there: after the first start its log says who the
/// members are, and [`Request::add_member`](crate::Request::add_member) and the like change
/// them. A node whose file says something else warns of it once, with the request that would
/// bring it about. A node that its file names and the members do not waits to be added.
///
/// Without `data_dir` a node is volatile: what it knows is in its memory only. A
/// relative `data_dir` is relative to the directory of the file in which it stands, as
/// the file's path has it (a symbolic link is not followed for this). Where it stands in
/// no file but in a program's `Value` ([`Config::try_from`], [`Config::with`]), it is
/// relative to the working directory of the moment; a working directory that changes later
/// changes nothing. No config makes a directory, and a `data_dir` need not exist yet.
///
/// With `data_dir`, each node's name must be good as that of one directory wherever the file
/// goes: without `/` and `\\`, not beginning with a dot, and not equal to another name but
/// for upper and lower case.
#[derive(Clone)]
pub struct Config {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// What was given, in the full form, for `with` to change.
    keys: Map<String, Value>,
    settings: Settings,
    maker: Option<Maker>,
    watchers: Vec<Watcher>,
    /// Where nodes listen, if not where the file says.
    listen: BTreeMap<String, SocketAddr>,
    hub: Arc<Hub>,
}

type Maker = Arc<dyn Fn(&str) -> Result<Box<dyn StateMachine>, BoxError> + Send + Sync>;

/// The largest `max_value_bytes` that a config may have.
pub(crate) const MAX_VALUE_BYTES: usize = 16 << 20;

/// Sees committed entries: the node's name, and the entry.
pub(crate) type Watcher = Arc<dyn Fn(&str, &Entry) + Send + Sync>;

/// What the keys say, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// In order of name.
    pub(crate) nodes: Vec<NodeSettings>,
    /// The directory in which each node has one of its own, by its name: an absolute
    /// path. `None`: nodes are volatile. With it, every name is good as a directory's.
    pub(crate) data_dir: Option<PathBuf>,
    /// By what datagrams are sealed. `None`: they are not.
    pub(crate) secret: Option<SecretFrom>,
    /// How often a leader shows that it lives, in microseconds.
    pub(crate) heartbeat_us: u64,
    /// From and up to how long to wait for a leader, in microseconds.
    pub(crate) election_timeout_us: (u64, u64),
    /// Who is silent for so long is agreed to be down, in microseconds.
    pub(crate) failure_timeout_us: u64,
    /// How long a request is pursued, in microseconds.
    pub(crate) request_timeout_us: u64,
    /// After how many entries a snapshot is taken, at least 1.
    pub(crate) snapshot_every: u64,
    /// The most bytes of JSON in a request.
    pub(crate) max_value_bytes: usize,
    /// Whether a majority may found the cluster; else all voters must be there.
    pub(crate) founding_by_majority: bool,
}

/// Where the cluster's secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretFrom {
    /// It stands in the config itself.
    Config(Secrets),
    /// The file at this absolute path holds it, whenever a node starts.
    File(PathBuf),
}

/// One node of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    /// Its name.
    pub(crate) name: String,
    /// Where it listens and is spoken to.
    pub(crate) address: SocketAddr,
    /// Whether it votes; else it is a learner.
    pub(crate) voter: bool,
}

impl Config {
    /// Reads and checks a cluster's file. Blocks for as long as the file takes to read.
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Config`] for each mistake in it. A relative
    /// `data_dir` in it is relative to the directory of the file, wherever the program runs.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("kontiki-doc-{}.json", std::process::id()));
    /// # std::fs::write(&path, r#"{"node0": {"ip": "127.0.0.1", "port": 5565}}"#)?;
    /// # let file = path.as_path();
    /// let config = kontiki::Config::load(file)?;
    /// assert_eq!(config.names().collect::<Vec<_>>(), ["node0"]);
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Config, Error> {
        let path = path.as_ref();
        Config::of_file(&read::file(path)?, path)
    }

    /// The nodes, all of them voters, with all else by default.
    ///
    /// [`Error::Config`] for a name or an address that cannot be, or stands twice.
    ///
    /// ```
    /// use kontiki::Config;
    /// use std::net::Ipv4Addr;
    ///
    /// let config = Config::new((0..3).map(|n| {
    ///     (format!("node{n}"), (Ipv4Addr::LOCALHOST, 5565 + n))
    /// }))?;
    /// assert_eq!(config.names().count(), 3);
    /// # Ok::<(), kontiki::Error>(())
    /// ```
    pub fn new<N: Into<String>, A: Into<SocketAddr>>(
        nodes: impl IntoIterator<Item = (N, A)>,
    ) -> Result<Config, Error> {
        let nodes = nodes.into_iter().map(|(name, address)| (name.into(), address.into()));
        Config::full(read::nodes(nodes)?, here())
    }

    /// The same config with these keys anew, checked as a whole.
    ///
    /// The keys are those of the file, in an object: `nodes` replaces all nodes. A relative
    /// `data_dir` that is given here is relative to the working directory, also if the
    /// config was loaded from a file elsewhere; one that is not given here stays where it was.
    /// [`Error::Config`] names the first mistake; the config is then gone (clone it
    /// before, to keep it). Clones of it are not changed.
    ///
    /// ```
    /// # use kontiki::Config;
    /// # use serde_json::json;
    /// # let config = Config::new([("node0", ([127, 0, 0, 1], 5565))])?;
    /// let config = config.with(json!({"heartbeat_ms": 50, "election_timeout_ms": [300, 600]}))?;
    ///
    /// let error = config.with(json!({"hartbeat_ms": 50})).unwrap_err();
    /// assert!(error.to_string().contains("did you mean heartbeat_ms?"));
    /// # Ok::<(), kontiki::Error>(())
    /// ```
    pub fn with(mut self, keys: Value) -> Result<Config, Error> {
        let Value::Object(given) = keys else {
            return Err(check::not_an_object("the keys", &keys));
        };
        let moved = |key: &str| given.contains_key(key);
        let (moved, other_secret) = (moved("data_dir"), moved("secret") || moved("secret_file"));
        let mut keys = self.inner.keys.clone();
        keys.extend(given);
        let mut settings = check::settings(&keys)?;
        settings.data_dir = match moved {
            true => placed(settings.data_dir, here())?,
            false => self.inner.settings.data_dir.clone(),
        };
        settings.secret = match other_secret {
            true => secret_placed(settings.secret, here())?,
            false => self.inner.settings.secret.clone(),
        };
        let inner = Arc::make_mut(&mut self.inner);
        inner.settings = settings;
        inner.keys = keys;
        Ok(self)
    }

    /// The nodes' names, in order. See [`Config`] for an example.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.settings.nodes.iter().map(|node| node.name.as_str())
    }

    /// Gives each node that is made of this config a state machine of its own:
    /// `make` gets the node's name and gives a [`StateMachine`], or a `Result` of one,
    /// whose error becomes [`Error::Machine`]. The last maker given counts.
    ///
    /// `make` is called once for each start of a node, in the thread that makes
    /// or starts it. All nodes of a cluster must have the same machine. Clones of
    /// this config are not changed.
    ///
    /// ```
    /// # use kontiki::{BoxError, Config, Entry, RaftNode, Request, StateMachine};
    /// # use serde_json::{Value, json};
    /// #[derive(Default)]
    /// struct Sum(i64);
    ///
    /// impl StateMachine for Sum {
    ///     fn apply(&mut self, entry: &Entry) -> Value {
    ///         self.0 += entry.parse::<i64>().unwrap_or(0);
    ///         json!(self.0)
    ///     }
    ///     // query, snapshot, restore: as `StateMachine` has them
    /// #   fn query(&self, _: &Value) -> Value {
    /// #       json!(self.0)
    /// #   }
    /// #   fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
    /// #       Ok(self.0.to_le_bytes().to_vec())
    /// #   }
    /// #   fn restore(&mut self, snapshot: &[u8]) -> Result<(), BoxError> {
    /// #       self.0 = i64::from_le_bytes(snapshot.try_into()?);
    /// #       Ok(())
    /// #   }
    /// }
    ///
    /// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// let config = Config::new([("node0", free)])?.state_machine(|_name| Sum::default());
    /// let node = RaftNode::new(config, "node0")?;
    /// node.start()?;
    /// node.client_request(json!(40))?.wait()?;
    /// assert_eq!(node.client_request(json!(2))?.wait()?.value, json!(42));
    /// assert_eq!(node.client_request(Request::query(&()))?.wait()?.value, json!(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state_machine<M: IntoMachine>(
        mut self,
        make: impl Fn(&str) -> M + Send + Sync + 'static,
    ) -> Config {
        let make = move |name: &str| -> Result<Box<dyn StateMachine>, BoxError> {
            Ok(Box::new(make(name).into_machine()?))
        };
        Arc::make_mut(&mut self.inner).maker = Some(Arc::new(make));
        self
    }

    /// Shows each entry that a node learns to be committed: `see` gets the
    /// node's name and the entry, in order of index at each node. It may be called
    /// several times; all see every entry.
    ///
    /// It is for watching. It is called in a thread of the node's own and what
    /// takes long there holds up that node's replies; after a restart or a snapshot
    /// entries come again or have gaps. Whoever must not miss one writes a [`StateMachine`].
    /// A panic in `see` stops the node. Clones of this config are not changed.
    ///
    /// ```
    /// # use kontiki::{Config, RaftNode};
    /// # use serde_json::json;
    /// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    /// let (sender, seen) = std::sync::mpsc::channel();
    /// let config = Config::new([("node0", free)])?
    ///     .on_commit(move |node, entry| drop(sender.send((node.to_string(), entry.clone()))));
    /// let node = RaftNode::new(config, "node0")?;
    /// node.start()?;
    /// node.client_request(json!("a"))?.wait()?;
    /// let (name, entry) = seen.recv()?;
    /// assert_eq!((&*name, entry.json()), ("node0", r#""a""#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_commit(mut self, see: impl Fn(&str, &Entry) + Send + Sync + 'static) -> Config {
        Arc::make_mut(&mut self.inner).watchers.push(Arc::new(see));
        self
    }

    /// Has the node `name` listen here, and not at its address in the file, which stays
    /// the one by which the others reach it: for a node behind something that passes
    /// datagrams on, such as a container's port mapping, or a relay in a test. Clones of
    /// this config are not changed.
    ///
    /// ```
    /// # use kontiki::Config;
    /// // The others reach it at 10.0.0.1:5565, from where it is passed on into the container.
    /// let config = Config::new([("node0", ([10, 0, 0, 1], 5565))])?;
    /// let config = config.listen_at("node0", ([0, 0, 0, 0], 5565).into());
    /// # Ok::<(), kontiki::Error>(())
    /// ```
    pub fn listen_at(mut self, name: impl Into<String>, address: SocketAddr) -> Config {
        Arc::make_mut(&mut self.inner).listen.insert(name.into(), address);
        self
    }

    /// A channel of what happens from now on at the nodes that are made of this
    /// config, its clones, and the configs that came of them by `with` and the like.
    ///
    /// Each call makes a channel of its own that gets every event, so call it once and
    /// keep the receiver. It holds 1024 events; what a slow reader leaves no room for is dropped,
    /// and [`Event::Missed`] says so before the next one. No node ever waits for a
    /// reader. The channel ends when the last of these configs and nodes is gone.
    /// See [`Event`] for an example.
    pub fn events(&self) -> Receiver<Event> {
        self.inner.hub.subscribe()
    }

    /// Checks that the file has this name.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Error> {
        check::name_is_known(name, &self.inner.settings.nodes)
    }

    /// What the keys say.
    pub(crate) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The secrets by which datagrams are sealed, read anew where a file holds them.
    pub(crate) fn secrets(&self) -> Result<Option<Secrets>, Error> {
        match &self.inner.settings.secret {
            None => Ok(None),
            Some(SecretFrom::Config(secrets)) => Ok(Some(secrets.clone())),
            Some(SecretFrom::File(path)) => Secrets::load(path).map(Some),
        }
    }

    /// Where this node listens, if not at its address in the file.
    pub(crate) fn listens_at(&self, name: &str) -> Option<SocketAddr> {
        self.inner.listen.get(name).copied()
    }

    /// A new machine for this node; `None` if the program gave no maker.
    pub(crate) fn make_machine(
        &self,
        name: &str,
    ) -> Option<Result<Box<dyn StateMachine>, BoxError>> {
        self.inner.maker.as_ref().map(|make| make(name))
    }

    /// Who wants to see committed entries.
    pub(crate) fn commit_watchers(&self) -> &[Watcher] {
        &self.inner.watchers
    }

    /// Tells everyone who called `events`. Never blocks on a reader.
    pub(crate) fn emit(&self, event: &Event) {
        self.inner.hub.emit(event);
    }

    /// A config of what the file at this path says.
    pub(crate) fn of_file(bytes: &[u8], path: &Path) -> Result<Config, Error> {
        let keys = read::keys(bytes, path);
        let from = path.parent().unwrap_or(here());
        let config = keys.and_then(|keys| Config::of(keys, &read::shown(path), from));
        config.map_err(|error| read::in_file(error, path))
    }

    /// A config of what somebody wrote, flat or full; `whole` is what to call it, and
    /// `from` the directory to which a path in it is relative.
    fn of(keys: Value, whole: &str, from: &Path) -> Result<Config, Error> {
        let Value::Object(keys) = keys else {
            return Err(check::not_an_object(whole, &keys));
        };
        if !check::is_flat(&keys) {
            return Config::full(keys, from);
        }
        // Checked where the keys stand, so that errors name them as they are written.
        check::flat(&keys)?;
        Config::full(Map::from_iter([("nodes".to_string(), Value::Object(keys))]), from)
    }

    fn full(keys: Map<String, Value>, from: &Path) -> Result<Config, Error> {
        let mut settings = check::settings(&keys)?;
        settings.data_dir = placed(settings.data_dir, from)?;
        settings.secret = secret_placed(settings.secret, from)?;
        let hub = Arc::new(Hub::default());
        let (watchers, listen) = (Vec::new(), BTreeMap::new());
        let inner = Inner { keys, settings, maker: None, watchers, listen, hub };
        Ok(Config { inner: Arc::new(inner) })
    }
}

/// What a path is relative to that stands in no file: the working directory.
fn here() -> &'static Path {
    Path::new("")
}

/// The path as absolute, if it is relative to the directory `from`, which may itself be
/// relative to the working directory. It is settled once: a node that stops and starts in a
/// program whose working directory has changed must find its own log again.
fn placed(data_dir: Option<PathBuf>, from: &Path) -> Result<Option<PathBuf>, Error> {
    let Some(path) = data_dir else {
        return Ok(None);
    };
    let path = from.join(path);
    let absolute = std::path::absolute(&path).map_err(|source| {
        let doing = format!("find out where {:?} is", path.display().to_string());
        Error::Io { doing, source }
    })?;
    Ok(Some(absolute))
}

fn secret_placed(from: Option<SecretFrom>, at: &Path) -> Result<Option<SecretFrom>, Error> {
    match from {
        Some(SecretFrom::File(path)) => Ok(placed(Some(path), at)?.map(SecretFrom::File)),
        other => Ok(other),
    }
}

/// Short: the settings, and what else was given.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            nodes,
            data_dir,
            secret,
            heartbeat_us,
            election_timeout_us,
            failure_timeout_us,
            request_timeout_us,
            snapshot_every,
            max_value_bytes,
            founding_by_majority,
        } = &self.inner.settings;
        let nodes: Vec<String> = nodes.iter().map(NodeSettings::to_string).collect();
        f.debug_struct("Config")
            .field("nodes", &nodes)
            .field("data_dir", data_dir)
            .field("secret", secret)
            .field("heartbeat_ms", &(heartbeat_us / 1000))
            .field(
                "election_timeout_ms",
                &[election_timeout_us.0 / 1000, election_timeout_us.1 / 1000],
            )
            .field("failure_timeout_ms", &(failure_timeout_us / 1000))
            .field("request_timeout_ms", &(request_timeout_us / 1000))
            .field("snapshot_every", snapshot_every)
            .field("max_value_bytes", max_value_bytes)
            .field("founding", if *founding_by_majority { &"majority" } else { &"all" })
            .field("state_machine", &self.inner.maker.is_some())
            .field("on_commit", &self.inner.watchers.len())
            .finish()
    }
}

impl fmt::Display for NodeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)?;
        if self.voter { Ok(()) } else { f.write_str(", a learner") }
    }
}

/// A clone, which shares everything.
impl From<&Config> for Config {
    fn from(config: &Config) -> Config {
        config.clone()
    }
}

impl TryFrom<Value> for Config {
    type Error = Error;

    fn try_from(keys: Value) -> Result<Config, Error> {
        Config::of(keys, "the config", here())
    }
}

impl TryFrom<&Value> for Config {
    type Error = Error;

    fn try_from(keys: &Value) -> Result<Config, Error> {
        keys.clone().try_into()
    }
}

macro_rules! from_path {
    ($($path:ty)*) => {
        $(
            /// The file at this path, as [`Config::load`] reads it.
            impl TryFrom<$path> for Config {
                type Error = Error;

                fn try_from(path: $path) -> Result<Config, Error> {
                    Config::load(path)
                }
            }
        )*
    };
}

from_path!(&str String &String &Path PathBuf &PathBuf);

#[cfg(any(test, fuzzing))]
impl Config {
    /// What was given, in the full form.
    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.inner.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::committed::Role;
    use serde_json::json;

    fn config() -> Config {
        Config::new([("b", ([127, 0, 0, 1], 2)), ("a", ([127, 0, 0, 1], 1))]).unwrap()
    }

    fn role(term: u64) -> Event {
        Event::Role { node: "a".into(), term, role: Role::Leader }
    }

    #[derive(Default)]
    struct Named(String);

    impl StateMachine for Named {
        fn apply(&mut self, _: &Entry) -> Value {
            self.0.clone().into()
        }
        fn query(&self, _: &Value) -> Value {
            Value::Null
        }
        fn snapshot(&self) -> Result<Vec<u8>, BoxError> {
            Ok(Vec::new())
        }
        fn restore(&mut self, _: &[u8]) -> Result<(), BoxError> {
            Ok(())
        }
    }

    #[test]
    fn defaults_and_units() {
        let settings = config().settings().clone();
        let node = |name: &str, port| NodeSettings {
            name: name.into(),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            voter: true,
        };
        assert_eq!(
            settings,
            Settings {
                nodes: vec![node("a", 1), node("b", 2)],
                data_dir: None,
                secret: None,
                heartbeat_us: 30_000,
                election_timeout_us: (150_000, 300_000),
                failure_timeout_us: 200_000,
                request_timeout_us: 10_000_000,
                snapshot_every: 10_000,
                max_value_bytes: 1 << 20,
                founding_by_majority: false,
            }
        );
    }

    #[test]
    fn every_key_reaches_the_settings() {
        let config = config()
            .with(json!({
                "nodes": {
                    "x": {"ip": "::1", "port": "7", "role": "learner"},
                    "y": {"ip": "::2", "port": 8, "role": "voter"},
                },
                "data_dir": "some/where",
                "heartbeat_ms": 10,
                "election_timeout_ms": [20, 30],
                "request_timeout_ms": 5,
                "snapshot_every": 3,
                "max_value_bytes": 64,
                "founding": "majority",
            }))
            .unwrap();
        let settings = config.settings();
        assert_eq!(settings.nodes[0].to_string(), "x at [::1]:7, a learner");
        assert_eq!(settings.nodes[1].to_string(), "y at [::2]:8");
        let here = std::env::current_dir().unwrap();
        assert_eq!(settings.data_dir, Some(here.join("some/where")));
        assert_eq!(settings.heartbeat_us, 10_000);
        assert_eq!(settings.election_timeout_us, (20_000, 30_000));
        assert_eq!(settings.request_timeout_us, 5_000);
        assert_eq!(settings.snapshot_every, 3);
        assert_eq!(settings.max_value_bytes, 64);
        assert!(settings.founding_by_majority);
        let shown = format!("{config:?}");
        for part in ["x at [::1]:7, a learner", "majority", "some/where", "snapshot_every: 3"] {
            assert!(shown.contains(part), "{shown}");
        }
    }

    /// What stands in a file is relative to the file, what a program gives to the working
    /// directory; what is absolute stays as it is.
    #[test]
    fn a_data_dir_is_relative_to_where_it_stands() {
        let here = std::env::current_dir().unwrap();
        let keys = |data_dir: &str| {
            let nodes = json!({"a": {"ip": "127.0.0.1", "port": 1}});
            json!({"nodes": nodes, "data_dir": data_dir})
        };
        let dir = |config: Result<Config, Error>| config.unwrap().settings().data_dir.clone();
        let loaded = |file: &str, data_dir: &str| {
            Config::of_file(keys(data_dir).to_string().as_bytes(), Path::new(file))
        };
        assert_eq!(dir(loaded("cluster.json", "x")), Some(here.join("x")));
        assert_eq!(dir(loaded("etc/cluster.json", "x/y")), Some(here.join("etc/x/y")));
        assert_eq!(dir(loaded("etc/cluster.json", "../x")), Some(here.join("etc/../x")));
        assert_eq!(dir(Config::try_from(keys("x"))), Some(here.join("x")));
        assert_eq!(dir(Config::try_from(keys("./x/"))), Some(here.join("x")));
        let absolute = here.join("absolute");
        let text = absolute.to_str().unwrap();
        assert_eq!(dir(loaded("etc/cluster.json", text)), Some(absolute.clone()));
        let file = here.join("etc/cluster.json");
        assert_eq!(dir(loaded(file.to_str().unwrap(), "x")), Some(here.join("etc/x")));

        let config = loaded("etc/cluster.json", "x").unwrap();
        let with = |keys: Value| dir(config.clone().with(keys));
        assert_eq!(with(json!({"heartbeat_ms": 31})), Some(here.join("etc/x")));
        assert_eq!(with(json!({"data_dir": "x"})), Some(here.join("x")));
        assert_eq!(with(json!({"data_dir": text})), Some(absolute));
        let volatile = self::config();
        assert_eq!(dir(volatile.with(json!({"data_dir": "x"}))), Some(here.join("x")));
    }

    /// Where there is no working directory, no path is relative to it. An empty path
    /// stands for it here, since a test cannot take the working directory from the others.
    #[test]
    fn a_path_that_leads_nowhere_is_told() {
        let error = placed(Some(PathBuf::new()), here()).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        assert!(error.to_string().starts_with("cannot find out where \"\" is"));
        assert_eq!(placed(None, here()).unwrap(), None);
    }

    #[test]
    fn machines_are_made_by_name_and_may_fail() {
        let plain = config();
        assert!(plain.make_machine("a").is_none());
        let made = plain.clone().state_machine(|name| Named(name.to_string()));
        let entry = Entry::new(1, 1, &0).unwrap();
        assert_eq!(made.make_machine("a").unwrap().unwrap().apply(&entry), json!("a"));
        assert!(plain.make_machine("a").is_none(), "a clone must not change");
        let failing = made.state_machine(|_| Err::<Named, _>("no disk"));
        assert_eq!(failing.make_machine("a").unwrap().err().unwrap().to_string(), "no disk");
        let boxed = plain.state_machine(|name| {
            let machine: Box<dyn StateMachine> = Box::new(Named(name.to_string()));
            machine
        });
        assert_eq!(boxed.make_machine("b").unwrap().unwrap().apply(&entry), json!("b"));
    }

    #[test]
    fn every_watcher_is_kept() {
        let one = config().on_commit(|_, _| ());
        let two = one.clone().on_commit(|_, _| ());
        assert_eq!((one.commit_watchers().len(), two.commit_watchers().len()), (1, 2));
        assert!(two.with(json!({"heartbeat_ms": 31})).unwrap().commit_watchers().len() == 2);
    }

    #[test]
    fn what_came_from_one_config_shares_its_events() {
        let config = config();
        let events = config.events();
        let changed = config.clone().with(json!({"heartbeat_ms": 31})).unwrap();
        let changed = changed.on_commit(|_, _| ()).state_machine(|_| Named::default());
        changed.emit(&role(1));
        config.emit(&role(2));
        drop(config);
        changed.emit(&role(3));
        drop(changed);
        let seen: Vec<Event> = events.iter().collect();
        assert_eq!(seen, [role(1), role(2), role(3)], "the channel ends with the last config");
    }

    #[test]
    fn names_are_checked() {
        let config = config();
        config.check_name("a").unwrap();
        let text = config.check_name("aa").unwrap_err().to_string();
        assert!(text.contains("\"aa\"") && text.contains("a, b"), "{text}");
    }

    /// Found by fuzzing: of the mistakes in a file, a key that stands twice was the
    /// only one that was told without the file.
    #[test]
    fn a_key_that_stands_twice_is_told_with_its_file() {
        let path = Path::new("the-file.json");
        for text in [r#"{"port": "128.0", "port": 1}"#, r#"{"nodes": {"a": {"ip": 1, "ip": 2}}}"#] {
            let error = Config::of_file(text.as_bytes(), path).unwrap_err().to_string();
            assert!(error.contains("stands twice (in the-file.json)"), "{error}");
        }
    }

    #[test]
    fn with_leaves_clones_alone_and_checks_the_whole() {
        let config = config();
        let changed = config.clone().with(json!({"heartbeat_ms": 70})).unwrap();
        assert_eq!(changed.settings().heartbeat_us, 70_000);
        assert_eq!(config.settings().heartbeat_us, 30_000);
        let text = changed.with(json!({"election_timeout_ms": [100, 300]})).unwrap_err();
        assert!(text.to_string().contains("heartbeat_ms"), "{text}");
    }
}
