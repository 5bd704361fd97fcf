//! What can be asked, and all the ways to wait for what comes of it.

use super::json::DEPTH_LIMIT;
use super::*;
use serde_json::json;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_string()).unwrap()
}

fn deep(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn deep_value(levels: usize) -> Value {
    (0..levels).fold(Value::Null, |inner, _| json!([inner]))
}

#[track_caller]
fn json_of(request: Request) -> String {
    match request.into_kind() {
        Kind::Command { draft, .. } => String::from_utf8(draft.json().to_vec()).unwrap(),
        Kind::Query { json } => String::from_utf8(json).unwrap(),
        Kind::Lookup { id } => panic!("a lookup of {id}"),
        Kind::Change(wish) => panic!("{wish:?}"),
        Kind::Bad { reason } => panic!("{reason}"),
    }
}

#[track_caller]
fn reason_of(request: Request) -> String {
    match request.into_kind() {
        Kind::Bad { reason } => reason,
        _ => panic!("the request was taken"),
    }
}

#[test]
fn commands_and_queries_are_json() {
    assert_eq!(json_of(Request::from(json!({"val": 1}))), r#"{"val":1}"#);
    assert_eq!(json_of(Request::from(&json!("x"))), r#""x""#);
    assert_eq!(json_of(Request::command("text")), r#""text""#);
    assert_eq!(json_of(Request::query(&("of", 1))), r#"["of",1]"#);
    assert_eq!(json_of(Request::command(&raw("  [1,\n 2]"))), "[1,\n 2]");
    assert_eq!(json_of(Request::command(&BTreeMap::from([(1, 2)]))), r#"{"1":2}"#);
}

#[test]
fn numbers_that_json_has_not() {
    assert_eq!(json_of(Request::command(&f64::NAN)), "null");
    assert_eq!(json_of(Request::command(&[f64::INFINITY])), "[null]");
    assert_eq!(json_of(Request::from(json!(f64::NAN))), "null");
    assert_eq!(json_of(Request::command(&u128::MAX)), u128::MAX.to_string());
    assert!(reason_of(Request::command(&raw("1e999"))).contains("out of range"));
    assert!(reason_of(Request::query(&raw("[1e999]"))).contains("out of range"));
}

#[test]
fn what_cannot_be_read_back_is_refused() {
    for text in [r#""\ud800""#, r#"{"\udc00": 1}"#, r#"{"a": ["\ud800x"]}"#] {
        assert!(reason_of(Request::command(&raw(text))).contains("read back"), "{text}");
    }
    let marked = r#"{"$serde_json::private::RawValue": "{"}"#;
    assert!(reason_of(Request::command(&raw(marked))).contains("serde_json's own"));
    let marked = json!({json::RAW_VALUE_MARK: 1});
    assert!(reason_of(Request::from(marked)).contains("serde_json's own"));
    let keys = BTreeMap::from([((1, 2), 3)]);
    assert!(reason_of(Request::command(&keys)).contains("no JSON"));
    let keys = BTreeMap::from([(vec![1], 3)]);
    assert!(reason_of(Request::query(&keys)).contains("no JSON"));
}

#[test]
fn depth_is_bounded_as_the_parser_bounds_it() {
    assert!(serde_json::from_str::<Value>(&deep(DEPTH_LIMIT)).is_ok());
    assert!(serde_json::from_str::<Value>(&deep(DEPTH_LIMIT + 1)).is_err());
    assert_eq!(json_of(Request::command(&raw(&deep(DEPTH_LIMIT)))), deep(DEPTH_LIMIT));
    json_of(Request::from(deep_value(DEPTH_LIMIT)));
    json_of(Request::command(&deep_value(DEPTH_LIMIT)));
    for levels in [DEPTH_LIMIT + 1, 200] {
        assert!(reason_of(Request::command(&raw(&deep(levels)))).contains("recursion"));
        assert!(reason_of(Request::command(&deep_value(levels))).contains("recursion"));
        assert!(reason_of(Request::from(deep_value(levels))).contains("nested too deeply"));
    }
}

#[test]
fn a_serializer_that_fails_is_a_bad_request() {
    struct Failing;
    impl Serialize for Failing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("the file is locked"))
        }
    }
    assert!(reason_of(Request::command(&Failing)).contains("the file is locked"));
    assert!(reason_of(Request::command(&Failing).id("a")).contains("the file is locked"));
}

#[test]
fn ids_have_1_to_256_bytes_and_belong_to_commands() {
    let id_of = |request: Request| match request.into_kind() {
        Kind::Command { id, .. } => id,
        _ => panic!("no command"),
    };
    let longest = "ä".repeat(128);
    assert_eq!(id_of(Request::from(json!(1))), None);
    assert_eq!(id_of(Request::from(json!(1)).id(&longest)), Some(longest.clone()));
    assert_eq!(id_of(Request::from(json!(1)).id("a").id("b")), Some("b".to_string()));
    assert!(reason_of(Request::from(json!(1)).id("")).contains("empty"));
    assert!(reason_of(Request::from(json!(1)).id(longest.clone() + "a")).contains("257"));
    assert!(reason_of(Request::query(&1).id("a")).contains("query"));
    assert!(reason_of(Request::lookup("a").id("a")).contains("lookup"));
    assert!(reason_of(Request::lookup("")).contains("empty"));
    assert!(reason_of(Request::lookup(longest + "a")).contains("257"));
}

#[test]
fn debug_shows_what_was_asked() {
    let shown = |request: Request| format!("{request:?}");
    assert_eq!(shown(Request::from(json!([1]))), "Request::command([1])");
    assert_eq!(shown(Request::query(&1)), "Request::query(1)");
    assert_eq!(shown(Request::lookup("a")), "Request::lookup(\"a\")");
    assert!(shown(Request::lookup("")).starts_with("Request::invalid("));
}

fn reply(index: u64) -> Reply {
    Reply { index, term: 1, value: json!({"ok": index}), value_kept: true }
}

fn pending() -> (oneshot::Sender<Answer>, Pending) {
    let (sender, receiver) = oneshot::async_channel();
    (sender, Pending::new(receiver))
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = thread_waker();
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Counts its wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn pending_goes_everywhere() {
    fn check<T: Send + Sync + Unpin + fmt::Debug + 'static>(_: &T) {}
    let (sender, mut pending) = pending();
    check(&pending);
    assert_eq!(format!("{pending:?}"), "Pending { answer: None }");
    sender.send(Err(RequestError::Stopped)).unwrap();
    assert_eq!(pending.try_reply(), Err(RequestError::Stopped));
    assert_eq!(format!("{pending:?}"), "Pending { answer: Some(Err(Stopped)) }");
}

#[test]
fn the_answer_is_kept_whichever_way_it_is_asked_for() {
    let (sender, mut pending) = pending();
    assert_eq!(pending.try_reply(), Ok(None));
    assert_eq!(pending.wait_timeout(Duration::ZERO), Ok(None));
    assert_eq!(pending.wait_timeout(Duration::from_millis(1)), Ok(None));
    sender.send(Ok(reply(4))).unwrap();
    assert_eq!(block_on(&mut pending), Ok(reply(4)));
    assert_eq!(block_on(&mut pending), Ok(reply(4)), "polled again after it was ready");
    assert_eq!(pending.try_reply(), Ok(Some(reply(4))));
    assert_eq!(pending.wait_timeout(Duration::ZERO), Ok(Some(reply(4))));
    assert_eq!(pending.wait_timeout(Duration::MAX), Ok(Some(reply(4))));
    assert_eq!(pending.wait(), Ok(reply(4)));
}

#[test]
fn a_dropped_sender_is_unknown_and_stays_so() {
    let (sender, mut pending) = pending();
    assert_eq!(pending.try_reply(), Ok(None));
    drop(sender);
    assert_eq!(pending.try_reply(), Err(RequestError::Unknown));
    assert_eq!(block_on(&mut pending), Err(RequestError::Unknown));
    assert_eq!(pending.wait_timeout(Duration::MAX), Err(RequestError::Unknown));
    assert_eq!(pending.wait(), Err(RequestError::Unknown));
}

#[test]
fn a_dropped_pending_lets_the_sender_be() {
    let (sender, mut dropped) = pending();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert!(Pin::new(&mut dropped).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(dropped);
    assert!(sender.send(Ok(reply(1))).is_err());
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    drop(pending());
}

#[test]
fn looking_leaves_a_tasks_waker_in_place() {
    let (sender, mut pending) = pending();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
    assert!(Pin::new(&mut pending).poll(&mut context).is_pending());
    assert_eq!(pending.try_reply(), Ok(None));
    sender.send(Ok(reply(1))).unwrap();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert_eq!(pending.wait(), Ok(reply(1)));
}

#[test]
fn threads_that_wait_are_woken() {
    let threads: Vec<_> = (0..64)
        .map(|n| {
            let (sender, mut asked) = pending();
            let waiting = thread::spawn(move || match n % 4 {
                0 => asked.wait(),
                1 => block_on(asked),
                2 => asked.wait_timeout(Duration::MAX).map(|reply| reply.expect("no limit")),
                _ => loop {
                    match asked.wait_timeout(Duration::from_micros(70)) {
                        Ok(Some(reply)) => break Ok(reply),
                        Ok(None) => (),
                        Err(error) => break Err(error),
                    }
                },
            });
            (n, sender, waiting)
        })
        .collect();
    let (answered, left): (Vec<_>, Vec<_>) = threads.into_iter().partition(|(n, ..)| n % 8 < 6);
    // Long enough for most to be parked; right whether they are or not.
    thread::sleep(Duration::from_millis(2));
    for (n, sender, waiting) in answered {
        sender.send(Ok(reply(n))).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(reply(n)));
    }
    for (_, sender, waiting) in left {
        drop(sender);
        assert_eq!(waiting.join().unwrap(), Err(RequestError::Unknown));
    }
}

#[test]
fn one_thread_waits_many_times_with_one_waker() {
    let (requests, node) = crossbeam_channel::unbounded::<oneshot::Sender<Answer>>();
    let node = thread::spawn(move || {
        for (n, sender) in node.iter().enumerate() {
            let _ = sender.send(Ok(reply(n as u64)));
        }
    });
    for n in 0..2000 {
        let (sender, pending) = pending();
        requests.send(sender).unwrap();
        assert_eq!(pending.wait(), Ok(reply(n)));
    }
    assert!(thread_waker().will_wake(&thread_waker()));
    drop(requests);
    node.join().unwrap();
}

#[test]
fn within_a_callback_nothing_blocks() {
    let (sender, mut early) = pending();
    let _guard = guard::enter();
    let refused = early.wait_timeout(Duration::MAX).unwrap_err();
    assert!(matches!(&refused, RequestError::Invalid { reason } if reason.contains("callback")));
    assert_eq!(early.try_reply(), Ok(None), "the request goes on");
    sender.send(Ok(reply(1))).unwrap();
    assert_eq!(early.wait(), Ok(reply(1)), "what is there is answered");
    let (_sender, late) = pending();
    assert!(matches!(late.wait(), Err(RequestError::Invalid { .. })));
}
