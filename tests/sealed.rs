//! Clusters with a secret: who holds it takes part, who does not is not heard, and it can
//! be changed while the cluster goes on.

mod common;
#[allow(dead_code)]
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::folder::Folder;
use common::forge::{Forger, Head, SECRET, hello};
use common::narration::narration;
use common::{Cluster, Plan, ask, ms, until};
use kontiki::{Config, Error, RaftNode};
use serde_json::{Value, json};

const OTHER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A file of secrets that its owner alone may read.
fn write_secrets(path: &Path, secrets: &[&str]) {
    fs::write(path, secrets.join("\n")).expect("a file");
    restrict(path, 0o600);
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[cfg(not(unix))]
fn restrict(_path: &Path, _mode: u32) {}

/// All that passes is sealed, and nobody can read in it.
#[test]
fn what_is_said_is_not_seen() {
    let cluster = Plan::voters(3).relay(1).keys(json!({ "secret": SECRET })).make();
    cluster.relay().start_tape();
    cluster.all().for_each(|node| node.start().expect("it starts"));
    for place in 0..3 {
        cluster.commit_everywhere(place, json!(format!("what nobody is to know {place}")));
    }
    // In fragments, too.
    ask(cluster.node(0), json!("what nobody is to know ".repeat(10_000)));
    let tape = cluster.relay().take_tape();
    assert!(tape.len() > 20, "only {} datagrams", tape.len());
    for taped in tape {
        assert_eq!(&taped.bytes[..6], b"KTKI\x03\x01");
        assert!(!taped.bytes.windows(11).any(|bytes| bytes == b"what nobody"), "it can be read");
    }
}

/// Three nodes of which the third has a config of its own: the two found without it.
fn two_and_an_odd_one(prefix: &str, odd: impl FnOnce(&Cluster) -> Config) -> Cluster {
    narration();
    let keys = json!({ "founding": "majority", "secret": SECRET });
    let mut cluster = Plan::voters(3).keys(keys).named(prefix).make();
    cluster.lose(2);
    cluster.configs[2] = odd(&cluster);
    cluster.renew(2);
    for place in 0..2 {
        cluster.node(place).start().expect("it starts");
    }
    for n in 0..10 {
        ask(cluster.node(n % 2), json!(n));
    }
    assert_eq!(cluster.knows(2).entry, None);
    cluster
}

/// Whether a node whose name begins so has warned of this.
fn warned(name: &str, what: &str) -> bool {
    warnings(name, what) > 0
}

fn warnings(name: &str, what: &str) -> usize {
    let said = narration().into_iter();
    said.filter(|(_, line)| line.starts_with(name) && line.contains(what)).count()
}

/// The two serve without the one that has another secret, both sides say what is wrong, and
/// with the right one it joins.
#[test]
fn who_has_another_secret_is_not_heard() {
    let with = |config: &Config, secret: &str| {
        config.clone().with(json!({ "secret": secret })).expect("sound keys")
    };
    let mut cluster = two_and_an_odd_one("odd", |cluster| with(&cluster.configs[2], OTHER));
    assert!(cluster.knows(0).members.iter().all(|m| m.name != "odd2" || m.incarnation.is_none()));
    let what = "does not have";
    until("the warnings", || {
        warned("odd2 ", what) && (warned("odd0 ", what) || warned("odd1 ", what))
    });
    // It hears what it cannot open all the time, and says so once.
    std::thread::sleep(ms(500));
    assert_eq!(warnings("odd2 ", what), 1);
    cluster.lose(2);
    cluster.configs[2] = with(&cluster.configs[2], SECRET);
    cluster.renew(2);
    until("the third one's voice", || cluster.knows(2).entry.is_some());
}

/// And one that has none: neither side takes what the other says.
#[test]
fn sealed_and_unsealed_nodes_do_not_speak() {
    let bare = |cluster: &Cluster| {
        let nodes = cluster.names.iter().cloned().zip(cluster.addresses.iter().copied());
        Config::new(nodes).expect("sound nodes")
    };
    let _cluster = two_and_an_odd_one("bare", bare);
    until("the warnings", || {
        warned("bare2 ", "it has no secret") && warned("bare", "that are not sealed")
    });
}

/// The frames that tests make by hand are heard if their seal is right, and only then: a
/// greeting is answered at once, to the address that its name has in the file.
#[test]
fn a_greeting_by_hand_is_heard_if_its_seal_is_right() {
    let other = UdpSocket::bind(common::address()).expect("a socket");
    other.set_nonblocking(true).expect("a socket that does not block");
    let here = common::address();
    let nodes = [("a", here), ("b", other.local_addr().expect("an address"))];
    let config = Config::new(nodes).expect("sound").with(json!({ "secret": SECRET }));
    let node = RaftNode::new(config.expect("sound"), "a").expect("it is made");
    node.start().expect("it starts");
    let mut forger = Forger::new(true);
    // It asks by itself, too, five times a second.
    let mut answers = |right: bool| {
        let mut count = 0;
        for n in 0..20 {
            let head = Head { cluster: 0, from: [77, 78], to: [0, 0] };
            let mut frame = forger.message(&head, &hello("b", true, 1 + n, 0));
            let last = frame.len() - 1;
            frame[last] ^= u8::from(!right);
            other.send_to(&frame, here).expect("it is sent");
            std::thread::sleep(ms(20));
            while other.recv_from(&mut [0; 2_000]).is_ok() {
                count += 1;
            }
        }
        count
    };
    let (forged, right) = (answers(false), answers(true));
    assert!(forged <= 8, "{forged} answers to 20 forgeries");
    assert!(right >= 12, "{right} answers to 20 greetings");
}

/// A new secret second everywhere, then first, then alone, each by one restart after the
/// other: the cluster commits between any two of them, and in the end the old secret is
/// worth nothing.
#[test]
fn a_secret_is_changed_while_the_cluster_goes_on() {
    let folder = Folder::new();
    let files: Vec<PathBuf> = (0..3).map(|n| folder.path().join(format!("{n}.key"))).collect();
    files.iter().for_each(|file| write_secrets(file, &[SECRET]));
    let mut cluster = Plan::voters(3).durable().make();
    for (place, file) in files.iter().enumerate() {
        cluster.lose(place);
        let config = cluster.configs[place].clone();
        cluster.configs[place] = config.with(json!({ "secret_file": file })).expect("sound keys");
        cluster.renew(place);
    }
    ask(cluster.node(0), json!("before"));
    let mut commits = 0;
    for secrets in [&[SECRET, OTHER][..], &[OTHER, SECRET], &[OTHER]] {
        for (place, file) in files.iter().enumerate() {
            write_secrets(file, secrets);
            cluster.node(place).stop();
            ask(cluster.node((place + 1) % 3), json!(commits));
            cluster.node(place).start().expect("it starts with the new file");
            // It is heard again, whatever the others seal by by now.
            ask(cluster.node(place), json!(commits + 1));
            commits += 2;
        }
    }
    cluster.commit_everywhere(0, json!("after"));
    write_secrets(&files[2], &[SECRET]);
    cluster.node(2).stop();
    let before = cluster.knows(2).entry;
    cluster.node(2).start().expect("it starts with the old file");
    ask(cluster.node(0), json!("without it"));
    std::thread::sleep(ms(300));
    assert_eq!(cluster.knows(2).entry, before, "it is heard by the old secret");
}

fn refused_file(path: &Path, words: &[&str]) {
    let config = one_node().with(json!({ "secret_file": path })).expect("sound keys");
    let error = RaftNode::new(config, "a").expect_err("no secret");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(text.contains(&path.display().to_string()), "{text}");
    assert!(!shows(&text), "it shows the secret: {text}");
}

/// Whether some digits from the middle of the secret stand there, as text or as numbers.
fn shows(text: &str) -> bool {
    text.contains(&SECRET[16..24]) || text.contains("6, 241, 170")
}

fn one_node() -> Config {
    Config::new([("a", common::address())]).expect("sound nodes")
}

#[test]
fn a_file_that_is_no_secret_is_refused_and_not_shown() {
    let folder = Folder::new();
    let path = folder.path().join("a.key");
    refused_file(&path, &["read the secret in"]);
    write_secrets(&path, &[]);
    refused_file(&path, &["there is no secret", "write 32 bytes as 64 hexadecimal digits"]);
    write_secrets(&path, &["# only a word", &SECRET[1..]]);
    refused_file(&path, &["secret 1: 63 characters"]);
    write_secrets(&path, &[SECRET, OTHER, SECRET]);
    refused_file(&path, &["the same secret stands there twice"]);
    write_secrets(&path, &[&"x".repeat(10_000)]);
    refused_file(&path, &["larger than 4096 bytes"]);
    fs::write(&path, b"\xff\xfe").expect("a file");
    refused_file(&path, &["not a text"]);
    write_secrets(&path, &["# of the test", "", SECRET, OTHER]);
    let good = one_node().with(json!({ "secret_file": path })).expect("sound keys");
    assert!(RaftNode::new(good, "a").is_ok());
}

/// As ssh does it with its keys.
#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused() {
    let folder = Folder::new();
    let path = folder.path().join("a.key");
    write_secrets(&path, &[SECRET]);
    for mode in [0o640, 0o604, 0o644, 0o620, 0o666, 0o601] {
        restrict(&path, mode);
        refused_file(&path, &[&format!("mode {mode:04o}"), "chmod 600"]);
    }
    for mode in [0o600, 0o400] {
        restrict(&path, mode);
        let good = one_node().with(json!({ "secret_file": path })).expect("sound keys");
        assert!(RaftNode::new(good, "a").is_ok(), "{mode:o}");
    }
    refused_file(folder.path(), &["not a file"]);
}

