//! Which backups may be removed by themselves, and why: the rules of retention.
//!
//! Pure: rows, a plan and the time go in, a verdict with its reason comes out. Who asks, and who deletes, is not known here.
//!
//! A backup goes when its age is over and nothing speaks for it. For it speak, in this order: that it was brought back by a person
//! after its age was over; that the newest backup of its cluster is suspect, so that nobody knows which ones are needed; that it
//! is the last good one; that it is among the newest scheduled ones that are to stay; a hold; work on it or a reader.

use super::{Backup, BackupId, Level, Origin, State};
use crate::cluster::Timestamp;
use crate::cluster::policy::Plan;
use std::collections::BTreeSet;
use std::fmt;

/// Most scheduled backups that are counted for [`Plan::keep_last`]; a plan that keeps more keeps all.
const COUNTED: usize = 100_000;

/// What is to become of a backup, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Keep),
    /// It is to be deleted.
    Expire(Ground),
    /// It is deleted already; its files go at that time.
    Deleted(Timestamp),
}

/// Why a backup stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is being made.
    Creating,
    /// Nobody gave it an end.
    Endless,
    /// Its age is not over before this instant.
    Young(Timestamp),
    /// A person took its deletion back after its age was over.
    Undeleted,
    /// The newest backup of its cluster is suspect.
    Suspect(BackupId),
    /// It is the last good one of its cluster.
    LastGood,
    /// There is no good one, and it is the newest that is left.
    LastOfAll,
    /// It is one of that many scheduled ones that are to stay.
    KeepLast(u32),
    /// A person holds it, for this reason.
    Held(String),
    /// This operation works on it, or reads it.
    InUse(String),
    /// What the verdict was about changed before it was carried out; the next round judges anew.
    Changed,
}

/// Why a backup is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// Its age was over at this instant.
    Age(Timestamp),
    /// The same, and its creation had failed: nothing is stored of it.
    Failed(Timestamp),
}

impl Verdict {
    /// The words of fate and reason, in metrics.
    pub const WORDS: [(&str, &str); 14] = [
        ("keep", "creating"),
        ("keep", "endless"),
        ("keep", "young"),
        ("keep", "undeleted"),
        ("keep", "suspect"),
        ("keep", "last_good"),
        ("keep", "last_of_all"),
        ("keep", "keep_last"),
        ("keep", "held"),
        ("keep", "in_use"),
        ("keep", "changed"),
        ("expire", "age"),
        ("expire", "failed"),
        ("deleted", "deleted"),
    ];

    /// Its words of fate and reason.
    pub fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Keep(keep) => ("keep", keep.word()),
            Self::Expire(ground) => ("expire", ground.word()),
            Self::Deleted(_) => ("deleted", "deleted"),
        }
    }
}

impl Keep {
    fn word(&self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Endless => "endless",
            Self::Young(_) => "young",
            Self::Undeleted => "undeleted",
            Self::Suspect(_) => "suspect",
            Self::LastGood => "last_good",
            Self::LastOfAll => "last_of_all",
            Self::KeepLast(_) => "keep_last",
            Self::Held(_) => "held",
            Self::InUse(_) => "in_use",
            Self::Changed => "changed",
        }
    }
}

impl Ground {
    /// Its word, in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Age(_) => "age",
            Self::Failed(_) => "failed",
        }
    }
}

fn shown(at: Timestamp) -> impl fmt::Display {
    at.format("%FT%TZ")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep(keep) => keep.fmt(f),
            Self::Expire(Ground::Age(at)) => write!(f, "its age was over at {}", shown(*at)),
            Self::Expire(Ground::Failed(at)) => write!(f, "its creation failed, and its age was over at {}", shown(*at)),
            Self::Deleted(purge_at) => write!(f, "it is deleted, and its files go at {}", shown(*purge_at)),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Creating => f.write_str("it is being made"),
            Self::Endless => f.write_str("it has no end: nobody set one, and no plan gives it one"),
            Self::Young(end) => write!(f, "its age is over at {}", shown(*end)),
            Self::Undeleted => f.write_str("a person brought it back; it stays until it is given a new end"),
            Self::Suspect(newest) => write!(f, "the newest backup of the cluster, {newest}, is suspect; nothing goes before a person has cleared that"),
            Self::LastGood => f.write_str("it is the last good backup of the cluster"),
            Self::LastOfAll => f.write_str("the cluster has no backup that was walked to its end, and it is the newest that there is"),
            Self::KeepLast(count) => write!(f, "it is one of the newest scheduled ones, of which {count} stay"),
            Self::Held(reason) => write!(f, "it is held: {reason}"),
            Self::InUse(operation) => write!(f, "operation {operation} works on it or reads it"),
            Self::Changed => f.write_str("it changed meanwhile; the next round judges anew"),
        }
    }
}

