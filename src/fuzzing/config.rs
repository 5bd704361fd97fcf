//! The config: any text as the cluster's file.

use std::collections::BTreeSet;
use std::path::{self, Path};

use serde_json::{Value, json};

use crate::config::{Config, MAX_VALUE_BYTES, NodeSettings, SecretFrom, Settings};
use crate::core::Saved;
use crate::core::types::{Incarnation, Life, Run, Time};
use crate::driver;
use crate::engine::{Engine, Host, Output};
use crate::error::Error;
use crate::replica::Replica;

/// What is said of a mistake is meant to be read.
const ERROR_BYTES: usize = 12_000;

/// Any bytes as the cluster's file: they are refused with an error that names a
/// key, and the file, in a text of bounded length; or they are a config that keeps
/// every rule of the file, that is the same when what it holds is written and
/// loaded again, and of which nodes can be made that begin to speak: in memory, so that
/// nothing is ever written, whatever directory the file asks for.
pub fn config(input: &[u8]) {
    let path = Path::new("etc/the-file.json");
    let config = match Config::of_file(input, path) {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    sound(config.settings());
    let shown = format!("{config:?}");
    assert!(shown.contains("heartbeat_ms"), "{shown}");
    let keys = Value::Object(config.keys().clone());
    let written = serde_json::to_vec(&keys).expect("keys are JSON");
    let same = |other: Result<Config, Error>, how: &str| {
        let other = other.unwrap_or_else(|error| panic!("{how} it is refused: {error}"));
        assert_eq!(other.settings(), config.settings(), "{how} it is another");
    };
    same(Config::of_file(&written, path), "written and loaded again,");
    same(config.clone().with(json!({})), "with nothing new,");
    let volatile = in_memory(&config);
    with_directories(&volatile);
    for name in config.names() {
        config.check_name(name).expect("it is the name of a node");
    }
    let places = [0, config.settings().nodes.len() - 1];
    places.into_iter().for_each(|own| begins(&volatile, &config.settings().nodes[own].name));
}

/// The same as a value, without its `data_dir`, which changes nothing else; with it, the
/// directory is where it was from the file, or else from the working directory.
fn in_memory(config: &Config) -> Config {
    let mut keys = config.keys().clone();
    let whole = Config::try_from(Value::Object(keys.clone())).expect("as a value");
    let data_dir = keys.remove("data_dir");
    let config = config.settings();
    assert_eq!(data_dir.is_some(), config.data_dir.is_some());
    if let Some(data_dir) = &data_dir {
        let text = data_dir.as_str().expect("a path is a text");
        let at = |from: &str| path::absolute(Path::new(from).join(text)).ok();
        assert_eq!(config.data_dir, at("etc"), "{text:?} stands in the file");
        assert_eq!(whole.settings().data_dir, at(""), "{text:?} stands in no file");
    }
    let volatile = Config::try_from(Value::Object(keys)).expect("without data_dir");
    let expected = Settings { data_dir: None, ..config.clone() };
    assert_eq!(*volatile.settings(), expected);
    assert_eq!(Settings { data_dir: None, ..whole.settings().clone() }, expected);
    volatile
}

/// The nodes get directories exactly if each can have one of its name.
fn with_directories(volatile: &Config) {
    let names: Vec<&str> = volatile.names().collect();
    match volatile.clone().with(json!({"data_dir": "data", "snapshot_every": 1})) {
        Ok(kept) => {
            sound(kept.settings());
            assert_eq!(kept.settings().snapshot_every, 1);
        }
        Err(Error::Config { key, .. }) => {
            assert!(key.starts_with("nodes.") && !directories(&names), "{key}: {names:?}");
        }
        Err(other) => panic!("it is no mistake in the keys: {other:?}"),
    }
}

/// Whether each name is that of one directory which a file system that knows no
/// upper and lower case keeps apart from the others'.
fn directories(names: &[&str]) -> bool {
    let plain = |name: &&str| !name.contains(['/', '\\', '\0']) && !name.starts_with('.');
    let folded: BTreeSet<String> =
        names.iter().map(|name| name.to_uppercase().to_lowercase()).collect();
    names.iter().all(plain) && folded.len() == names.len()
}

fn refused(error: &Error) {
    let Error::Config { key, problem, remedy } = error else {
        panic!("it is no mistake in the file: {error:?}");
    };
    assert!(!key.is_empty() && !problem.is_empty() && !remedy.is_empty(), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the-file.json"), "no file is named: {text}");
    assert!(text.len() < ERROR_BYTES, "an error of {} bytes", text.len());
}

/// The rules of the file, as its table of keys has them.
fn sound(settings: &Settings) {
    let Settings {
        nodes,
        data_dir,
        secret,
        heartbeat_us,
        election_timeout_us: (shortest, longest),
        failure_timeout_us,
        request_timeout_us,
        snapshot_every,
        max_value_bytes,
        founding_by_majority: _,
    } = settings;
    assert!((1..=256).contains(&nodes.len()));
    assert!(nodes.is_sorted_by(|a, b| a.name < b.name), "{nodes:?}");
    assert!((1..=9).contains(&nodes.iter().filter(|node| node.voter).count()), "{nodes:?}");
    let addresses: BTreeSet<_> = nodes.iter().map(|node| node.address).collect();
    assert_eq!(addresses.len(), nodes.len(), "{nodes:?}");
    for NodeSettings { name, address, .. } in nodes {
        assert!((1..=64).contains(&name.len()) && !name.contains(char::is_control), "{name:?}");
        let ip = address.ip();
        assert!(address.port() > 0 && !ip.is_unspecified() && !ip.is_multicast(), "{address}");
        assert_eq!(address.is_ipv4(), nodes[0].address.is_ipv4(), "{nodes:?}");
        assert_eq!(ip, ip.to_canonical());
    }
    let ms = 1_000;
    assert!((ms..=60_000 * ms).contains(heartbeat_us), "{settings:?}");
    assert!(*shortest >= 2 * heartbeat_us && *longest >= shortest + heartbeat_us, "{settings:?}");
    assert!(*longest <= 600_000 * ms, "{settings:?}");
    assert!((20 * ms..=600_000 * ms).contains(failure_timeout_us), "{settings:?}");
    assert!(*failure_timeout_us >= 4 * heartbeat_us, "{settings:?}");
    assert!((ms..=3_600_000 * ms).contains(request_timeout_us), "{settings:?}");
    assert!((1..=1_000_000_000).contains(snapshot_every), "{settings:?}");
    assert!((1..=MAX_VALUE_BYTES).contains(max_value_bytes), "{settings:?}");
    if let Some(SecretFrom::File(path)) = secret {
        assert!(path.is_absolute(), "{settings:?}");
    }
    if let Some(data_dir) = data_dir {
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert!(data_dir.is_absolute() && directories(&names), "{settings:?}");
        for name in names {
            assert_eq!(data_dir.join(name).parent(), Some(data_dir.as_path()), "{name:?}");
        }
    }
}

/// A node that is made of the settings speaks to the other nodes that it needs, at their
/// addresses, and to nobody else.
fn begins(config: &Config, name: &str) {
    let setup = driver::engine_setup(config, name, None).expect("it is the name of a node");
    let votes = setup.core.own.voter;
    // A learner leaves the others alone as long as somebody votes.
    let others = config.settings().nodes.iter();
    let others = others.filter(|node| node.name != name && (votes || node.voter));
    let addresses: BTreeSet<_> = others.map(|other| other.address).collect();
    let life = Life { incarnation: Incarnation(1), run: Run(1) };
    let replica = Replica::new(name, life, None, Vec::new());
    let saved = Saved::empty(life.incarnation);
    let host = Host::here(replica);
    let mut engine: Engine<u64> = Engine::new(setup, saved, life.run, 1, host, Time(1));
    let mut output = Output::default();
    engine.tick(Time(1));
    engine.flush(&mut output, Time(1));
    let spoken: Vec<_> = output.datagrams.iter().map(|(to, _)| *to).collect();
    assert_eq!(spoken.len(), addresses.len());
    assert!(spoken.iter().all(|to| addresses.contains(to)), "{spoken:?}");
}
