//! The page's server: three addresses, a thread for each connection, and 127.0.0.1 alone.
//!
//! | | |
//! |---|---|
//! | `GET /` | the page |
//! | `GET /stream` | its frames, as server-sent events |
//! | `POST /order` | something to be done, as JSON |
//!
//! Any page of the web that is open in the same browser can send requests here, too. So the
//! `Host` must be this one (or a name that was bent to this address would do), and an order
//! must have the `Origin` of this page.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::cluster::Cluster;
use crate::picture::Picture;

const PAGE: &str = include_str!("page.html");
/// So many connections at once.
const CONNECTIONS: usize = 32;
const HEAD_BYTES: usize = 8192;
const BODY_BYTES: usize = 1024;
/// So much the system holds of a page that reads slowly. Left to itself it would hold minutes.
const UNREAD_BYTES: usize = 16_384;
/// For who sends no request, or takes no frame.
const PATIENCE: Duration = Duration::from_secs(5);

const HEADERS: &str = "Connection: close\r\nCache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; \
    script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'\r\n";

pub fn bind(port: u16) -> Result<TcpListener, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map_err(|error| format!("the page cannot be at port {port}: {error} (see --port)"))
}

/// Serves from threads of its own, as long as the program runs.
pub fn serve(listener: TcpListener, cluster: Arc<Cluster>, picture: Arc<Picture>) {
    let open = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
                open.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (open, cluster, picture) =
                (Arc::clone(&open), Arc::clone(&cluster), Arc::clone(&picture));
            thread::spawn(move || {
                // A browser that goes away is no trouble of ours.
                let _ = answer(stream, &cluster, &picture);
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
}

/// What is of use of a request.
struct Asked {
    method: String,
    path: String,
    host: String,
    origin: String,
    body: Vec<u8>,
}

fn answer(stream: TcpStream, cluster: &Cluster, picture: &Picture) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let port = stream.local_addr()?.port();
    let Some(asked) = read(&stream)? else {
        return respond(&stream, "400 Bad Request", "text/plain", "this is no request\n");
    };
    let own = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if !own.contains(&asked.host) {
        return respond(&stream, "403 Forbidden", "text/plain", "this is another host\n");
    }
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/") => respond(&stream, "200 OK", "text/html; charset=utf-8", PAGE),
        ("GET", "/stream") => send_frames(&stream, picture),
        ("POST", "/order") if asked.origin != format!("http://{}", asked.host) => {
            respond(&stream, "403 Forbidden", "text/plain", "orders come from the page alone\n")
        }
        ("POST", "/order") => match carry_out(&asked.body, cluster) {
            Ok(done) => {
                picture.order(done);
                respond(&stream, "200 OK", "text/plain", "")
            }
            Err(problem) => respond(&stream, "409 Conflict", "text/plain", &problem),
        },
        _ => respond(&stream, "404 Not Found", "text/plain", "there is no such page\n"),
    }
}

fn carry_out(body: &[u8], cluster: &Cluster) -> Result<String, String> {
    let order = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    cluster.carry_out(&order).map_err(|error| error.to_string())
}

/// Reads one request. `None`: it is none, or too long.
fn read(stream: &TcpStream) -> io::Result<Option<Asked>> {
    let mut reader = BufReader::new(stream).take((HEAD_BYTES + BODY_BYTES) as u64);
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if bytes.len() >= HEAD_BYTES || reader.read(&mut byte)? == 0 {
            return Ok(None);
        }
        bytes.push(byte[0]);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let (Ok(_), Some(method), Some(path)) = (head.parse(&bytes), head.method, head.path) else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map_or(String::new(), |header| String::from_utf8_lossy(header.value).into_owned())
    };
    let (host, origin) = (header("host"), header("origin"));
    let (method, path) = (method.to_string(), path.to_string());
    let length = header("content-length").parse().unwrap_or(0);
    if length > BODY_BYTES {
        return Ok(None);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { method, path, host, origin, body }))
}

fn respond(mut stream: &TcpStream, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{HEADERS}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Sends frames until the page is gone, or does not keep up.
fn send_frames(mut stream: &TcpStream, picture: &Picture) -> io::Result<()> {
    SockRef::from(stream).set_send_buffer_size(UNREAD_BYTES)?;
    write!(stream, "HTTP/1.1 200 OK\r\n{HEADERS}Content-Type: text/event-stream\r\n\r\n")?;
    for frame in picture.look() {
        write!(stream, "data: {frame}\n\n")?;
    }
    Ok(())
}