/// Whether it was taken by the plan of its cluster, and not by hand or by a policy with an age of its own.
fn is_planned(backup: &Backup) -> bool {
    backup.origin == Origin::Automated && backup.policy_id.is_none()
}

/// The order of backups by the age of their data. A copy is as old as what it was copied from.
fn order(backup: &Backup) -> (Timestamp, BackupId) {
    (backup.started_at.unwrap_or(backup.created_at), backup.id)
}

/// Whether its data can be counted on: all of it was walked, and its source looked as it should.
pub fn is_good(backup: &Backup) -> bool {
    backup.is_available() && !backup.is_suspect() && backup.level >= Some(Level::Walked)
}

/// What must be known of all backups of a cluster before one of them is judged.
#[derive(Clone, Debug)]
pub struct Standing {
    /// That of the cluster; absent for one that is not known any more.
    plan: Option<Plan>,
    /// The newest that is AVAILABLE, and whether it is suspect.
    newest: Option<((Timestamp, BackupId), bool)>,
    /// The newest good one.
    good: Option<(Timestamp, BackupId)>,
    /// The newest that is AVAILABLE and not suspect, whatever its level.
    sound: Option<(Timestamp, BackupId)>,
    /// The newest scheduled ones, at most as many as are to stay.
    scheduled: BTreeSet<(Timestamp, BackupId)>,
}

impl Standing {
    /// Nothing is known yet but the plan of the cluster; none for one that is not known any more.
    pub fn new(plan: Option<Plan>) -> Self {
        Self { plan, newest: None, good: None, sound: None, scheduled: BTreeSet::new() }
    }

    /// Takes note of a backup of the cluster. Each is to be shown once, in any order.
    pub fn see(&mut self, backup: &Backup) {
        if !backup.is_available() {
            return;
        }
        let place = order(backup);
        if self.newest.is_none_or(|(newest, _)| newest < place) {
            self.newest = Some((place, backup.is_suspect()));
        }
        if backup.is_suspect() {
            return;
        }
        self.sound = self.sound.max(Some(place));
        if is_good(backup) {
            self.good = self.good.max(Some(place));
        }
        let most = self.keep_last().map_or(0, |count| count as usize);
        if most > 0 && most <= COUNTED && is_planned(backup) {
            self.scheduled.insert(place);
            if self.scheduled.len() > most {
                self.scheduled.pop_first();
            }
        }
    }

    /// The backup that has to stay for the verdicts to be right: the last good one, or the newest where none is good.
    pub fn keeper(&self) -> Option<BackupId> {
        self.good.or(self.sound).map(|(_, id)| id)
    }

    /// Whether a backup that was not seen makes the verdicts wrong: it is newer, and suspect.
    pub fn is_overtaken_by(&self, backup: &Backup) -> bool {
        backup.is_suspect() && self.newest.is_none_or(|(newest, _)| newest < order(backup))
    }

    /// Whether that one is good.
    pub fn has_good(&self) -> bool {
        self.good.is_some()
    }

    /// When the age of a backup is over; `None` when it has no end.
    pub fn ends_at(&self, backup: &Backup) -> Option<Timestamp> {
        backup.expires(self.plan.as_ref())
    }

    fn keep_last(&self) -> Option<u32> {
        self.plan.as_ref()?.keep_last
    }

    /// What becomes of one of the backups at `now`.
    pub fn judge(&self, backup: &Backup, now: Timestamp) -> Verdict {
        match backup.state {
            State::Deleting { purge_at } => return Verdict::Deleted(purge_at),
            State::Creating => return Verdict::Keep(Keep::Creating),
            State::Available | State::Error(_) => {}
        }
        let Some(end) = self.ends_at(backup) else { return Verdict::Keep(Keep::Endless) };
        match self.speaks_for(backup, end, now) {
            Some(keep) => Verdict::Keep(keep),
            None if backup.is_available() => Verdict::Expire(Ground::Age(end)),
            None => Verdict::Expire(Ground::Failed(end)),
        }
    }

