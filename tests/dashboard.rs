//! The live picture, `examples/dashboard`, in a browser without a window: what it shows, and
//! that its buttons do what they say. Skipped where there is no Chromium.

#[path = "common/browser.rs"]
mod browser;
#[path = "common/folder.rs"]
#[allow(dead_code)] // each test file uses its own part of these
mod folder;
#[path = "common/program.rs"]
#[allow(dead_code)]
mod program;
#[path = "common/skipped.rs"]
mod skipped;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::browser::{Browser, DEADLINE};
use crate::program::example;

/// The program. It is killed when this is dropped, also by a test that panics.
struct Dashboard {
    child: Child,
    url: String,
}

impl Dashboard {
    fn start(slow: u32) -> Dashboard {
        let mut child = Command::new(example("dashboard"))
            .args(["--port", "0", "--slow", &slow.to_string()])
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("it says where the page is");
        let url = line.split_whitespace().last().unwrap_or_default().to_string();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Dashboard { child, url }
    }

    fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Sends a request as it stands, and gives the first line of the answer and the rest.
    fn ask(&self, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.host()).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (first, rest) = answer.split_once("\r\n").expect("a line");
        (first.to_string(), rest.to_string())
    }

    fn order(&self, host: &str, origin: &str, order: &Value) -> String {
        let body = order.to_string();
        let length = body.len();
        let request = format!(
            "POST /order HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: {length}\r\n\r\n{body}"
        );
        self.ask(&request).0
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One at a time: without a graphics card a page that moves takes a whole core.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The browser, or word that there is none.
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        skipped::skipped("there is no chromium");
    }
    browser
}

/// Slow enough that a browser on the same two cores does not cost a leader its office.
const SLOW: u32 = 4;

/// A page of this size that shows a leader, while no other test has one; or word that there
/// can be none.
fn page(width: u32, height: u32) -> Option<(MutexGuard<'static, ()>, Browser, Dashboard)> {
    let alone = alone();
    let mut browser = browser()?;
    let dashboard = Dashboard::start(SLOW);
    browser.open(&dashboard.url, width, height);
    browser.until("a leader", LEADER);
    Some((alone, browser, dashboard))
}

const LEADER: &str = "document.querySelector('.row.leader b')?.textContent";

/// Whether so many logs end with a committed entry of this value.
fn committed(value: u32, logs: usize) -> String {
    format!(
        "[...document.querySelectorAll('.row')].filter(row => \
         [...row.querySelectorAll('.cell.committed:not(.own)')].at(-1)?.lastChild.textContent \
         === '{value}').length === {logs}"
    )
}

/// The page loads and shows a leader; when that is stopped, another, and the verdict; a
/// request is committed in all logs, also in that of the node that was away; a link is cut
/// by keyboard alone. Nothing goes wrong on the page meanwhile.
#[test]
fn the_page_shows_what_happens_and_its_buttons_make_it_happen() {
    let Some((_alone, mut browser, _dashboard)) = page(1200, 900) else { return };
    let first = browser.until("a leader", LEADER);
    browser.until(
        "the leader in the heading",
        &format!("document.querySelector('#summary').textContent.startsWith({first} + ' leads')"),
    );

    browser.run("document.querySelector('.row.leader .power').click()");
    let second = browser.until(
        "another leader",
        &format!("[document.querySelector('.row.leader b')?.textContent].find(n => n !== {first})"),
    );
    assert_ne!(first, second);
    let said = |text: &str| format!("document.querySelector('#news').textContent.includes({text})");
    browser.until("the verdict", &said(&format!("{first} + ' is agreed to be down'")));
    browser.until("its mark in the ring", "document.querySelector('.node.stopped.down') !== null");

    browser.run("document.querySelector('#whom').value = [...document.querySelectorAll('.row')].findIndex(row => row.classList.contains('follower'))");
    browser.run("document.querySelector('#send').click()");
    browser.until("the entry in four logs", &committed(1, 4));
    browser.run("document.querySelector('.row.stopped .power').click()");
    browser.until("the entry in five logs", &committed(1, 5));

    browser.run("document.querySelector('#cut13').focus()");
    browser.press_enter();
    browser.until(
        "the cut link",
        "document.querySelector('#link13.cut') && \
         document.querySelector('#cut13').getAttribute('aria-pressed') === 'true'",
    );
    browser.run("document.querySelector('#heal').click()");
    browser.until("the mended link", "document.querySelector('.link.cut') === null");

    // The picture's own reading of datagrams knows those of the library.
    for kind in ["vote", "entries", "heartbeat", "request", "other"] {
        let count = format!("document.querySelector('#count-{kind}').textContent !== '0'");
        browser.until(&format!("datagrams of the kind {kind}"), &count);
    }
    assert_eq!(browser.problems(), [""; 0]);
}

