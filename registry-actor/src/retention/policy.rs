//! The policy: rules, of which the first that fits a process decides.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::{ProcessTerminalState, PruneExemption, PruneFilter, Refusal};

/// Which ended processes are retained, and for how long.
///
/// Rules are asked in their order and **the first that fits a process decides**: what a later rule says of it does not count,
/// shorter or longer. A process that no rule fits is kept. Processes that have not ended are never touched, whatever the rules
/// say, and neither are ended ones on which a lease is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RetentionPolicy {
    rules: Vec<RetentionRule>,
}

/// One rule. It fits the ended processes that meet all of it; one that asks for nothing fits all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Those that ended in one of these ways; any if empty.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub states: BTreeSet<ProcessTerminalState>,
    /// Those of this identity kind; any if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Those that carry all of these tags.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// What becomes of them.
    pub retain: Retain,
}

/// How long a rule retains what it fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retain {
    /// For good.
    Forever,
    /// For at least so many ms after the end. It should exceed the life of any waiter: one that comes later is told only how the
    /// process ended.
    ForMs(u64),
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRetentionPolicy {
    /// A rule asks for what no process can carry, or the rules together exempt more than one prune can.
    #[error("rule {rule} of the retention policy: {refusal}")]
    Rule {
        /// Which rule, from 0.
        rule: usize,
        /// What is wrong with it, as the registry would say.
        refusal: Box<Refusal>,
    },
    /// A rule can never decide, because an earlier one fits everything that it fits.
    #[error(
        "rule {rule} of the retention policy never decides: rule {earlier} comes before it and fits all that it fits"
    )]
    Unreachable {
        /// Which rule, from 0.
        rule: usize,
        /// The one that decides in its place.
        earlier: usize,
    },
}

impl RetentionRule {
    /// A rule that fits every ended process.
    #[must_use]
    pub const fn of_all(retain: Retain) -> Self {
        Self { states: BTreeSet::new(), kind: None, tags: BTreeSet::new(), retain }
    }

    /// The same for processes that ended in one of these ways.
    #[must_use]
    pub fn ended(mut self, states: impl IntoIterator<Item = ProcessTerminalState>) -> Self {
        self.states.extend(states);
        self
    }

    /// The same for processes of this identity kind.
    #[must_use]
    pub fn of_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// The same for processes that carry this tag too.
    #[must_use]
    pub fn tagged(mut self, tag: impl Into<String>) -> Self {
        self.tags.insert(tag.into());
        self
    }

    /// One for each way of ending that it asks for, or a single one that does not ask.
    fn each_state(&self) -> Vec<Option<ProcessTerminalState>> {
        let is_any = self.states.is_empty() || self.states.len() == ProcessTerminalState::ALL.len();
        if is_any { vec![None] } else { self.states.iter().copied().map(Some).collect() }
    }

    fn exemptions(&self) -> impl Iterator<Item = PruneExemption> {
        self.each_state().into_iter().map(|state| PruneExemption {
            state,
            kind: self.kind.clone(),
            tags: self.tags.clone(),
        })
    }

    /// Whether it fits whatever the other fits.
    fn covers(&self, other: &Self) -> bool {
        let states = |rule: &Self| -> BTreeSet<_> {
            if rule.states.is_empty() { ProcessTerminalState::ALL.into() } else { rule.states.clone() }
        };
        states(self).is_superset(&states(other))
            && (self.kind.is_none() || self.kind == other.kind)
            && self.tags.is_subset(&other.tags)
    }
}

