//! The house, held by tests: the core is pure, dependencies point one way, and each
//! pitfall that applies so far has a test that names it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

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