/// The path is relative to the file that it stands in; a node that cannot read it does not
/// start, and one that stops does not start again if it cannot any more.
#[test]
fn the_file_is_read_at_each_start() {
    let folder = Folder::new();
    let (file, key) = (folder.path().join("cluster.json"), folder.path().join("the.key"));
    let address = common::address();
    let keys = json!({
        "nodes": {"a": {"ip": address.ip().to_string(), "port": address.port()}},
        "secret_file": "the.key",
    });
    fs::write(&file, keys.to_string()).expect("a file");
    assert!(matches!(RaftNode::new(file.as_path(), "a"), Err(Error::Io { .. })));
    write_secrets(&key, &[SECRET]);
    let node = RaftNode::new(file.as_path(), "a").expect("it is made");
    node.start().expect("it starts");
    ask(&node, json!(1));
    node.stop();
    fs::remove_file(&key).expect("it is there");
    assert!(matches!(node.start(), Err(Error::Io { .. })));
    write_secrets(&key, &[OTHER]);
    node.start().expect("it starts again");
    ask(&node, json!(2));
}

#[test]
fn secrets_in_a_config_are_checked_and_not_shown() {
    let refused = |keys: Value, words: &[&str]| {
        let text = one_node().with(keys).expect_err("no config").to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        assert!(!shows(&text) && !text.contains("4711"), "{text}");
    };
    refused(json!({ "secret": &SECRET[2..] }), &["secret", "62 characters", "64 hexadecimal"]);
    refused(json!({ "secret": 4711 }), &["no text"]);
    refused(json!({ "secret": [SECRET, 4711] }), &["no text"]);
    refused(json!({ "secret": [] }), &["there is no secret"]);
    refused(json!({ "secret": [SECRET, SECRET] }), &["twice"]);
    refused(json!({ "secret": SECRET, "secret_file": "a" }), &["beside secret_file"]);
    refused(json!({ "secret_file": 47 }), &["secret_file"]);
    refused(json!({ "secret_file": "" }), &["secret_file", "no path"]);
    let error = Config::try_from(json!({"a": {"ip": "127.0.0.1", "port": 1}, "secret": SECRET}));
    let text = error.expect_err("a secret among the nodes").to_string();
    assert!(!shows(&text) && text.contains("stands among the nodes"), "{text}");
    // Where somebody may have put it by mistake.
    refused(json!({ "secret_file": SECRET }), &["secret_file", "is a secret"]);
    refused(json!({ "secret_file": [SECRET, OTHER] }), &["secret_file", "(not shown)"]);
    let node = json!({"ip": "127.0.0.1", "port": 1});
    refused(json!({ "nodes": {"a": node, "secret": SECRET} }), &["nodes.secret", "(not shown)"]);
    refused(json!({ "heartbeat_ms": SECRET }), &["heartbeat_ms", "(not shown)"]);
    let error = Config::try_from(json!({"a": {"ip": "127.0.0.1", "port": 1}, "secrets": SECRET}));
    assert!(!shows(&error.expect_err("no node").to_string()));
    let config = one_node().with(json!({ "secret": [SECRET, OTHER] })).expect("sound keys");
    let shown = format!("{config:?}");
    assert!(shown.contains("secret: Some") && !shows(&shown), "{shown}");
}

