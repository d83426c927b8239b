//! What people have been told, so that they are told once and not with every round.

use std::collections::{BTreeMap, BTreeSet};

/// What holds at present, as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told<T> {
    holds: BTreeSet<T>,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { holds: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Told<T> {
    /// What holds now; back come what is new of it and what has ended since the last time.
    pub fn now(&mut self, holds: BTreeSet<T>) -> (Vec<T>, Vec<T>) {
        let new = holds.difference(&self.holds).cloned().collect();
        let ended = self.holds.difference(&holds).cloned().collect();
        self.holds = holds;
        (new, ended)
    }

    /// The same of what is said in words that change while it goes on: of what is new the words, and of
    /// what has ended what it is.
    pub fn said<W>(&mut self, mut holds: BTreeMap<T, W>) -> (Vec<W>, Vec<T>) {
        let (new, ended) = self.now(holds.keys().cloned().collect());
        (new.iter().filter_map(|one| holds.remove(one)).collect(), ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_told_once_and_when_it_ends() {
        let mut told = Told::default();
        assert_eq!(told.now(["a", "b"].into()), (vec!["a", "b"], vec![]));
        assert_eq!(told.now(["a", "b"].into()), (vec![], vec![]));
        assert_eq!(told.now(["b", "c"].into()), (vec!["c"], vec!["a"]));
        assert_eq!(told.now([].into()), (vec![], vec!["b", "c"]));
        assert_eq!(told.now(["a"].into()), (vec!["a"], vec![]));
    }

    #[test]
    fn what_only_changes_its_words_is_not_told_again() {
        let mut told = Told::default();
        assert_eq!(told.said([("a", 1)].into()), (vec![1], vec![]));
        assert_eq!(told.said([("a", 2), ("b", 3)].into()), (vec![3], vec![]));
        assert_eq!(told.said([("b", 4)].into()), (vec![], vec!["a"]));
    }
}
