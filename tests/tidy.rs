//! The house, held by tests: the core is pure, dependencies point one way, each
//! pitfall that applies so far has a test that names it, and the package is what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// All Rust files below a folder, with their text.
fn sources(folder: &str) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).expect("the folder is there") {
            let path = item.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending.is_empty()) {
                let text = fs::read_to_string(&path).expect("it is text");
                found.insert(path, text);
            }
        }
    }
    assert!(!found.is_empty(), "no file below {folder}");
    found
}

/// The code of a file: no comments, and nothing behind `#[cfg(test)] mod`.
fn code(text: &str) -> String {
    let product = match text.find("#[cfg(test)]\nmod tests {") {
        Some(tests) => &text[..tests],
        None => text,
    };
    let line = |line: &str| line.split("//").next().unwrap_or_default().replace("'static", "");
    product.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// The lines of product code below a folder that hold one of the words.
fn offenders(folder: &str, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(folder) {
        if is_test(&path) {
            continue;
        }
        for (number, line) in code(&text).lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)) {
                found.push(format!("{}:{}: {word}: {line}", path.display(), number + 1));
            }
        }
    }
    found
}

/// The core knows no clock, socket, file, thread, lock, global, logger, unseeded
/// chance, and no map whose order varies.
#[test]
fn the_core_is_pure() {
    let impure = [
        "std::time",
        "std::net",
        "std::fs",
        "std::io",
        "std::thread",
        "std::sync",
        "std::env",
        "std::process",
        "std::cell",
        "Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "RandomState",
        "fastrand",
        "getrandom",
        "println!",
        "eprintln!",
        "static ",
        "thread_local",
        "parking_lot",
        "crossbeam",
        "mio::",
        "socket2",
        "Mutex",
        "Atomic",
        "unsafe",
        "log::info",
        "log::debug",
        "log::trace",
        "log::warn",
        "log::error",
        "log::log",
    ];
    let found = offenders("src/core", &impure);
    assert!(found.is_empty(), "the core is not pure:\n{}", found.join("\n"));
}

/// The core uses itself, parts of `std` that hold no state, and `bytes`.
#[test]
fn the_core_uses_nothing_but_values() {
    let allowed = [
        "super",
        "self",
        "std::collections",
        "std::fmt",
        "std::ops",
        "::core::net",
        "bytes",
        "crate::core",
    ];
    for (path, text) in sources("src/core") {
        if is_test(&path) {
            continue;
        }
        for line in code(&text).lines() {
            let Some(used) = line.trim_start().trim_start_matches("pub ").strip_prefix("use ")
            else {
                continue;
            };
            let fine = allowed.iter().any(|start| used.starts_with(start));
            assert!(fine, "{}: use {used}", path.display());
        }
    }
}

/// Dependencies point one way: node, driver, engine, then core, wire and the
/// replicated state; what does no I/O does none.
#[test]
fn dependencies_point_one_way() {
    let upwards = |folder: &str, above: &[&str]| {
        let words: Vec<String> = above.iter().map(|module| format!("crate::{module}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let found = offenders(folder, &words);
        assert!(found.is_empty(), "{folder} reaches up:\n{}", found.join("\n"));
    };
    let all = ["engine", "driver", "node", "shared", "replica", "config", "storage", "wire"];
    upwards("src/encoding", &all);
    upwards("src/storage", &["engine", "driver", "node", "shared", "replica", "config", "wire"]);
    upwards("src/wire", &["engine", "driver", "node", "shared", "replica", "config", "storage"]);
    upwards("src/replica", &["engine", "driver", "node", "shared", "wire"]);
    upwards("src/engine", &["driver", "node", "shared", "event", "storage"]);
    upwards("src/driver", &["node"]);
    upwards("src/sim", &["driver", "node", "shared", "event", "config"]);
    let io = ["std::time", "std::fs", "std::thread", "mio::", "socket2", "getrandom", "log::log"];
    let found = offenders("src/engine", &io);
    assert!(found.is_empty(), "the engine does I/O:\n{}", found.join("\n"));
    let unseeded =
        ["Instant", "SystemTime", "std::fs", "std::thread", "std::net::Udp", "getrandom"];
    let found = offenders("src/sim", &unseeded);
    assert!(found.is_empty(), "the simulator knows more than its seed:\n{}", found.join("\n"));
}

/// The pitfalls of elections, replication, snapshots, membership, storage, reads, requests
/// and time, and those of the wire and the process.
const APPLY_SO_FAR: [std::ops::RangeInclusive<u32>; 2] = [1..=49, 51..=69];

/// Each pitfall that applies has a test that names it: `pitfall 17` in its doc
/// comment, or in the head of its script.
#[test]
fn each_pitfall_that_applies_has_a_test_that_names_it() {
    let mut named = BTreeSet::new();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    // Of the sources only what is test: a rule's own comment is no test of it.
    let of_test = |(path, text): (PathBuf, String)| match text.find("#[cfg(test)]\nmod ") {
        _ if is_test(&path) => text,
        Some(tests) => text[tests..].to_string(),
        None => String::new(),
    };
    let mut texts: Vec<String> = sources("src").into_iter().map(of_test).collect();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(file!());
    texts.extend(
        sources("tests").into_iter().filter(|(path, _)| *path != own).map(|(_, text)| text),
    );
    let mut folders = vec![scripts];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match item.path() {
                path if path.is_dir() => folders.push(path),
                path => texts.push(fs::read_to_string(path).unwrap_or_default()),
            }
        }
    }
    for text in texts {
        let lower = text.to_lowercase();
        for (place, word) in lower.match_indices("pitfall") {
            let numbers = lower[place + word.len()..].trim_start_matches('s');
            for number in numbers.split([',', ' ']).filter(|part| !part.is_empty()) {
                let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
                match digits.parse::<u32>() {
                    Ok(number) => named.insert(number),
                    Err(_) if number == "and" || number == "to" || number == "///" => continue,
                    Err(_) => break,
                };
            }
        }
    }
    let missing: Vec<u32> =
        APPLY_SO_FAR.into_iter().flatten().filter(|number| !named.contains(number)).collect();
    assert!(missing.is_empty(), "no test names these pitfalls: {missing:?}");
}

