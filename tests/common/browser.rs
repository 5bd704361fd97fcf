//! A browser without a window, spoken to over its DevTools protocol.
//!
//! It has a profile of its own, and goes with it when this is dropped.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::folder::Folder;

/// How long anything may take before a test gives up.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// A browser with one page.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    next: u64,
    /// Which page is meant.
    session: Option<String>,
    /// What the page complained of: errors on its console, and exceptions.
    problems: VecDeque<String>,
    _profile: Folder,
}

impl Browser {
    /// `None` where there is no Chromium.
    pub fn start() -> Option<Browser> {
        let profile = Folder::new();
        let child = Command::new("chromium")
            .args([
                "--headless=new",
                "--remote-debugging-port=0",
                "--no-first-run",
                "--disable-gpu",
            ])
            // As root it has no sandbox; it sees nothing but this program's page.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // It writes the port, and the path of its own socket, when it listens.
        let file = profile.path().join("DevToolsActivePort");
        let mut child = Some(child);
        let deadline = Instant::now() + DEADLINE;
        let (port, path) = loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if let Some((port, path)) = text.trim_end().split_once('\n') {
                break (port.to_string(), path.to_string());
            }
            if Instant::now() > deadline {
                end(child.as_mut().expect("it is there until it is handed on"));
                panic!("no sign of Chromium within {DEADLINE:?}");
            }
            thread::sleep(Duration::from_millis(20));
        };
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
        let url = format!("ws://127.0.0.1:{port}{path}");
        let (socket, _) = tungstenite::client(url, stream).expect("it speaks the protocol");
        let child = child.take().expect("it was started");
        let problems = VecDeque::new();
        let mut browser =
            Browser { child, socket, next: 0, session: None, problems, _profile: profile };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": page["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_string);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Has it do something, and gives the result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).expect("it is there");
        loop {
            let Message::Text(text) = self.socket.read().expect("it answers") else { continue };
            let answer: Value = serde_json::from_str(&text).expect("it speaks JSON");
            if answer["id"] == json!(self.next) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.hear(&answer);
        }
    }

    fn hear(&mut self, event: &Value) {
        let (method, params) = (event["method"].as_str().unwrap_or_default(), &event["params"]);
        let bad = match method {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => params["type"] == "error" || params["type"] == "warning",
            "Log.entryAdded" => params["entry"]["level"] == "error",
            _ => false,
        };
        if bad {
            self.problems.push_back(params.to_string());
        }
    }

    /// Opens a page, as large as this.
    pub fn open(&mut self, url: &str, width: u32, height: u32) {
        self.resize(width, height);
        self.call("Page.navigate", json!({"url": url}));
    }

    /// Below 500 pixels it is a telephone.
    pub fn resize(&mut self, width: u32, height: u32) {
        let mobile = width < 500;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// What a line of script gives.
    #[track_caller]
    pub fn run(&mut self, script: &str) -> Value {
        let asked = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Polls until a line of script gives something: neither null, nor false, nor empty.
    #[track_caller]
    pub fn until(&mut self, what: &str, script: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.run(script);
            if !matches!(found, Value::Null | Value::Bool(false)) && found != json!("") {
                return found;
            }
            if Instant::now() > deadline {
                let text = self.run("document.body.innerText");
                panic!("no sign of {what} within {DEADLINE:?}; the page says: {text}");
            }
            thread::sleep(Duration::from_millis(25));
        }
    }

    /// Presses and releases the Enter key.
    pub fn press_enter(&mut self) {
        self.press("Enter", 13, "\r");
    }

    /// Presses and releases the Tab key.
    pub fn press_tab(&mut self) {
        self.press("Tab", 9, "");
    }

    fn press(&mut self, key: &str, number: u32, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let event = json!({
                "type": kind,
                "key": key,
                "code": key,
                "windowsVirtualKeyCode": number,
                "text": text,
            });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What the page complained of so far.
    pub fn problems(&mut self) -> Vec<String> {
        // What was said before this has been heard when this is answered.
        self.run("0");
        self.problems.drain(..).collect()
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own processes if it is asked, and they would write into its profile.
        self.session = None;
        let close = json!({"id": 0, "method": "Browser.close"});
        let _ = self.socket.send(Message::text(close.to_string()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline && !matches!(self.child.try_wait(), Ok(Some(_))) {
            thread::sleep(Duration::from_millis(10));
        }
        end(&mut self.child);
    }
}
