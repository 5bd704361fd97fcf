//! Nodes that talk over TCP on loopback.
//!
//! A link has two connections: one for entries and heartbeats, one for votes and snapshots;
//! openraft makes a link of its own for heartbeats, so that no entries hold them up. A
//! message is its length in four bytes and then itself, by postcard.
//!
//! Entries are pipelined: the same task sends each request as soon as openraft has it and
//! takes the answers as they come, in order, since the other side feeds them to its
//! `stream_append`. A connection outlives the stream of requests if all is answered: a
//! heartbeat is such a stream of one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::FutureExt;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::{AbortHandle, JoinSet};

use super::store::{Meta, Snapshot, Types, Vote};
use super::{Raft, Transport};
use crate::cluster::Outcome;

/// Where all are, and the tasks that serve those who are up.
#[derive(Clone)]
pub struct Tcp(Arc<[Place]>);

struct Place {
    address: SocketAddr,
    serving: Mutex<Option<AbortHandle>>,
}

impl Tcp {
    fn set(&self, node: u64, serving: Option<AbortHandle>) {
        let place = &self.0[node as usize].serving;
        let before =
            std::mem::replace(&mut *place.lock().unwrap_or_else(PoisonError::into_inner), serving);
        if let Some(before) = before {
            before.abort();
        }
    }
}

impl Transport for Tcp {
    const NAME: &'static str = "openraft/tcp";

    fn runtime() -> Builder {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    }

    fn open(nodes: usize) -> Outcome<Tcp> {
        // Nobody else gets the ports while all of them are held.
        let held: Vec<std::net::TcpListener> = (0..nodes)
            .map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<io::Result<_>>()?;
        let place = |listener: &std::net::TcpListener| {
            Ok(Place { address: listener.local_addr()?, serving: Mutex::new(None) })
        };
        Ok(Tcp(held.iter().map(place).collect::<io::Result<_>>()?))
    }

    fn up(&self, node: u64, raft: Raft, runtime: &Handle) {
        let address = self.0[node as usize].address;
        let listener = runtime.block_on(TcpListener::bind(address)).expect("the port is free");
        let serving = runtime.spawn(serve(listener, raft));
        self.set(node, Some(serving.abort_handle()));
    }

    /// All its connections are closed, as when a process ends.
    fn down(&self, node: u64) {
        self.set(node, None);
    }
}

impl RaftNetworkFactory<Types> for Tcp {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &()) -> Link {
        let address = self.0[target as usize].address;
        Link { address, entries: Line::default(), others: Line::default() }
    }
}

/// To one other node.
pub struct Link {
    address: SocketAddr,
    entries: Line,
    others: Line,
}

/// One connection, opened when it is needed.
#[derive(Default)]
struct Line {
    stream: Option<TcpStream>,
    /// Nothing is on its way: it can be used again.
    idle: bool,
}

/// What a connection is for: its first byte.
const ENTRIES: u8 = 0;
const OTHERS: u8 = 1;

#[derive(Serialize, Deserialize)]
enum Question {
    Vote(VoteRequest<Types>),
    Snapshot(Vote, Meta, Bytes),
}

impl Line {
    async fn open(&mut self, address: SocketAddr, purpose: u8) -> io::Result<&mut TcpStream> {
        if !self.idle {
            self.stream = None;
        }
        self.idle = false;
        if self.stream.is_none() {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_u8(purpose).await?;
            self.stream = Some(stream);
        }
        Ok(self.stream.as_mut().expect("it is open"))
    }
}

impl Link {
    async fn ask<A: DeserializeOwned>(
        &mut self,
        question: Question,
    ) -> Result<A, Unreachable<Types>> {
        let answer = async {
            let stream = self.others.open(self.address, OTHERS).await?;
            let mut frame = Vec::new();
            put(&mut frame, &question)?;
            stream.write_all(&frame).await?;
            Frames::new(stream).next().await
        };
        let answer = answer.await.map_err(|error: io::Error| Unreachable::new(&error))?;
        self.others.idle = true;
        Ok(answer)
    }
}

type Refused = RPCError<Types>;