/// Who listens beyond this machine without a secret is warned, once a start.
#[test]
fn a_node_on_a_network_says_that_it_has_no_secret() {
    let Some(address) = common::outer_address() else {
        return common::skipped::skipped("this machine has no address but loopback");
    };
    narration();
    let start = |name: &str, address, keys: Value| {
        let config = Config::new([(name, address)]).expect("sound").with(keys).expect("sound");
        let node = RaftNode::new(config, name).expect("it is made");
        node.start().expect("it starts");
        ask(&node, json!(1));
    };
    start("outside", address, json!({}));
    start("secretly", address, json!({ "secret": SECRET }));
    start("within", common::address(), json!({}));
    assert_eq!(
        ["outside", "secretly", "within"].map(|name| warnings(name, "it trusts")),
        [1, 0, 0]
    );
}

/// A secret made by the example is one, its owner's alone, and never the same.
#[test]
fn keygen_makes_secrets() {
    let folder = Folder::new();
    let keygen = |path: &Path| Command::new(program::example("keygen")).arg(path).output();
    let paths = ["a.key", "b.key"].map(|name| folder.path().join(name));
    for path in &paths {
        let output = keygen(path).expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let config = one_node().with(json!({ "secret_file": path })).expect("sound keys");
        RaftNode::new(config, "a").expect("it is a secret");
    }
    let [a, b] = paths.each_ref().map(|path| fs::read_to_string(path).expect("a text"));
    assert_ne!(a, b);
    let again = keygen(&paths[0]).expect("it runs");
    assert!(!again.status.success(), "it writes over a secret");
    assert_eq!(fs::read_to_string(&paths[0]).expect("a text"), a);
}

/// Members come and go, and the file is made on a sealed path as on any other.
#[test]
fn a_sealed_cluster_grows() {
    let mut cluster: Cluster = Plan::voters(1).keys(json!({ "secret": SECRET })).start();
    ask(cluster.node(0), json!(1));
    let second = cluster.grow(0);
    cluster.wait_voter(second);
    ask(cluster.node(second), json!(2));
}