/// What a program says when it is run with these arguments in this package.
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let ran = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    let error = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(ran.stdout).expect("it is text")
}

/// `1.89` and `1.89.0` as numbers that can be compared.
fn version(text: &str) -> [u32; 3] {
    let mut parts = text.split('.').map(|part| part.parse().expect("a number"));
    [(); 3].map(|()| parts.next().unwrap_or(0))
}

/// `rust-version` is true of what is built in: no package that comes with the library, on
/// this platform, asks for a newer compiler. (Of our own code clippy keeps it, by
/// `incompatible_msrv`.)
#[test]
fn nothing_that_is_built_in_needs_a_newer_compiler() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
    let host = said(&rustc, &["-vV"]);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).expect("it says so");
    let arguments = ["metadata", "--format-version=1", "--locked", "--offline", "--all-features"];
    let arguments = [&arguments[..], &["--filter-platform", host]].concat();
    let metadata: Value = serde_json::from_str(&said(env!("CARGO"), &arguments)).expect("JSON");
    let by_id = |list: &Value| -> BTreeMap<String, Value> {
        let items = list.as_array().expect("a list").iter();
        items.map(|item| (item["id"].as_str().expect("an id").to_string(), item.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));
    let root = metadata["resolve"]["root"].as_str().expect("this package");
    let ours = packages[root]["rust_version"].as_str().expect("rust-version stands there");

    let (mut seen, mut open) = (BTreeSet::new(), vec![root]);
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let (name, wants) = (&packages[id]["name"], packages[id]["rust_version"].as_str());
        let fine = wants.is_none_or(|wants| version(wants) <= version(ours));
        assert!(fine, "{name} needs {wants:?}, and we say {ours}");
        for dependency in nodes[id]["deps"].as_array().expect("a list") {
            // Those of tests and examples may want what they like.
            let kinds = dependency["dep_kinds"].as_array().expect("a list");
            if kinds.iter().any(|kind| kind["kind"] != "dev") {
                open.push(dependency["pkg"].as_str().expect("an id"));
            }
        }
    }
    assert!(seen.len() > 20, "only {seen:?}");
}

/// The package holds what the README names, and nothing that is large.
#[test]
fn the_package_is_small_and_whole() {
    let list = said(env!("CARGO"), &["package", "--list", "--allow-dirty", "--offline"]);
    let listed: BTreeSet<&str> = list.lines().collect();
    let named = ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "cluster.json"];
    let programs = ["examples/cluster.rs", "examples/node.rs", "tests/five_calls.rs"];
    for file in named.iter().chain(&programs) {
        assert!(listed.contains(file), "{file} is not in the package");
    }
    for file in listed {
        // Those that cargo makes are not there.
        let bytes = fs::metadata(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        let bytes = bytes.map_or(0, |metadata| metadata.len());
        assert!(bytes <= 64 * 1024, "{file} has {bytes} bytes: is it for users?");
        assert!(!file.starts_with('.') || file == ".cargo_vcs_info.json", "{file} is no user's");
    }
}

/// The changelog has the versions of the formats that this build speaks.
#[test]
fn the_changelog_knows_the_formats() {
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"))
    };
    let changelog = read("CHANGELOG.md");
    for (file, constant, format) in [
        ("src/wire/frame.rs", "const VERSION: u8 = ", "datagrams"),
        ("src/storage/format.rs", "const FORMAT_VERSION: u32 = ", "files of the log"),
        ("src/encoding/snapshot.rs", "const VERSION: u8 = ", "snapshots, around the state"),
        ("src/replica/snapshot.rs", "const VERSION: u8 = ", "snapshots, the replicated state"),
    ] {
        let text = read(file);
        let number = text.split(constant).nth(1).and_then(|rest| rest.split(';').next());
        let number = number.unwrap_or_else(|| panic!("{file} has no {constant}"));
        let line = format!("| {format} | {number} | the head of `{file}` |");
        assert!(changelog.contains(&line), "the changelog does not say: {line}");
    }
}