/// A node that comes back without its memory is shown to join, and to vote again.
#[test]
fn a_node_that_forgets_is_shown_to_learn() {
    let Some((_alone, mut browser, _dashboard)) = page(1200, 900) else { return };
    browser.run("document.querySelector('#send10').click()");
    browser.until("ten entries", &committed(10, 5));
    browser.run("document.querySelector('.row.follower .forget').click()");
    browser.until(
        "its membership",
        "document.querySelector('#news').textContent.includes('learning: node')",
    );
    browser.until("all entries again", &committed(10, 5));
    assert_eq!(browser.problems(), [""; 0]);
}

/// At the width of a telephone nothing has to be pushed sideways, and every control has a
/// name and is large enough for a finger.
#[test]
fn the_page_fits_a_telephone() {
    let Some((_alone, mut browser, _dashboard)) = page(360, 740) else { return };
    // Who wants nothing to move sees links that are lit instead; that is drawn for a while.
    let still = json!([{"name": "prefers-reduced-motion", "value": "reduce"}]);
    browser.call("Emulation.setEmulatedMedia", json!({ "features": still }));
    let later = "Number(document.querySelector('#count-heartbeat').textContent.replace(',', ''))";
    let now = browser.run(later);
    browser.until("more heartbeats", &format!("{later} > {now} + 50"));
    let width = browser.run("document.documentElement.scrollWidth");
    assert_eq!(width, json!(360));
    let nameless = browser.run(
        "[...document.querySelectorAll('button, select, input')].filter(control => \
         !(control.ariaLabel || control.textContent || control.labels?.length)).length",
    );
    assert_eq!(nameless, json!(0));
    let small = browser.run(
        "[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect())\
         .filter(box => box.width < 24 || box.height < 24).length",
    );
    assert_eq!(small, json!(0));
    assert_eq!(browser.problems(), [""; 0]);
}

/// The Tab key goes through all controls in the order of the page, and each shows that it has
/// the focus; also when the page has lost the program for a moment and is told all anew.
#[test]
fn the_page_can_be_used_by_keyboard() {
    let Some((_alone, mut browser, _dashboard)) = page(1200, 900) else { return };
    browser.run("window.all = [...document.querySelectorAll('button, select, input, [tabindex]')]");
    let count = browser.run("all.length").as_u64().expect("a number");
    assert!(count > 30, "{count}");
    for place in 0..count {
        browser.press_tab();
        let is_at = browser.run("all.indexOf(document.activeElement)");
        assert_eq!(is_at, json!(place), "{}", browser.run("document.activeElement.outerHTML"));
        let outline = browser.run("getComputedStyle(document.activeElement).outline");
        assert!(outline.to_string().contains("solid 2px"), "{outline}");
    }
    browser.run("take({hello, entries: [], news: []})");
    assert_eq!(browser.run("all.indexOf(document.activeElement)"), json!(count - 1));
    assert_eq!(browser.problems(), [""; 0]);
}

/// A page that reads more slowly than it is told is dropped when it is some hundred frames
/// behind: what waits for it is bounded, and it is not shown what is long past.
#[test]
fn a_page_that_does_not_keep_up_is_dropped() {
    let dashboard = Dashboard::start(1);
    let mut page = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    page.set_recv_buffer_size(4096).expect("a socket");
    page.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let address: SocketAddr = dashboard.host().parse().expect("an address");
    page.connect(&address.into()).expect("it listens");
    let request = format!("GET /stream HTTP/1.1\r\nHost: {}\r\n\r\n", dashboard.host());
    page.write_all(request.as_bytes()).expect("it listens");
    let mut is_told = |pause_ms: u64, seconds: u64| {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            thread::sleep(Duration::from_millis(pause_ms));
            if page.read(&mut [0; 512]).expect("it is told, or its stream ends") == 0 {
                return false;
            }
        }
        true
    };
    // Slowly at first, but never so that it would be taken for one that has gone; then all that
    // still is on its way. Longer where the processor is busy and frames are rare.
    let mut longer = [8, 16, 32].into_iter();
    assert!(longer.any(|seconds| !is_told(100, seconds) || !is_told(0, 2)), "it is told for ever");
}

