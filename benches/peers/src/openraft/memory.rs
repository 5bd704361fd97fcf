//! Nodes that call each other: a node's stream of entries goes straight into the other's
//! `stream_append`, which takes the next before it has answered the last.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use tokio::runtime::{Builder, Handle};

use super::store::{Snapshot, Types, Vote};
use super::{Raft, Transport};
use crate::cluster::Outcome;

/// All that are up.
#[derive(Clone)]
pub struct Memory(Arc<[RwLock<Option<Raft>>]>);

impl Memory {
    fn set(&self, node: u64, raft: Option<Raft>) {
        *self.0[node as usize].write().unwrap_or_else(PoisonError::into_inner) = raft;
    }
}

impl Transport for Memory {
    const NAME: &'static str = "openraft/memory";

    fn runtime() -> Builder {
        Builder::new_current_thread()
    }

    fn open(nodes: usize) -> Outcome<Memory> {
        Ok(Memory((0..nodes).map(|_| RwLock::new(None)).collect()))
    }

    fn up(&self, node: u64, raft: Raft, _: &Handle) {
        self.set(node, Some(raft));
    }

    fn down(&self, node: u64) {
        self.set(node, None);
    }
}

impl RaftNetworkFactory<Types> for Memory {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &()) -> Link {
        Link { all: self.clone(), target }
    }
}

/// To one other node.
pub struct Link {
    all: Memory,
    target: u64,
}

type Refused = RPCError<Types>;

fn unreachable(error: &(impl std::error::Error + 'static)) -> Unreachable<Types> {
    Unreachable::new(error)
}

impl Link {
    fn target(&self) -> Result<Raft, Unreachable<Types>> {
        let target = &self.all.0[self.target as usize];
        let raft = target.read().unwrap_or_else(PoisonError::into_inner).clone();
        raft.ok_or_else(|| unreachable(&io::Error::from(io::ErrorKind::ConnectionRefused)))
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, Refused> {
        Ok(self.target()?.append_entries(request).await.map_err(|e| unreachable(&e))?)
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
            let answers = self.target()?.stream_append(input);
            let answers = answers.map(|answer| Ok(answer.map_err(|e| unreachable(&e))?));
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, Refused> {
        Ok(self.target()?.vote(request).await.map_err(|e| unreachable(&e))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let installed = self.target()?.install_full_snapshot(vote, snapshot).await;
        Ok(installed.map_err(|e| unreachable(&e))?)
    }
}
