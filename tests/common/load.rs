//! Clients that commit all the time, through any node that is there, while a test does
//! something to the cluster; and the account of what became of each request.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use kontiki::{Entry, Pending, RaftNode, Reply, Request, RequestError};
use serde_json::{Value, json};

use super::machine::Tally;
use super::{Cluster, Plan, answer, ask, until};

/// So many clients, each with so many requests on their way.
const CLIENTS: usize = 4;
const OUTSTANDING: usize = 8;

/// A cluster of `Tally`s under load.
pub struct Load {
    book: Arc<Mutex<Book>>,
    cluster: RwLock<Cluster>,
    /// How each request ended, by its number.
    outcomes: Mutex<BTreeMap<u64, Result<Reply, RequestError>>>,
    sent: AtomicU64,
    over: AtomicBool,
}

/// What every node shows as committed: at each index the same (Raft's State Machine Safety).
#[derive(Default)]
struct Book {
    entries: BTreeMap<u64, Entry>,
    /// Where that was not so: who, and what.
    apart: Vec<String>,
}

impl Book {
    fn see(&mut self, node: &str, entry: &Entry) {
        let first = self.entries.entry(entry.index).or_insert_with(|| entry.clone());
        if first != entry {
            self.apart.push(format!("{node} has {entry:?}, and another has {first:?}"));
        }
    }
}

/// A request that has not ended.
struct Open {
    number: u64,
    pending: Pending,
}

/// Whether this number goes with an id, and is asked again, elsewhere, until it is
/// acknowledged.
fn has_id(number: u64) -> bool {
    number.is_multiple_of(2)
}

fn request(number: u64) -> Request {
    let request = Request::command(&json!({ "n": number }));
    if has_id(number) { request.id(format!("order-{number}")) } else { request }
}

impl Load {
    /// Starts a cluster of `Tally`s and runs `body` while the clients commit, then sees that
    /// nothing that was acknowledged is lost and nothing came twice. Gives how many were
    /// acknowledged.
    pub fn run(plan: Plan, body: impl FnOnce(&Load)) -> u64 {
        let book: Arc<Mutex<Book>> = Arc::default();
        let theirs = Arc::clone(&book);
        let dress = move |config: kontiki::Config| {
            let book = Arc::clone(&theirs);
            let see = move |node: &str, entry: &Entry| {
                book.lock().unwrap_or_else(PoisonError::into_inner).see(node, entry);
            };
            config.state_machine(|_| Tally::default()).on_commit(see)
        };
        let cluster = plan.dress(dress).start();
        ask(cluster.node(0), json!({"n": "before"}));
        let load = Load {
            book,
            cluster: RwLock::new(cluster),
            outcomes: Mutex::default(),
            sent: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let load = &load;
                scope.spawn(move || load.client(client));
            }
            // A panic here must end the clients, too.
            let outcome = catch_unwind(AssertUnwindSafe(|| body(&load)));
            load.over.store(true, Ordering::SeqCst);
            if let Err(panic) = outcome {
                resume_unwind(panic);
            }
        });
        load.check()
    }

    /// Looks at the cluster. Not while it is changed.
    pub fn see<T>(&self, look: impl FnOnce(&Cluster) -> T) -> T {
        look(&self.cluster.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does something to the cluster; the clients wait meanwhile.
    pub fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        change(&mut self.cluster.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for so many more to be acknowledged.
    #[track_caller]
    pub fn wait_acknowledged(&self, more: usize) {
        let enough = self.acknowledged() + more;
        until(&format!("{more} more acknowledged requests"), || self.acknowledged() >= enough);
    }

    fn acknowledged(&self) -> usize {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.values().filter(|outcome| outcome.is_ok()).count()
    }

    /// Sends a request to some node, and to another if that takes none.
    fn send(&self, number: u64, at: &mut usize) -> Option<Pending> {
        while !self.over.load(Ordering::SeqCst) {
            *at += 1;
            let taken = self.see(|cluster| {
                let nodes: Vec<&RaftNode> = cluster.all().collect();
                nodes[*at % nodes.len()].client_request(request(number))
            });
            match taken {
                Ok(pending) => return Some(pending),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    fn client(&self, client: usize) {
        let (mut at, mut open) = (client, Vec::new());
        while !self.over.load(Ordering::SeqCst) {
            while open.len() < OUTSTANDING {
                let number = self.sent.fetch_add(1, Ordering::SeqCst);
                let Some(pending) = self.send(number, &mut at) else { break };
                open.push(Open { number, pending });
            }
            if !open.is_empty() {
                let oldest = open.remove(0);
                open.extend(self.settle(oldest, &mut at));
            }
        }
        for last in open {
            self.settle(last, &mut at);
        }
    }

    /// Waits for the end of a request; one with an id is asked again if that is no reply.
    fn settle(&self, Open { number, mut pending }: Open, at: &mut usize) -> Option<Open> {
        let outcome = answer(&format!("request {number}"), &mut pending);
        let again = outcome.is_err() && has_id(number);
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(number, outcome);
        drop(outcomes);
        let pending = again.then(|| self.send(number, at)).flatten()?;
        Some(Open { number, pending })
    }

    fn check(self) -> u64 {
        let cluster = self.cluster.into_inner().unwrap_or_else(PoisonError::into_inner);
        let outcomes = self.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let names = cluster.knows(cluster.wait_leader()).members;
        let of_members = |place: &usize| {
            names.iter().any(|member| member.name == cluster.names[*place])
                && cluster.is_there(*place)
        };
        let members: Vec<usize> = (0..cluster.count()).filter(of_members).collect();
        let book = std::mem::take(&mut *self.book.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(book.apart.is_empty(), "{}", book.apart.join("\n"));
        let state = |place: usize| ask(cluster.node(place), Request::query(&())).value;
        let first = members[0];
        assert_eq!(state(first)["twice"], json!([]));
        for &place in &members {
            assert_eq!(state(place), state(first), "on {}", cluster.names[place]);
        }
        let asked: Vec<(u64, Pending)> = outcomes
            .keys()
            .map(|number| {
                let query = Request::query(&json!({ "n": number }));
                (*number, cluster.node(first).client_request(query).expect("it is taken"))
            })
            .collect();
        let mut acknowledged = 0;
        for (number, mut pending) in asked {
            let found = answer("a query of a number", &mut pending).expect("it is answered").value;
            match &outcomes[&number] {
                Ok(reply) => {
                    let shown = book.entries.get(&reply.index).map(Entry::value);
                    assert_eq!(shown, Some(json!({ "n": number })), "at {}", reply.index);
                    let once = (&reply.value, found);
                    assert_eq!(once, (&json!(1), json!(1)), "request {number}: {reply:?}");
                    acknowledged += 1;
                }
                // The last refusal of one that was asked again says nothing of the others.
                Err(RequestError::Unknown) => assert!(found == json!(0) || found == json!(1)),
                Err(_) if has_id(number) => assert!(found == json!(0) || found == json!(1)),
                Err(error) => assert_eq!(found, Value::from(0), "request {number}: {error}"),
            }
        }
        println!("{acknowledged} of {} requests were acknowledged", outcomes.len());
        acknowledged
    }
}
