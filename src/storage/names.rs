//! The names of a node's files.

use crate::core::types::{Index, Term};

/// The file whose lock is the folder's.
pub(super) const LOCK: &str = "lock";
/// Whose folder it is, and which segments it has.
pub(super) const NODE: &str = "node";
/// Ends the name of a file that is being written, to be renamed when it is whole.
const ASIDE: &str = ".new";
/// A snapshot from the leader and one of the node's own may be written at the same
/// time, and of the same entry.
const ASIDE_RECEIVED: &str = ".received.new";

/// What a file of ours is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `NODE`.
    Node,
    /// The segment of this number.
    Segment(u64),
    /// The snapshot that ends with this entry.
    Snapshot(Index, Term),
    /// One that was not finished.
    Aside,
}

/// The name of a segment.
pub(super) fn segment(number: u64) -> String {
    format!("log-{number}")
}

/// The name of a snapshot.
pub(super) fn snapshot(index: Index, term: Term) -> String {
    format!("snapshot-{index}-{term}")
}

/// The name under which a file is written that will have this one.
pub(super) fn aside(name: &str) -> String {
    format!("{name}{ASIDE}")
}

/// The same for a snapshot that came from the leader.
pub(super) fn aside_received(name: &str) -> String {
    format!("{name}{ASIDE_RECEIVED}")
}

/// What the file of this name is; `None` if it is none of ours.
pub(super) fn kind(name: &str) -> Option<Kind> {
    let stem = name.strip_suffix(ASIDE_RECEIVED).or_else(|| name.strip_suffix(ASIDE));
    if let Some(stem) = stem {
        return kind(stem).map(|_| Kind::Aside);
    }
    if name == NODE {
        return Some(Kind::Node);
    }
    let found = if let Some(number) = name.strip_prefix("log-") {
        Kind::Segment(number.parse().ok()?)
    } else {
        let (index, term) = name.strip_prefix("snapshot-")?.split_once('-')?;
        Kind::Snapshot(Index(index.parse().ok()?), Term(term.parse().ok()?))
    };
    // A number has one spelling: `log-07` is not ours.
    let spelled = match found {
        Kind::Segment(number) => segment(number),
        Kind::Snapshot(index, term) => snapshot(index, term),
        Kind::Node | Kind::Aside => return None,
    };
    (spelled == name).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_is_known_by_its_name_and_no_other_is() {
        assert_eq!(kind("node"), Some(Kind::Node));
        assert_eq!(kind(&segment(12)), Some(Kind::Segment(12)));
        assert_eq!(kind(&snapshot(Index(7), Term(2))), Some(Kind::Snapshot(Index(7), Term(2))));
        for ours in [aside(NODE), aside("snapshot-7-2"), aside_received("snapshot-7-2")] {
            assert_eq!(kind(&ours), Some(Kind::Aside), "{ours}");
        }
        let others = [
            "lock",
            "log",
            "log-",
            "log-07",
            "log-+7",
            "log-x",
            "snapshot-7",
            "snapshot-7-2-1",
            "notes.new",
            "node~",
            "log-18446744073709551616",
            "",
        ];
        for other in others {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