/// What happens on a connection for entries.
enum Event {
    Answer(io::Result<StreamAppendResult<Types>>),
    /// All were sent, so many.
    Sent(io::Result<u64>),
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Refused> {
        Err(Unreachable::from_string("all entries go by stream_append").into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, Refused>>, Refused>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let opened = self.entries.open(self.address, ENTRIES).await;
            opened.map_err(|error| Unreachable::new(&error))?;
            let Line { stream: Some(stream), idle } = &mut self.entries else {
                unreachable!("it was opened just now")
            };
            let (from, to) = stream.split();
            let sent = stream::once(send_all(input, to)).map(Event::Sent);
            let answers = stream::unfold(Frames::new(from), async |mut from| {
                Some((Event::Answer(from.next().await), from))
            });
            let events = stream::select(Box::pin(sent), Box::pin(answers));
            let state = Some((events, 0, None));
            let answers = stream::unfold((state, idle), async |(state, idle)| {
                let (mut events, mut answered, mut sent) = state?;
                loop {
                    if sent == Some(answered) {
                        *idle = true;
                        return None;
                    }
                    match events.next().await? {
                        Event::Sent(Ok(all)) => sent = Some(all),
                        Event::Answer(Ok(answer)) => {
                            answered += 1;
                            // The other side ends its stream with such an answer.
                            let state = answer.is_ok().then_some((events, answered, sent));
                            return Some((Ok(answer), (state, idle)));
                        }
                        Event::Sent(Err(error)) | Event::Answer(Err(error)) => {
                            let error = NetworkError::new(&error).into();
                            return Some((Err(error), (None, idle)));
                        }
                    }
                }
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Refused> {
        Ok(self.ask(Question::Vote(request)).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Ok(self.ask(Question::Snapshot(vote, snapshot.meta, snapshot.snapshot)).await?)
    }
}

async fn send_all(
    mut requests: impl Stream<Item = AppendEntriesRequest<Types>> + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<u64> {
    let (mut frame, mut sent) = (Vec::new(), 0);
    while let Some(request) = requests.next().await {
        frame.clear();
        put(&mut frame, &request)?;
        to.write_all(&frame).await?;
        sent += 1;
    }
    Ok(sent)
}

async fn serve(listener: TcpListener, raft: Raft) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // An error ends the connection, and the other side opens another.
        connections.spawn(serve_one(stream, raft.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_one(mut stream: TcpStream, raft: Raft) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ENTRIES => serve_entries(stream, raft).await,
        _ => serve_others(stream, raft).await,
    }
}

async fn serve_entries(stream: TcpStream, raft: Raft) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let requests = stream::unfold(Frames::new(from), async |mut from| {
        Some((from.next::<AppendEntriesRequest<Types>>().await.ok()?, from))
    });
    let mut answers = std::pin::pin!(raft.stream_append(requests).fuse());
    let mut frames = Vec::new();
    while let Some(answer) = answers.next().await {
        frames.clear();
        put(&mut frames, &answer.map_err(io::Error::other)?)?;
        while let Some(Some(answer)) = answers.next().now_or_never() {
            put(&mut frames, &answer.map_err(io::Error::other)?)?;
        }
        to.write_all(&frames).await?;
    }
    Ok(())
}

async fn serve_others(mut stream: TcpStream, raft: Raft) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let question = Frames::new(&mut stream).next().await?;
        frame.clear();
        match question {
            Question::Vote(request) => {
                put(&mut frame, &raft.vote(request).await.map_err(io::Error::other)?)?;
            }
            Question::Snapshot(vote, meta, snapshot) => {
                let snapshot = Snapshot { meta, snapshot };
                let installed = raft.install_full_snapshot(vote, snapshot).await;
                put(&mut frame, &installed.map_err(io::Error::other)?)?;
            }
        }
        stream.write_all(&frame).await?;
    }
}

/// Adds a message to what is to be written.
fn put(frames: &mut Vec<u8>, message: &impl Serialize) -> io::Result<()> {
    let start = frames.len();
    let mut all = std::mem::take(frames);
    all.extend_from_slice(&[0; 4]);
    *frames = postcard::to_extend(message, all).map_err(io::Error::other)?;
    let length = (frames.len() - start - 4) as u32;
    frames[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Messages as they come.
struct Frames<R> {
    from: BufReader<R>,
    frame: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(from: R) -> Frames<R> {
        Frames { from: BufReader::with_capacity(64 << 10, from), frame: Vec::new() }
    }

    async fn next<M: DeserializeOwned>(&mut self) -> io::Result<M> {
        let length = self.from.read_u32_le().await?;
        self.frame.resize(length as usize, 0);
        self.from.read_exact(&mut self.frame).await?;
        postcard::from_bytes(&self.frame).map_err(io::Error::other)
    }
}
