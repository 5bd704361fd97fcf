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

/// Likewise; and a secret in place of another is the only one.
#[test]
fn a_secret_file_is_relative_to_where_it_stands() {
    let here = std::env::current_dir().unwrap();
    let file = |config: Config| match &config.settings().secret {
        Some(SecretFrom::File(path)) => path.clone(),
        other => panic!("{other:?}"),
    };
    let text = json!({
        "nodes": {"a": {"ip": "127.0.0.1", "port": 1}},
        "secret_file": "x",
    });
    let loaded = Config::of_file(text.to_string().as_bytes(), Path::new("etc/c.json")).unwrap();
    assert_eq!(file(loaded.clone()), here.join("etc/x"));
    assert_eq!(file(loaded.clone().with(json!({"heartbeat_ms": 31})).unwrap()), here.join("etc/x"));
    assert_eq!(file(loaded.with(json!({"secret_file": "y"})).unwrap()), here.join("y"));
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