impl RetentionPolicy {
    /// Checks and takes the rules.
    ///
    /// # Errors
    /// [`InvalidRetentionPolicy`]: a mistake is told when the policy is made, and not at its first pass.
    pub fn new(rules: impl IntoIterator<Item = RetentionRule>) -> Result<Self, InvalidRetentionPolicy> {
        let policy = Self { rules: rules.into_iter().collect() };
        for (number, rule) in policy.rules.iter().enumerate() {
            if let Some(earlier) = policy.rules.iter().take(number).position(|earlier| earlier.covers(rule)) {
                return Err(InvalidRetentionPolicy::Unreachable { rule: number, earlier });
            }
            for filter in policy.filters_of(number, u64::MAX) {
                filter
                    .check()
                    .map_err(|refusal| InvalidRetentionPolicy::Rule { rule: number, refusal: Box::new(refusal) })?;
            }
            // A rule that keeps has no filter of its own, but must be one that a process can fit.
            check_tags(rule)
                .map_err(|refusal| InvalidRetentionPolicy::Rule { rule: number, refusal: Box::new(refusal) })?;
        }
        Ok(policy)
    }

    /// The rules, in the order in which they are asked.
    #[must_use]
    pub fn rules(&self) -> &[RetentionRule] {
        &self.rules
    }

    /// What is to be pruned at an instant, in ms since the Unix epoch: the filters together mean exactly the ended processes that
    /// the policy does not retain, and no two of them mean the same process. An empty list means that nothing can be.
    #[must_use]
    pub fn filters(&self, now_epoch_ms: u64) -> Vec<PruneFilter> {
        (0..self.rules.len()).flat_map(|number| self.filters_of(number, now_epoch_ms)).collect()
    }

    fn filters_of(&self, number: usize, now_epoch_ms: u64) -> Vec<PruneFilter> {
        let Some(rule) = self.rules.get(number) else { return Vec::new() };
        let Retain::ForMs(age_ms) = rule.retain else { return Vec::new() };
        let terminal_before_ms = now_epoch_ms.saturating_sub(age_ms);
        if terminal_before_ms == 0 {
            return Vec::new();
        }
        // What an earlier rule fits is decided by that one.
        let except: Vec<PruneExemption> = self.rules.iter().take(number).flat_map(RetentionRule::exemptions).collect();
        let filter = |state| PruneFilter {
            terminal_before_ms,
            state,
            kind: rule.kind.clone(),
            tags: rule.tags.clone(),
            except: except.iter().filter(|exemption| can_meet(exemption, state, rule.kind.as_ref())).cloned().collect(),
        };
        rule.each_state().into_iter().map(filter).collect()
    }
}

/// Whether a process of this state and kind can be exempt so: what cannot be is not asked of the store.
fn can_meet(exemption: &PruneExemption, state: Option<ProcessTerminalState>, kind: Option<&String>) -> bool {
    let agree = |one: bool, other: bool, same: bool| !one || !other || same;
    agree(exemption.state.is_some(), state.is_some(), exemption.state == state)
        && agree(exemption.kind.is_some(), kind.is_some(), exemption.kind.as_ref() == kind)
}

fn check_tags(rule: &RetentionRule) -> Result<(), Refusal> {
    PruneFilter { tags: rule.tags.clone(), ..PruneFilter::default() }.check()
}

impl<'de> Deserialize<'de> for RetentionPolicy {
    /// Reads the list of rules, and checks it as [`new`](Self::new) does.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<RetentionRule>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Limits;

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 1_700_000_000_000;

    fn days(count: u64) -> Retain {
        Retain::ForMs(count * DAY_MS)
    }

    fn policy<const N: usize>(rules: [RetentionRule; N]) -> RetentionPolicy {
        RetentionPolicy::new(rules).expect("a policy")
    }

    #[test]
    fn what_is_retained_for_some_time_goes_when_it_is_older() {
        let week = policy([RetentionRule::of_all(days(7))]);
        assert_eq!(week.filters(NOW_MS), [PruneFilter::ended_before(NOW_MS - 7 * DAY_MS)]);
        assert_eq!(week.filters(7 * DAY_MS), [], "the clock is younger than the age: nothing can have ended before");
        assert_eq!(policy([RetentionRule::of_all(Retain::Forever)]).filters(NOW_MS), []);
        assert_eq!(RetentionPolicy::default().filters(NOW_MS), []);
    }