    fn speaks_for(&self, backup: &Backup, end: Timestamp, now: Timestamp) -> Option<Keep> {
        if now < end {
            return Some(Keep::Young(end));
        }
        if backup.undeleted_at.is_some_and(|undeleted_at| end <= undeleted_at) {
            return Some(Keep::Undeleted);
        }
        if let Some(((_, newest), true)) = self.newest {
            return Some(Keep::Suspect(newest));
        }
        if self.keeper() == Some(backup.id) {
            return Some(if self.good.is_some() { Keep::LastGood } else { Keep::LastOfAll });
        }
        if let Some(count) = self.keep_last().filter(|count| self.is_among_last(backup, *count)) {
            return Some(Keep::KeepLast(count));
        }
        if let Some(hold) = backup.holds.first() {
            return Some(Keep::Held(hold.reason.clone()));
        }
        backup.busy.as_ref().or(backup.readers.first()).map(|operation| Keep::InUse(operation.clone()))
    }

    fn is_among_last(&self, backup: &Backup, count: u32) -> bool {
        if !is_planned(backup) || !backup.is_available() || count == 0 {
            return false;
        }
        // With fewer than are to stay all of them stay. A suspect one is not counted, and stands where its age puts it.
        let is_full = self.scheduled.len() >= count as usize;
        !is_full || self.scheduled.first().is_none_or(|oldest| order(backup) >= *oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::tests::sample;
    use crate::backup::{Hold, Suspicion};
    use crate::failure::{Failure, Reason};
    use chrono::TimeDelta;

    fn day(number: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::days(20_000 + number)
    }

    /// A scheduled backup of a day; the ids rise with the days.
    fn scheduled(number: i64) -> Backup {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(number as u64 + 1_000_000).to_be_bytes());
        let at = Some(day(number));
        Backup { id: BackupId::from_bytes(id), origin: Origin::Automated, created_at: day(number), started_at: at, planned_at: at, ..sample() }
    }

    fn manual(number: i64) -> Backup {
        let mut id = *scheduled(number).id.as_bytes();
        id[15] = 1;
        Backup { id: BackupId::from_bytes(id), origin: Origin::Manual, planned_at: None, ..scheduled(number) }
    }

    fn ending(number: i64, end: i64) -> Backup {
        Backup { expires_at: Some(day(end)), ..manual(number) }
    }

    fn suspicion() -> Option<Suspicion> {
        Some(Suspicion { reasons: vec!["empty".into()], raised_at: day(0), cleared: None })
    }

    fn failed() -> State {
        State::Error(Failure::new(Reason::SourceUnreachable, "no route"))
    }

    fn plan(retain_days: u32, keep_last: Option<u32>) -> Plan {
        Plan { window_start: None, retain_days: Some(retain_days), keep_last }
    }

    fn standing(backups: &[Backup], plan: Plan) -> Standing {
        let mut standing = Standing::new(Some(plan));
        backups.iter().for_each(|backup| standing.see(backup));
        standing
    }

    /// The words of each verdict, in the order of the backups.
    fn judged(backups: &[Backup], plan: Plan, now: Timestamp) -> Vec<&'static str> {
        let words = |standing: &Standing| backups.iter().map(|backup| standing.judge(backup, now).words().1).collect::<Vec<_>>();
        let reversed: Vec<Backup> = backups.iter().rev().cloned().collect();
        let told = words(&standing(backups, plan.clone()));
        assert_eq!(told, words(&standing(&reversed, plan)), "the order in which they are seen changes nothing");
        told
    }

