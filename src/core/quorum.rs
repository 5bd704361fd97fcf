//! Majorities, and the commit rule by itself.

use super::membership::Membership;
use super::types::{Incarnation, Index, Term};

/// So many voters are few.
const FEW: usize = 9;

/// Whether the voters in `agreed` are a majority. Who is no voter here does not
/// count, and nobody counts twice.
pub fn is_majority(members: &Membership, agreed: impl Fn(Incarnation) -> bool) -> bool {
    let agreeing =
        members.voters().filter(|member| member.incarnation.is_some_and(&agreed)).count();
    agreeing >= members.majority()
}

/// The greatest value that a majority of the voters has reached, where each has
/// reached `value(incarnation)`. Voters without an incarnation have reached
/// nothing (the least value).
pub fn reached_by_majority<T: Ord + Copy + Default>(
    members: &Membership,
    value: impl Fn(Incarnation) -> T,
) -> T {
    let values = members.voters().map(|member| member.incarnation.map_or(T::default(), &value));
    // This is asked for each answer that comes: few values are sorted without memory of
    // their own.
    let mut few = [T::default(); FEW];
    let mut many = Vec::new();
    let mut count = 0;
    for value in values {
        match few.get_mut(count) {
            Some(place) => *place = value,
            None => many.push(value),
        }
        count += 1;
    }
    let all = if count <= FEW {
        &mut few[..count]
    } else {
        many.extend_from_slice(&few);
        &mut many[..]
    };
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.get(members.majority() - 1).copied().unwrap_or_default()
}

/// The commit rule (Raft §5.3, §5.4.2): what a majority holds durably is
/// committed if it is of the leader's own term; older entries are committed with
/// it, never by counting their copies.
pub fn commit_index(
    members: &Membership,
    match_index: impl Fn(Incarnation) -> Index,
    term_at: impl Fn(Index) -> Option<Term>,
    current_term: Term,
    commit_index: Index,
) -> Index {
    let reached = reached_by_majority(members, match_index);
    if reached > commit_index && term_at(reached) == Some(current_term) {
        reached
    } else {
        commit_index
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::{Member, Standing};
    use super::super::types::ClusterId;
    use super::*;

    fn members(voters: u64, learners: u64) -> Membership {
        let member = |number: u64, voter| Member {
            name: format!("node{number}"),
            address: "127.0.0.1:1".parse().unwrap(),
            incarnation: Some(Incarnation(number)),
            standing: if voter { Standing::Voter } else { Standing::Learner },
        };
        let all = (1..=voters)
            .map(|number| member(number, true))
            .chain((voters + 1..=voters + learners).map(|number| member(number, false)));
        Membership::new(ClusterId(1), all.collect())
    }

    /// Pitfall 15: half taken for a majority at even sizes. Every set of 1 to 9
    /// voters, with two learners that must not count.
    #[test]
    fn a_majority_is_more_than_half_at_every_size() {
        for voters in 1..=9u64 {
            let members = members(voters, 2);
            for set in 0..1u64 << (voters + 2) {
                let agreed = |who: Incarnation| set >> (who.0 - 1) & 1 == 1;
                let among_voters = (set & ((1 << voters) - 1)).count_ones();
                assert_eq!(
                    is_majority(&members, agreed),
                    u64::from(among_voters) * 2 > voters,
                    "{voters} voters, set {set:b}"
                );
            }
        }
    }

    #[test]
    fn what_a_majority_reached_is_what_a_naive_search_finds() {
        for voters in 1..=5u64 {
            let members = members(voters, 1);
            for code in 0..4u64.pow(voters as u32) {
                let value = |who: Incarnation| {
                    if who.0 > voters { 99 } else { code / 4u64.pow(who.0 as u32 - 1) % 4 }
                };
                let naive = (0..4)
                    .rev()
                    .find(|&least| is_majority(&members, |who| value(who) >= least))
                    .unwrap_or(0);
                assert_eq!(reached_by_majority(&members, value), naive, "{voters}, {code}");
            }
        }
    }

    #[test]
    fn many_voters_count_as_few_do() {
        for voters in 1..=20 {
            let members = members(voters, 2);
            for turn in 0..voters {
                let value = |who: Incarnation| (who.0 + turn) % voters;
                let reached = reached_by_majority(&members, value);
                // The values are 0 to voters - 1, each once.
                assert_eq!(reached, voters - members.majority() as u64, "{voters}, {turn}");
            }
        }
    }

    /// A voter that was never heard counts in the number, not in the agreement.
    #[test]
    fn a_voter_without_an_incarnation_counts_as_lost() {
        let mut members = members(3, 0);
        members.members[2].incarnation = None;
        assert!(!is_majority(&members, |who| who == Incarnation(1)));
        assert!(is_majority(&members, |_| true));
        assert_eq!(reached_by_majority(&members, |who| who.0), 1);
    }

    /// Pitfall 16: an older term's entry is not committed by counting copies.
    #[test]
    fn only_entries_of_the_own_term_are_committed_by_counting() {
        let members = members(3, 0);
        let term_at = |index: Index| Some(Term(if index.0 <= 2 { 2 } else { 4 }));
        let at = |index| move |_| Index(index);
        assert_eq!(commit_index(&members, at(2), term_at, Term(4), Index(1)), Index(1));
        assert_eq!(commit_index(&members, at(3), term_at, Term(4), Index(1)), Index(3));
    }
}