    #[test]
    fn an_earlier_rule_exempts_from_a_later_one() {
        let filters = policy([
            RetentionRule::of_all(Retain::Forever).tagged("audit"),
            RetentionRule::of_all(days(30)).ended([ProcessTerminalState::Failed, ProcessTerminalState::Abandoned]),
            RetentionRule::of_all(days(7)),
        ])
        .filters(NOW_MS);
        let audit = PruneExemption { tags: ["audit".to_owned()].into(), ..PruneExemption::default() };
        let of = |state| PruneExemption { state: Some(state), ..PruneExemption::default() };
        let old = PruneFilter { except: vec![audit.clone()], ..PruneFilter::ended_before(NOW_MS - 30 * DAY_MS) };
        assert_eq!(
            filters,
            [
                PruneFilter { state: Some(ProcessTerminalState::Failed), ..old.clone() },
                PruneFilter { state: Some(ProcessTerminalState::Abandoned), ..old },
                PruneFilter {
                    except: vec![audit, of(ProcessTerminalState::Failed), of(ProcessTerminalState::Abandoned)],
                    ..PruneFilter::ended_before(NOW_MS - 7 * DAY_MS)
                },
            ]
        );
    }

    #[test]
    fn an_exemption_that_nothing_can_meet_is_not_asked_for() {
        let filters = policy([
            RetentionRule::of_all(Retain::Forever).of_kind("job"),
            RetentionRule::of_all(days(1)).of_kind("shell"),
        ])
        .filters(NOW_MS);
        assert_eq!(filters.len(), 1);
        assert_eq!(filters[0].except, []);
    }

    #[test]
    fn a_rule_that_never_decides_is_a_mistake() {
        let narrow = RetentionRule::of_all(days(1)).of_kind("job").tagged("ci").ended([ProcessTerminalState::Failed]);
        for wide in [
            RetentionRule::of_all(days(9)),
            RetentionRule::of_all(days(9)).of_kind("job"),
            RetentionRule::of_all(days(9)).tagged("ci"),
            RetentionRule::of_all(days(9)).ended([ProcessTerminalState::Failed, ProcessTerminalState::Cancelled]),
        ] {
            assert_eq!(
                RetentionPolicy::new([wide.clone(), narrow.clone()]),
                Err(InvalidRetentionPolicy::Unreachable { rule: 1, earlier: 0 })
            );
            assert!(RetentionPolicy::new([narrow.clone(), wide]).is_ok());
        }
    }

    #[test]
    fn a_rule_that_no_process_can_fit_is_a_mistake() {
        for retain in [Retain::Forever, days(1)] {
            let blank = RetentionPolicy::new([RetentionRule::of_all(retain).tagged(" ")]);
            assert!(matches!(blank, Err(InvalidRetentionPolicy::Rule { rule: 0, .. })), "{blank:?}");
        }
        let kinds = |count: usize| {
            let kept = (0..count).map(|kind| RetentionRule::of_all(Retain::Forever).of_kind(format!("k{kind}")));
            RetentionPolicy::new(kept.chain([RetentionRule::of_all(days(1))]))
        };
        assert!(kinds(Limits::PRUNE_EXEMPTIONS).is_ok());
        assert!(matches!(
            kinds(Limits::PRUNE_EXEMPTIONS + 1),
            Err(InvalidRetentionPolicy::Rule { rule, .. }) if rule == Limits::PRUNE_EXEMPTIONS + 1
        ));
    }

    #[test]
    fn a_policy_is_written_as_its_rules_and_checked_when_it_is_read() {
        let text = r#"[{"tags":["audit"],"retain":"forever"},{"states":["failed"],"retain":{"for_ms":5}}]"#;
        let read: RetentionPolicy = serde_json::from_str(text).expect("a policy");
        assert_eq!(serde_json::to_string(&read).expect("a text"), text);
        for wrong in [
            r#"[{"retain":"forever"},{"retain":"forever"}]"#,
            r#"[{"retain":"forever","tag":["x"]}]"#,
            r#"[{"tags":[" "],"retain":"forever"}]"#,
        ] {
            assert!(serde_json::from_str::<RetentionPolicy>(wrong).is_err(), "{wrong}");
        }
    }
}
