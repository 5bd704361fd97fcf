//! The config as a user meets it: each mistake names its key, the value it has
//! and what would be right.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use kontiki::{Config, Error};
use serde_json::{Value, json};

/// A file that is removed when the test is over.
struct Temporary(PathBuf);

impl Temporary {
    fn new(content: impl AsRef<[u8]>) -> Temporary {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kontiki-config-{}-{count}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        Temporary(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn node(port: u64) -> Value {
    json!({"ip": "127.0.0.1", "port": port})
}

fn nodes(count: u64) -> Value {
    (0..count)
        .map(|n| (format!("node{n}"), node(5565 + n)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// Three nodes, and these keys beside them or in place of them.
fn file(keys: Value) -> Value {
    let mut file = json!({"nodes": nodes(3)});
    file.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    file
}

/// Two good nodes and this one.
fn with_node(bad: Value) -> Value {
    let mut file = file(json!({}));
    file["nodes"]["node1"] = bad;
    file
}

/// The mistake's key is this, and its whole text has these words.
#[track_caller]
fn expect(result: Result<Config, Error>, at: &str, words: &[&str]) {
    let error = match result {
        Ok(config) => panic!("{at}: taken as {config:?}"),
        Err(error) => error,
    };
    let text = error.to_string();
    let Error::Config { key, problem, remedy, .. } = &error else { panic!("{at}: {error:?}") };
    assert_eq!(key, at, "{text}");
    assert!(!problem.is_empty() && !remedy.is_empty(), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[track_caller]
fn refused(keys: Value, at: &str, words: &[&str]) {
    expect(Config::try_from(&keys), at, words);
    // In a file it is the same mistake, and the file is named.
    let file = Temporary::new(keys.to_string());
    let name = file.0.file_name().unwrap().to_str().unwrap();
    let mut words = words.to_vec();
    words.push(name);
    let at = if at == "the config" { file.0.to_str().unwrap() } else { at };
    expect(Config::load(&file.0), at, &words);
}

#[test]
fn a_config_comes_from_every_form() {
    let value = file(json!({"heartbeat_ms": 31}));
    let on_disk = Temporary::new(value.to_string());
    let path: &Path = &on_disk.0;
    let text = path.to_str().unwrap();
    let config = Config::load(path).unwrap();
    let shown = format!("{config:?}");
    assert!(shown.contains("node0 at 127.0.0.1:5565") && shown.contains("31"), "{shown}");
    let all = [
        Config::from(&config),
        Config::try_from(text).unwrap(),
        Config::try_from(&text.to_string()).unwrap(),
        Config::try_from(text.to_string()).unwrap(),
        Config::try_from(path).unwrap(),
        Config::try_from(path.to_path_buf()).unwrap(),
        Config::try_from(&path.to_path_buf()).unwrap(),
        Config::try_from(&value).unwrap(),
        Config::try_from(value).unwrap(),
    ];
    for other in all {
        assert_eq!(format!("{other:?}"), shown);
    }
}

#[test]
fn every_form_goes_where_a_config_is_wanted() {
    fn count<C: TryInto<Config>>(config: C) -> Result<usize, Error>
    where
        Error: From<C::Error>,
    {
        Ok(config.try_into()?.names().count())
    }
    let value = file(json!({}));
    let on_disk = Temporary::new(value.to_string());
    let config = Config::load(&on_disk.0).unwrap();
    assert_eq!(["a", "b"].map(|_| count(&config).unwrap()), [3, 3]);
    assert_eq!(count(on_disk.0.to_str().unwrap()).unwrap(), 3);
    assert_eq!(count(&on_disk.0).unwrap(), 3);
    assert_eq!(count(value).unwrap(), 3);
    assert_eq!(count(config).unwrap(), 3);
    assert!(count(json!({})).is_err());
}

#[test]
fn a_flat_file_as_raft_lite_has_it() {
    let text = r#"{
        "node2": {"ip": "127.0.0.1", "port": "5567"},
        "node0": {"ip": "127.0.0.1", "port": "5565"},
        "node1": {"ip": "127.0.0.1", "port": 5566}
    }"#;
    let flat = Config::load(&Temporary::new(text).0).unwrap();
    assert_eq!(flat.names().collect::<Vec<_>>(), ["node0", "node1", "node2"]);
    let full = Config::try_from(json!({"nodes": nodes(3)})).unwrap();
    assert_eq!(format!("{flat:?}"), format!("{full:?}"));
    let changed = flat.with(json!({"heartbeat_ms": 20})).unwrap();
    assert_eq!(changed.names().count(), 3);
}

#[test]
fn a_node_may_be_called_like_a_key() {
    let flat = json!({"nodes": node(1), "heartbeat_ms": node(2)});
    let flat = Config::try_from(flat).unwrap();
    assert_eq!(flat.names().collect::<Vec<_>>(), ["heartbeat_ms", "nodes"]);
    let full = json!({"nodes": {"nodes": node(1), "ip": node(2), "port": node(3)}});
    let full = Config::try_from(full).unwrap();
    assert_eq!(full.names().collect::<Vec<_>>(), ["ip", "nodes", "port"]);
}

#[test]
fn mistakes_in_a_flat_file_have_its_paths() {
    refused(json!({"a": {"ip": "127.0.0.1", "port": 0}}), "a.port", &["0", "1 to 65535"]);
    refused(json!({"a": node(1), "b": node(1)}), "b", &["127.0.0.1:1", "address of a"]);
    refused(json!({"a": node(1), "heartbeat_ms": 30}), "heartbeat_ms", &["30", "\"nodes\": {"]);
    refused(json!({"a": node(1), "data_dir": "x"}), "data_dir", &["\"x\"", "\"nodes\": {"]);
    refused(json!({"a": node(1), "snapshot_every": 5}), "snapshot_every", &["\"nodes\": {"]);
    refused(json!({"a": node(1), "b": 5}), "b", &["5 (a number)", "\"port\": 5565"]);
}

#[test]
fn names_and_numbers_of_nodes() {
    refused(json!({}), "nodes", &["missing", "map of names"]);
    refused(json!({"heartbeat_ms": 30}), "nodes", &["missing"]);
    refused(json!({"nodes": {}}), "nodes", &["no nodes"]);
    refused(json!({"nodes": [1]}), "nodes", &["[1] (an array)", "map of names"]);
    refused(json!({"nodes": null}), "nodes", &["null"]);
    refused(file(json!({"nodes": {"": node(1)}})), "nodes.\"\"", &["0 bytes", "1 to 64"]);
    let long = "x".repeat(65);
    let at = format!("nodes.{}..", "x".repeat(60));
    refused(json!({"nodes": {&long: node(1)}}), &at, &["65 bytes", "1 to 64"]);
    assert!(Config::try_from(json!({"nodes": {&long[1..]: node(1)}})).is_ok());
    refused(json!({"nodes": {"a\nb": node(1)}}), "nodes.\"a\\nb\"", &["control character"]);
    refused(json!({"nodes": nodes(257)}), "nodes", &["257", "256"]);
    refused(json!({"nodes": nodes(10)}), "nodes", &["10 nodes are voters", "at most 9", "learner"]);
    let mut learners = nodes(256);
    for n in 9..256 {
        learners[format!("node{n}")]["role"] = json!("learner");
    }
    assert!(Config::try_from(json!({"nodes": learners})).is_ok());
    let alone = json!({"nodes": {"a": {"ip": "127.0.0.1", "port": 1, "role": "learner"}}});
    refused(alone, "nodes", &["all nodes are learners", "\"role\""]);
}

#[test]
fn addresses() {
    let ip = |ip: Value| with_node(json!({"ip": ip, "port": 1}));
    let at = "nodes.node1.ip";
    refused(with_node(json!({"port": 1})), at, &["missing", "\"127.0.0.1\""]);
    refused(ip(json!(5)), at, &["5 (a number)", "\"127.0.0.1\""]);
    refused(ip(json!("localhost")), at, &["\"localhost\"", "host names are not looked up"]);
    refused(ip(json!("")), at, &["\"\"", "not an IP address"]);
    refused(ip(json!("127.0.0.1:55")), at, &["\"127.0.0.1:55\"", "as \"port\""]);
    refused(ip(json!("fe80::1%eth0")), at, &["zone"]);
    refused(ip(json!("0.0.0.0")), at, &["\"0.0.0.0\"", "reach this node"]);
    refused(ip(json!("::")), at, &["\"::\"", "reach this node"]);
    refused(ip(json!("::ffff:0.0.0.0")), at, &["reach this node"]);
    refused(ip(json!("224.0.0.1")), at, &["\"224.0.0.1\"", "one node"]);
    refused(ip(json!("255.255.255.255")), at, &["one node"]);
    refused(ip(json!("::1")), at, &["::1", "127.0.0.1", "node0", "IPv4"]);
    let doubled = with_node(json!({"ip": "::ffff:127.0.0.1", "port": "5567"}));
    refused(doubled, "nodes.node2", &["127.0.0.1:5567", "address of node1", "of its own"]);
    refused(with_node(json!("127.0.0.1:5565")), "nodes.node1", &["(a text)", "\"port\": 5565"]);
    refused(
        with_node(json!({"ip": "127.0.0.1", "port": 1, "prot": 1})),
        "nodes.node1.prot",
        &["no such key", "ip, port, role"],
    );
    let six = json!({"nodes": {"a": {"ip": "::1", "port": 1}, "b": {"ip": "fe80::1", "port": 1}}});
    assert!(Config::try_from(six).is_ok());
}

#[test]
fn ports_and_roles() {
    let port = |port: Value| with_node(json!({"ip": "127.0.0.1", "port": port}));
    let at = "nodes.node1.port";
    refused(with_node(json!({"ip": "127.0.0.1"})), at, &["missing", "1 to 65535"]);
    for bad in [json!(0), json!("0"), json!(65536), json!("99999"), json!(u64::MAX)] {
        refused(port(bad.clone()), at, &[&bad.to_string(), "is no port", "1 to 65535"]);
    }
    for bad in [json!("x"), json!(""), json!("-1"), json!("+1"), json!(" 1"), json!("1e3")] {
        refused(port(bad.clone()), at, &[&bad.to_string(), "(a text)", "1 to 65535"]);
    }
    for bad in [json!(-1), json!(1.5), json!(null), json!(true), json!([1])] {
        refused(port(bad.clone()), at, &[&bad.to_string(), "1 to 65535"]);
    }
    assert!(Config::try_from(port(json!("65535"))).is_ok());
    let role = |role: Value| with_node(json!({"ip": "127.0.0.1", "port": 1, "role": role}));
    let words = ["\"voter\" or \"learner\""];
    refused(role(json!("observer")), "nodes.node1.role", &["\"observer\"", words[0]]);
    refused(role(json!(1)), "nodes.node1.role", &["1 (a number)", words[0]]);
    assert!(Config::try_from(role(json!("voter"))).is_ok());
}

#[test]
fn timeouts() {
    let range = "whole number from 1 to 60000";
    for bad in [json!(0), json!(60_001), json!(1.5), json!(-1), json!("30"), json!(null)] {
        refused(file(json!({"heartbeat_ms": bad})), "heartbeat_ms", &[&bad.to_string(), range]);
    }
    for bad in [json!(0), json!(3_600_001), json!([1])] {
        let words = [&bad.to_string(), "from 1 to 3600000"];
        refused(file(json!({"request_timeout_ms": bad})), "request_timeout_ms", &words);
    }
    let at = "election_timeout_ms";
    for bad in [json!(150), json!([150]), json!([1, 2, 3]), json!(["150", 300]), json!({"a": 1})] {
        refused(file(json!({at: bad})), at, &[&bad.to_string(), "[150, 300]"]);
    }
    let election = |from: u64, to: u64| file(json!({at: [from, to]}));
    refused(election(300, 150), at, &["[300, 150] ends before it begins", "[150, 300] would do"]);
    refused(election(59, 300), at, &["[59, 300]", "two heartbeats", "heartbeat_ms is 30", "(60)"]);
    refused(election(150, 150), at, &["[150, 150] is too narrow", "heartbeat_ms more"]);
    refused(election(150, 179), at, &["too narrow"]);
    refused(election(150, 600_001), at, &["longer than 600000 ms"]);
    assert!(Config::try_from(election(60, 90)).is_ok());
    refused(file(json!({"heartbeat_ms": 76})), at, &["heartbeat_ms is 76", "[380, 760] would do"]);
}

#[test]
fn the_other_keys() {
    let range = "from 1 to 16777216";
    for bad in [json!(0), json!(16_777_217), json!("1 MB")] {
        refused(
            file(json!({"max_value_bytes": bad})),
            "max_value_bytes",
            &[&bad.to_string(), range],
        );
    }
    assert!(Config::try_from(file(json!({"max_value_bytes": 16_777_216}))).is_ok());
    let (at, range) = ("snapshot_every", "whole number from 1 to 1000000000");
    for bad in [json!(0), json!(1_000_000_001), json!(-1), json!(1.5), json!("1"), json!(null)] {
        refused(file(json!({at: bad})), at, &[&bad.to_string(), range]);
    }
    for good in [1, 1_000_000_000] {
        assert!(Config::try_from(file(json!({at: good}))).is_ok());
    }
    for bad in [json!("most"), json!(true)] {
        let words = [&bad.to_string(), "\"all\" or \"majority\""];
        refused(file(json!({"founding": bad})), "founding", &words);
    }
}

#[test]
fn data_dirs() {
    let at = "data_dir";
    let remedy = ["\"data\"", "leave the key out", "in memory only"];
    for bad in [json!(1), json!(null), json!(["data"]), json!({"path": "data"})] {
        refused(file(json!({at: bad})), at, &[&[&bad.to_string()[..]], &remedy[..]].concat());
    }
    refused(file(json!({at: ""})), at, &[&["\"\" is no path"], &remedy[..]].concat());
    refused(
        file(json!({at: "a\0b"})),
        at,
        &[&["\"a\\u0000b\"", "zero byte"], &remedy[..]].concat(),
    );
    // No config makes a directory, nor asks for one.
    let missing = Temporary::new("").0.join("there/is/none");
    for good in ["data", ".", "..", "a b/ä", "/", missing.to_str().unwrap()] {
        let config = Config::try_from(file(json!({at: good}))).unwrap();
        assert!(format!("{config:?}").contains("data_dir: Some("), "{config:?}");
    }
    assert!(!missing.exists());
}

#[test]
fn a_data_dir_is_relative_to_its_file() {
    let on_disk = Temporary::new(file(json!({"data_dir": "x/y"})).to_string());
    let wanted = on_disk.0.parent().unwrap().join("x/y");
    let config = Config::load(&on_disk.0).unwrap();
    let shown = |config: &Config| format!("{config:?}");
    assert!(shown(&config).contains(&format!("data_dir: Some({wanted:?})")), "{config:?}");
    assert_eq!(shown(&config.clone().with(json!({})).unwrap()), shown(&config));
    // What a program gives is relative to where the program runs.
    let changed = config.with(json!({"data_dir": "x/y"})).unwrap();
    let wanted = std::env::current_dir().unwrap().join("x/y");
    assert!(shown(&changed).contains(&format!("data_dir: Some({wanted:?})")), "{changed:?}");
    assert!(!wanted.exists());
}

#[test]
fn with_data_dir_a_name_is_good_as_a_directory() {
    let named = |names: &[&str]| {
        let port = |n: usize| node(1 + n as u64);
        let nodes = names.iter().enumerate().map(|(n, name)| (name.to_string(), port(n)));
        json!({"nodes": nodes.collect::<serde_json::Map<_, _>>()})
    };
    let kept = |names: &[&str]| {
        let mut keys = named(names);
        keys["data_dir"] = json!("data");
        keys
    };
    let remedy = ["without / and \\", "such as \"node0\"", "leave data_dir out"];
    for (bad, at, why) in [
        ("a/b", r#"nodes."a/b""#, "\"a/b\" has a /"),
        ("/", r#"nodes."/""#, "has a /"),
        ("a/", r#"nodes."a/""#, "has a /"),
        (r"a\b", r#"nodes."a\\b""#, r"has a \"),
        (".", r#"nodes.".""#, "\".\" begins with a dot"),
        ("..", r#"nodes."..""#, "\"..\" begins with a dot"),
        (".a", r#"nodes.".a""#, "begins with a dot"),
    ] {
        refused(kept(&["n", bad]), at, &[&[why], &remedy[..]].concat());
        // Nodes in memory may be called so; that is over when they get a data_dir.
        let volatile = Config::try_from(named(&["n", bad])).unwrap();
        expect(volatile.with(json!({"data_dir": "data"})), at, &[why]);
        let good = Config::try_from(kept(&["n"])).unwrap();
        expect(good.with(named(&["n", bad])), at, &[why]);
    }
    refused(kept(&["a\0b"]), r#"nodes."a\u0000b""#, &["control character"]);
    assert!(Config::try_from(kept(&["a.b", "a b", "ä", "-", "a.", "~"])).is_ok());
    for (one, other, at) in [
        ("NODE", "node", "nodes.node"),
        ("nodE", "node", "nodes.node"),
        ("ä", "Ä", "nodes.ä"),
        ("ΑΣ", "ας", "nodes.ας"),
        ("ας", "ασ", "nodes.ασ"),
        ("K", "\u{212a}", "nodes.\u{212a}"),
    ] {
        let words = [&json!(one).to_string(), &json!(other).to_string(), "upper and lower case"];
        refused(kept(&["m", one, other]), at, &words);
        refused(kept(&["m", one, other]), at, &["names that differ in more", "data_dir out"]);
        assert!(Config::try_from(named(&["m", one, other])).is_ok());
    }
}

#[test]
fn unknown_keys() {
    let listed = "the keys are nodes, data_dir, secret_file, secret, heartbeat_ms, \
                  election_timeout_ms, failure_timeout_ms, request_timeout_ms, snapshot_every, \
                  max_value_bytes, founding";
    refused(
        file(json!({"hartbeat_ms": 1})),
        "hartbeat_ms",
        &["did you mean heartbeat_ms?", listed],
    );
    refused(file(json!({"Heartbeat_MS": 1})), "Heartbeat_MS", &["did you mean heartbeat_ms?"]);
    refused(file(json!({"colour": 1})), "colour", &["no such key", listed]);
    refused(file(json!({"a b": 1})), "\"a b\"", &["no such key"]);
    refused(file(json!({"x".repeat(5000): 1})), &format!("{}..", "x".repeat(60)), &["no such key"]);
}

/// A member is probed when two heartbeats are missed, and that takes some time.
#[test]
fn failure_timeouts_are_checked_against_heartbeats() {
    let key = "failure_timeout_ms";
    refused(file(json!({key: 19})), key, &["19 is out of range", "from 20 to 600000"]);
    refused(file(json!({key: 119})), key, &["before four heartbeats", "heartbeat_ms is 30", "120"]);
    assert!(Config::try_from(file(json!({key: 120}))).is_ok());
    assert!(Config::try_from(file(json!({key: 20, "heartbeat_ms": 5}))).is_ok());
    // What is not said follows the heartbeat.
    let slow = json!({"heartbeat_ms": 100, "election_timeout_ms": [300, 600]});
    let shown = format!("{:?}", Config::try_from(file(slow)).expect("it is sound"));
    assert!(shown.contains("failure_timeout_ms: 600"), "{shown}");
}

#[test]
fn keys_that_stand_twice() {
    let load = |text: &str| Config::load(&Temporary::new(text).0);
    let node = r#"{"ip": "127.0.0.1", "port": 1}"#;
    let other = r#"{"ip": "127.0.0.1", "port": 2}"#;
    let twice = ["stands twice", "once"];
    expect(load(&format!(r#"{{"a": {node}, "a": {other}}}"#)), "a", &twice);
    let text = format!(r#"{{"nodes": {{"a": {node}, "b": {other}, "\u0061": {other}}}}}"#);
    expect(load(&text), "nodes.a", &twice);
    let text = format!(r#"{{"nodes": {{"a": {node}}}, "founding": "all", "founding": "all"}}"#);
    expect(load(&text), "founding", &twice);
    let text = r#"{"a": {"ip": "127.0.0.1", "port": 1, "port": 2}}"#;
    expect(load(text), "a.port", &twice);
}

#[test]
fn files_that_are_no_config() {
    let broken = Temporary::new("{\n  \"nodes\": {,}\n}");
    let name = broken.0.to_str().unwrap();
    expect(Config::load(&broken.0), name, &["not JSON", "line 2 column", "must be JSON"]);
    for (content, words) in [
        (&b""[..], ["not JSON", "line 1 column 0"]),
        (b"\xff\xfe{}", ["not JSON", "byte 0 is not UTF-8"]),
        (b"[1, 2]", ["[1,2] (an array)", "an object of keys"]),
        (b"5", ["5 (a number)", "an object of keys"]),
        (b"{} {}", ["not JSON", "trailing characters"]),
        (&[b'['; 100_000], ["not JSON", "recursion"]),
        (&[b' '; (1 << 20) + 1], ["larger than 1048576 bytes", "JSON file"]),
    ] {
        let broken = Temporary::new(content);
        expect(Config::load(&broken.0), broken.0.to_str().unwrap(), &words);
    }
    refused(json!([1]), "the config", &["[1] (an array)", "an object of keys"]);
    let marked = Temporary::new(format!("\u{feff}{}", file(json!({}))));
    assert!(Config::load(&marked.0).is_ok());
}

#[test]
fn files_that_cannot_be_read() {
    let error = Config::load("no-such-cluster.json").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Io { .. }), "{text}");
    let here = std::env::current_dir().unwrap();
    assert!(
        text.contains("no-such-cluster.json") && text.contains(here.to_str().unwrap()),
        "{text}"
    );
    assert!(matches!(Config::load(std::env::temp_dir()), Err(Error::Io { .. })));
    let json_text = file(json!({})).to_string();
    expect(
        Config::try_from(json_text),
        "the config",
        &["taken for a path", "serde_json::from_str"],
    );
}

#[test]
fn nodes_from_a_program() {
    let config = Config::new([("a", ([127, 0, 0, 1], 1)), ("b", ([127, 0, 0, 1], 2))]).unwrap();
    assert_eq!(config.names().collect::<Vec<_>>(), ["a", "b"]);
    let empty: [(&str, std::net::SocketAddr); 0] = [];
    expect(Config::new(empty), "nodes", &["no nodes"]);
    let twice = [("a", ([127, 0, 0, 1], 1)), ("a", ([127, 0, 0, 1], 2))];
    expect(Config::new(twice), "nodes.a", &["stands twice"]);
    expect(Config::new([("a", ([127, 0, 0, 1], 0))]), "nodes.a.port", &["0 is no port"]);
    let zoned = std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 3);
    expect(Config::new([("a", zoned)]), "nodes.a.ip", &["fe80::1%3", "zone"]);
    let six = Config::new([("a", "[::1]:7".parse::<std::net::SocketAddr>().unwrap())]).unwrap();
    assert!(format!("{six:?}").contains("a at [::1]:7"));
}

#[test]
fn changed_keys_are_checked_with_the_rest() {
    let config = Config::try_from(file(json!({"heartbeat_ms": 50}))).unwrap();
    let with = |keys: Value| config.clone().with(keys);
    expect(with(json!(5)), "the keys", &["5 (a number)", "object of keys"]);
    expect(with(json!({"colour": 1})), "colour", &["no such key"]);
    expect(with(json!({"election_timeout_ms": [99, 200]})), "election_timeout_ms", &["is 50"]);
    expect(with(json!({"nodes": {}})), "nodes", &["no nodes"]);
    let other = with(json!({"nodes": {"z": node(1)}, "founding": "majority"})).unwrap();
    assert_eq!(other.names().collect::<Vec<_>>(), ["z"]);
    let shown = format!("{other:?}");
    assert!(shown.contains("heartbeat_ms: 50") && shown.contains("\"majority\""), "{shown}");
    assert!(format!("{config:?}").contains("founding: \"all\""), "a clone must not change");
}

#[test]
fn events_end_with_the_last_config() {
    let config = Config::try_from(file(json!({}))).unwrap();
    let (one, two) = (config.events(), config.clone().events());
    let changed = config.clone().on_commit(|_, _| ());
    drop(config);
    assert!(one.try_recv().unwrap_err().is_empty(), "a config is left");
    drop(changed);
    assert!(one.recv().is_err() && two.recv().is_err());
}
