//! What can go wrong: `Error` for a node and its config, `RequestError` for one
//! request. Each variant is named by what the caller can do about it, and says
//! whether anything changed.

use std::convert::Infallible;
use std::io;

use thiserror::Error;

/// Any error of a user's own: what a state machine may answer. Text becomes one by `?` or
/// `.into()`, as does any `std::error::Error`; see [`StateMachine`](crate::StateMachine) for an
/// example.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a config was refused, or a node could not be made or started.
///
/// Nothing was changed and nothing is left running when one of these is answered. What to
/// do about each is told in [`guide::no_start`](crate::guide::no_start).
///
/// ```
/// use kontiki::{Config, Error};
/// use serde_json::json;
///
/// let config = json!({"nodes": {"a": {"ip": "127.0.0.1", "port": 70_000}}});
/// match Config::try_from(config) {
///     Err(Error::Config { key, problem, remedy, .. }) => {
///         assert_eq!(key, "nodes.a.port");
///         println!("{problem}; {remedy}");
///     }
///     other => panic!("{other:?}"),
/// }
/// ```
///
/// More kinds of error may come, and more fields in each of them: a `match` needs a `_`, and
/// a pattern of fields `..`. The texts are for people and may change.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The config says something that cannot work. Nothing was opened or bound.
    #[error("{key}: {problem}; {remedy}")]
    #[non_exhaustive]
    Config {
        /// Which key, as its path in the file: `nodes.node1.port`. Where the
        /// file as a whole is meant, its path.
        key: String,
        /// What is wrong with it, with the value that it has.
        problem: String,
        /// What would be right.
        remedy: String,
    },
    /// The operating system refused something that the node cannot do without.
    #[error("cannot {doing}: {source}")]
    #[non_exhaustive]
    Io {
        /// What was tried, with the path or the address: `read the file "cluster.json"`.
        doing: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// What is on the disk cannot be trusted, or is another node's. It was left as it
    /// is.
    #[error("{file}, at byte {offset}: {problem}; {remedy}")]
    #[non_exhaustive]
    Storage {
        /// Which file, or folder.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        problem: String,
        /// What can be done.
        remedy: String,
    },
    /// The state machine could not be made, or could not be restored.
    #[error("the state machine could not be made ready: {source}")]
    #[non_exhaustive]
    Machine {
        /// What it answered.
        source: BoxError,
    },
    /// This node takes no part any more, and why: its disk failed, or a bug of the
    /// library or of a state machine, or proof of broken safety. Nothing that it
    /// acknowledged is lost; [`RaftNode::start`](crate::RaftNode::start) after
    /// [`stop`](crate::RaftNode::stop) tries again.
    #[error("this node has failed: {reason}")]
    #[non_exhaustive]
    Failed {
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// A mistake in the config.
    pub(crate) fn config(
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::Config { key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

/// So that a `Config` or a `&Config`, whose conversion cannot fail, goes where a path goes.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Error {
        match never {}
    }
}

/// Why a request was not taken, or how it ended if not with a [`Reply`](crate::Reply).
///
/// All but [`Unknown`](RequestError::Unknown) say for certain that this request
/// changed nothing in the cluster's state.
///
/// ```
/// use kontiki::{Config, RaftNode, RequestError};
/// use serde_json::json;
///
/// # let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
/// let node = RaftNode::new(Config::new([("a", free)])?, "a")?;
/// match node.client_request(json!(1)) {
///     Err(RequestError::NotStarted) => {} // nothing was sent anywhere
///     Err(RequestError::Busy { limit, .. }) => panic!("{limit} are outstanding"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// As in [`enum@Error`], more kinds and more fields may come, and texts may change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The node is not started. The request was not taken.
    #[error("the node is not started, so the request was not taken: call start first")]
    NotStarted,
    /// The node was stopped before it sent the request anywhere.
    #[error("the node was stopped, and the request was not committed")]
    Stopped,
    /// The node takes no part any more until it is started again. The request was not
    /// sent anywhere.
    #[error("the node has failed, and the request was not committed: {reason}")]
    #[non_exhaustive]
    Failed {
        /// What happened to the node.
        reason: String,
    },
    /// So many requests wait for their answers at this node that it takes no
    /// more. The request was not taken: ask again when some are answered.
    #[error(
        "{limit} requests are outstanding at this node and it takes no more; \
         this one was not taken: ask again when some are answered"
    )]
    #[non_exhaustive]
    Busy {
        /// The most that may be outstanding.
        limit: usize,
    },
    /// The request is larger than the config allows. It was not taken.
    #[error(
        "the request has {bytes} bytes of JSON and the limit is {limit} (max_value_bytes); \
         it was not taken"
    )]
    #[non_exhaustive]
    TooLarge {
        /// How large it is, in bytes of JSON.
        bytes: usize,
        /// How large it may be, in bytes of JSON (`max_value_bytes`).
        limit: usize,
    },
    /// There is no such request, or it was asked where it cannot be answered.
    /// Asking the same again gives the same.
    #[error("this request cannot be: {reason}")]
    #[non_exhaustive]
    Invalid {
        /// Which part, or which combination, is wrong.
        reason: String,
    },
    /// The cluster took the request and refused it. It was not committed.
    #[error("the request was refused, and it was not committed: {reason}")]
    #[non_exhaustive]
    Refused {
        /// Why.
        reason: String,
    },
    /// A lookup found no committed entry with this id among those whose ids are
    /// still remembered. One that is on its way may yet be committed.
    #[error("no entry with the id {id:?} is committed, among those whose ids are still remembered")]
    #[non_exhaustive]
    NotFound {
        /// The id that was looked for.
        id: String,
    },
    /// The answer did not come. The request may or may not be committed, now
    /// or later; it is not retried any more.
    ///
    /// A request with an [`id`](crate::Request::id) can be looked up, or asked again under
    /// the same id: that commits it once, whatever became of the first. Without an id, to ask
    /// again may commit it twice. So a program without ids asks again only what may be done
    /// twice, also with what others did in between, or what says itself when it is void (`set x
    /// to 3 if it is still 2`). To look at the state first is not enough: the first one may be
    /// committed after the look.
    #[error(
        "the outcome is unknown: the request may or may not be committed, now or later; \
         one that has an id can be looked up, or asked again under that id; one without \
         may be committed twice if it is asked again"
    )]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_speak_to_the_caller() {
        let text = |error: RequestError| error.to_string();
        assert!(text(RequestError::Unknown).contains("may or may not be committed"));
        assert!(text(RequestError::Stopped).contains("was not committed"));
        assert!(text(RequestError::Busy { limit: 4096 }).contains("4096"));
        let large = text(RequestError::TooLarge { bytes: 70, limit: 64 });
        assert!(large.contains("70") && large.contains("64") && large.contains("max_value_bytes"));
        assert!(text(RequestError::NotFound { id: "a".into() }).contains("\"a\""));
    }

    #[test]
    fn sources_are_kept() {
        use std::error::Error as _;
        let error = Error::Io { doing: "bind 1.2.3.4:5".into(), source: io::Error::other("no") };
        assert_eq!(error.to_string(), "cannot bind 1.2.3.4:5: no");
        assert!(error.source().is_some());
        let error = Error::Machine { source: "locked".into() };
        assert_eq!(error.source().unwrap().to_string(), "locked");
    }
}
