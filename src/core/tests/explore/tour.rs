//! How a model is walked through, and how a bug that is planted in one is looked for: the
//! same for either exploration.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::core::properties::{Broken, Property};

/// A model over real cores.
pub trait Explored: Model + Send + Sync + 'static {
    /// How many steps of a core were carried out.
    fn steps(&self) -> u64;

    /// How many ways were left before their end, and why; `None`: none.
    fn left_out(&self) -> Option<String> {
        None
    }

    /// What `History`, by which the other provers judge, finds broken on that path.
    fn judge(&self, path: &[(Self::State, Option<Self::Action>)]) -> Option<Broken>;
}

/// Walks through all that lies within the model's bounds and prints how much that was. No
/// property may break, and all that is expected must come to pass somewhere. Says whether
/// anything was left out.
pub fn walk_all<M>(name: &str, model: M, expected: &[&str]) -> bool
where
    M: Explored,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let start = Instant::now();
    let threads = available_parallelism().map_or(1, NonZeroUsize::get);
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_dfs().join();
    let (model, found) = (checker.model(), checker.discoveries());
    let left_out = model.left_out();
    println!(
        "{name}: {} states, {} of them different, the longest way {} actions, {:.1} s, \
         {} steps of a core; {}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed().as_secs_f64(),
        model.steps(),
        left_out.as_deref().unwrap_or("nothing was left out"),
    );
    for property in model.properties() {
        let path = found.get(property.name);
        if let (Expectation::Always, Some(path)) = (&property.expectation, path) {
            let mut story = String::new();
            for (state, action) in path.clone().into_vec() {
                story += &format!("{state:?}\n{action:?}\n");
            }
            panic!("{name}: {} is broken:\n{story}", property.name);
        }
        // The other provers' form of the properties must agree.
        if let Some(path) = path {
            let broken = model.judge(&path.clone().into_vec());
            assert!(broken.is_none(), "{name}: `History` finds {broken:?}");
        }
    }
    let found: BTreeSet<&str> = found.keys().copied().collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert!(checker.is_done(), "{name}: it ended before all was walked");
    assert!(found.is_superset(&expected), "{name}: only {found:?} came to pass");
    left_out.is_some()
}

/// Looks for the bug that is planted in a model, by that property, among so many states at
/// most. What `History` finds first on the way to it.
pub fn find<M>(
    bug: &impl Debug,
    model: M,
    property: &'static Property,
    patience: usize,
) -> Option<&'static str>
where
    M: Explored,
    M::State: Clone + Debug + PartialEq + Hash + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let wanted = HasDiscoveries::AllOf(BTreeSet::from([property.name]));
    let checker = model.checker().finish_when(wanted);
    let checker = checker.target_state_count(patience).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property.name) else {
        panic!("{bug:?} is planted, and {} holds in {states} states", property.name);
    };
    let path = path.into_vec();
    let steps = path.len() - 1;
    let other = checker.model().judge(&path).map(|broken| broken.property.name);
    println!(
        "{bug:?}: {} is broken after {steps} steps, found among {states} states; \
         `History` finds {} first",
        property.name,
        other.unwrap_or("nothing"),
    );
    other
}
