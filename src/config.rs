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
/// Without `secret_file` a node trusts its network: whoever can send it a datagram can speak in
/// a member's name. With it all nodes need the same secret. The file holds one or two: the
/// first seals, both open. So a secret is changed while the cluster goes on, by three rounds of
/// restarts: the new one second everywhere, then first, then alone. `examples/keygen.rs`
/// makes a secret.
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
mod tests;