    #[test]
    fn age_counts_from_the_plan_or_is_set_by_a_person() {
        let (age, none, unknown) = (Standing::new(Some(plan(7, None))), Standing::new(Some(Plan::default())), Standing::new(None));
        assert_eq!(age.ends_at(&scheduled(1)), Some(day(8)));
        assert_eq!(none.ends_at(&scheduled(1)), None);
        assert_eq!(age.ends_at(&manual(1)), None);
        assert_eq!(age.ends_at(&ending(1, 3)), Some(day(3)));
        assert_eq!(age.ends_at(&Backup { expires_at: Some(day(30)), expiry_by_hand: true, ..scheduled(1) }), Some(day(30)));
        // A policy has an age of its own, and so has a backup whose cluster is gone.
        assert_eq!(age.ends_at(&Backup { policy_id: Some("p".into()), ..scheduled(1) }), None);
        assert_eq!(unknown.ends_at(&Backup { expires_at: Some(day(30)), ..scheduled(1) }), Some(day(30)));
    }

    #[test]
    fn what_is_past_its_age_goes_and_nothing_else() {
        let rows = [scheduled(1), scheduled(2), scheduled(3), manual(1), ending(1, 5), ending(1, 20), manual(9)];
        assert_eq!(judged(&rows, plan(7, None), day(9)), ["age", "age", "young", "endless", "age", "young", "endless"]);
        assert_eq!(judged(&rows, Plan::default(), day(9)), ["endless", "endless", "endless", "endless", "age", "young", "endless"]);
        // The instant itself is past.
        assert_eq!(judged(&[scheduled(1), manual(9)], plan(7, None), day(8)), ["age", "endless"]);
        assert_eq!(judged(&[scheduled(1), manual(9)], plan(7, None), day(8) - TimeDelta::nanoseconds(1)), ["young", "endless"]);
    }

    #[test]
    fn the_newest_scheduled_ones_stay_whatever_their_age() {
        let rows: Vec<Backup> = (1..=5).map(scheduled).chain([manual(6), ending(0, 1)]).collect();
        let now = day(100);
        assert_eq!(judged(&rows, plan(7, Some(2)), now), ["age", "age", "age", "keep_last", "keep_last", "endless", "age"]);
        assert_eq!(judged(&rows, plan(7, Some(5)), now)[0], "keep_last");
        assert_eq!(judged(&rows, plan(7, Some(u32::MAX)), now)[..5], ["keep_last"; 5]);
        assert_eq!(judged(&rows, plan(7, Some(0)), now)[..5], ["age"; 5]);
        // A number alone takes nothing away: without an age there is no end.
        assert_eq!(judged(&rows, Plan { keep_last: Some(2), ..Plan::default() }, now)[..5], ["endless"; 5]);
        // Neither a failed one nor one of a policy counts for it, nor a suspect one.
        let rows = [
            scheduled(1),
            scheduled(2),
            Backup { state: failed(), ..scheduled(3) },
            Backup { policy_id: Some("p".into()), expires_at: Some(day(9)), ..scheduled(4) },
            Backup { suspicion: suspicion(), ..scheduled(5) },
            manual(6),
        ];
        assert_eq!(judged(&rows, plan(7, Some(1)), now), ["age", "keep_last", "failed", "age", "keep_last", "endless"]);
    }

    #[test]
    fn the_last_good_one_never_goes() {
        let now = day(100);
        assert_eq!(judged(&[ending(1, 2)], Plan::default(), now), ["last_good"]);
        assert_eq!(judged(&[ending(1, 2), ending(2, 3)], Plan::default(), now), ["age", "last_good"]);
        // What was not walked to its end is no good one, nor is a draft, a failed or a deleted one.
        let rows = [
            ending(1, 2),
            Backup { level: Some(Level::Sealed), ..ending(2, 3) },
            Backup { state: State::Creating, level: None, ..manual(3) },
            Backup { state: failed(), level: None, ..ending(4, 5) },
            Backup { state: State::Deleting { purge_at: day(101) }, ..manual(5) },
        ];
        assert_eq!(judged(&rows, Plan::default(), now), ["last_good", "age", "creating", "failed", "deleted"]);
        // Where none is good the newest stays.
        let sealed = |number| Backup { level: Some(Level::Sealed), ..ending(number, 50) };
        assert_eq!(judged(&[sealed(1), sealed(2)], Plan::default(), now), ["age", "last_of_all"]);
        // The age of the data decides: a copy is as old as its source, and one of both is enough.
        let copy = Backup { id: BackupId::new(), created_at: day(50), ..manual(1) };
        assert_eq!(judged(&[ending(1, 2), copy.clone()], Plan::default(), now), ["age", "endless"]);
        assert_eq!(judged(&[copy, ending(3, 4)], Plan::default(), now), ["endless", "last_good"]);
    }