/// Another page in the same browser can send requests here too: it is refused, whether it
/// shows its origin, hides it, or bent a name of its own to this address.
#[test]
fn orders_come_from_the_page_alone() {
    let dashboard = Dashboard::start(1);
    let host = dashboard.host();
    let order = json!({"do": "lose", "percent": 0});
    let own = format!("Origin: http://{host}\r\n");
    assert_eq!(dashboard.order(host, &own, &order), "HTTP/1.1 200 OK");
    for (host, origin) in [
        (host, ""),
        (host, "Origin: null\r\n"),
        (host, "Origin: http://example.org\r\n"),
        ("example.org", "Origin: http://example.org\r\n"),
        ("example.org", own.as_str()),
    ] {
        let answer = dashboard.order(host, origin, &order);
        assert_eq!(answer, "HTTP/1.1 403 Forbidden", "{host} {origin}");
    }
    for (order, answer) in [
        (json!({"do": "stop", "node": 5}), "HTTP/1.1 409 Conflict"),
        (json!({"do": "nothing"}), "HTTP/1.1 409 Conflict"),
        (json!("x".repeat(2000)), "HTTP/1.1 400 Bad Request"),
    ] {
        assert_eq!(dashboard.order(host, &own, &order), answer, "{order}");
    }
    let (answer, _) = dashboard.ask("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n");
    assert_eq!(answer, "HTTP/1.1 403 Forbidden");
    let (answer, page) = dashboard.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!(answer, "HTTP/1.1 200 OK");
    assert!(page.contains("Content-Security-Policy"));
    // The one file is all there is.
    for outside in ["https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page reaches outside by {outside}");
    }
}

/// Not a test: draws the README's picture, and others to look at, in the folder of this
/// variable: `PICTURES=/tmp/pictures cargo test --test dashboard -- --ignored`.
#[test]
#[ignore = "draws pictures"]
fn pictures() {
    let folder = std::env::var("PICTURES").expect("PICTURES is the folder to draw in");
    let mut browser = browser().expect("a browser");
    let dashboard = Dashboard::start(20);
    browser.call("Emulation.setScrollbarsHidden", json!({"hidden": true}));
    browser.open(&dashboard.url, 1180, 860);
    browser.until("a leader", LEADER);
    browser.run("document.querySelector('#send10').click()");
    browser.until("ten entries", &committed(10, 5));
    browser.run("document.querySelector('.row.leader .power').click()");
    browser.until("the verdict", "document.querySelector('.node.stopped.down') !== null");
    // A link between two followers is cut, and one of them asked.
    browser.run(
        "const followers = [...document.querySelectorAll('.row')].map((row, node) => \
         row.classList.contains('follower') ? node : -1).filter(node => node >= 0);\
         document.querySelector(`#cut${followers[0]}${followers[1]}`).click();\
         document.querySelector('#whom').value = followers[0];\
         document.querySelector('#send').click()",
    );
    for (name, scheme, width, height) in [
        ("light", "light", 1180, 1085),
        ("dark", "dark", 1180, 1085),
        ("phone-light", "light", 360, 1600),
        ("phone-dark", "dark", 360, 1600),
    ] {
        let feature = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.call("Emulation.setEmulatedMedia", json!({ "features": feature }));
        browser.resize(width, height);
        browser.run("document.querySelector('#send').click()");
        // In the midst of it: followers have the entry, and tell the leader.
        browser.until("an entry on its way", "document.querySelector('.row.follower .cell.open')");
        let picture = browser.call("Page.captureScreenshot", json!({"format": "png"}));
        let bytes = base64(picture["data"].as_str().expect("a picture"));
        fs::write(format!("{folder}/{name}.png"), bytes).expect("the folder is there");
    }
}

/// The bytes behind this text.
fn base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_u32, 0);
    for value in text.bytes().filter_map(value) {
        (held, bits) = (held << 6 | u32::from(value), bits + 6);
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