    #[test]
    fn nothing_goes_while_the_newest_is_suspect() {
        let now = day(100);
        let bad = Backup { suspicion: suspicion(), ..scheduled(3) };
        let rows = [ending(1, 2), scheduled(2), bad.clone(), Backup { state: failed(), ..scheduled(1) }];
        assert_eq!(judged(&rows, plan(7, None), now), ["suspect"; 4]);
        let mut cleared = bad.clone();
        if let Some(suspicion) = &mut cleared.suspicion {
            suspicion.cleared = Some(crate::backup::Cleared { by: "me".into(), at: now });
        }
        assert_eq!(judged(&[ending(1, 2), scheduled(2), cleared], plan(7, None), now), ["age", "age", "last_good"]);
        // A later one of a sound source ends it; the suspect one then goes by its age.
        assert_eq!(judged(&[ending(1, 2), bad.clone(), scheduled(4)], plan(7, None), now), ["age", "age", "last_good"]);
        // A deleted one says nothing any more.
        let deleted = Backup { state: State::Deleting { purge_at: now }, ..bad };
        assert_eq!(judged(&[ending(1, 2), scheduled(2), deleted], plan(7, None), now), ["age", "last_good", "deleted"]);
    }

    #[test]
    fn holds_and_readers_keep_it() {
        let hold = Hold { reason: "case 7".into(), created_by: "me".into(), created_at: day(1) };
        let rows = [
            Backup { holds: vec![hold], ..ending(1, 2) },
            Backup { readers: ["an export".to_owned()].into(), ..ending(2, 3) },
            Backup { busy: Some("an update".into()), ..ending(3, 4) },
            manual(9),
        ];
        assert_eq!(judged(&rows, Plan::default(), day(100)), ["held", "in_use", "in_use", "endless"]);
        assert_eq!(standing(&rows, Plan::default()).judge(&rows[0], day(100)).to_string(), "it is held: case 7");
    }

    #[test]
    fn what_a_person_brought_back_stays_until_it_has_a_new_end() {
        let now = day(100);
        let back = |end, undeleted| Backup { undeleted_at: Some(day(undeleted)), ..ending(1, end) };
        assert_eq!(judged(&[back(2, 50), manual(9)], Plan::default(), now), ["undeleted", "endless"]);
        // It was not over then, or was set anew.
        assert_eq!(judged(&[back(60, 50), manual(9)], Plan::default(), now), ["age", "endless"]);
        let planned = Backup { undeleted_at: Some(day(50)), ..scheduled(1) };
        assert_eq!(judged(&[planned, manual(9)], plan(7, None), now), ["undeleted", "endless"]);
    }

    #[test]
    fn a_clock_ahead_of_time_takes_no_more_than_the_rules_allow() {
        // Goal: even a clock that is a century ahead leaves what has to stay. Method: every rule at once.
        let rows: Vec<Backup> = (1..=30).map(scheduled).chain([manual(1), ending(31, 40)]).collect();
        let words = judged(&rows, plan(7, Some(3)), day(36_500));
        assert_eq!(words.iter().filter(|word| **word == "keep_last").count(), 3);
        assert_eq!((words[30], words[31]), ("endless", "last_good"));
    }

    #[test]
    fn every_verdict_has_its_words() {
        let keeps = [
            Keep::Creating,
            Keep::Endless,
            Keep::Young(day(1)),
            Keep::Undeleted,
            Keep::Suspect(BackupId::new()),
            Keep::LastGood,
            Keep::LastOfAll,
            Keep::KeepLast(1),
            Keep::Held(String::new()),
            Keep::InUse(String::new()),
            Keep::Changed,
        ];
        let others = [Verdict::Expire(Ground::Age(day(1))), Verdict::Expire(Ground::Failed(day(1))), Verdict::Deleted(day(1))];
        let words: Vec<_> = keeps.map(Verdict::Keep).iter().chain(&others).map(Verdict::words).collect();
        assert_eq!(words, Verdict::WORDS);
        assert_eq!(others[0].to_string(), "its age was over at 2024-10-05T00:00:00Z");
    }
}
