//! How far the schedule of a cluster has come.

use crate::cluster::Timestamp;
use crate::cluster::policy::PolicyId;
use crate::operation::OperationId;
use serde::{Deserialize, Serialize};

/// How far the schedule of a cluster has come, so that a restart neither doubles a backup nor forgets one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The [words](crate::cluster::calendar::Calendar::words) of the calendar that it is of; empty where nothing is planned.
    pub calendar: String,
    /// Every planned instant up to this one has its backup, has been given up, or was before the calendar.
    pub settled_at: Timestamp,
    /// The run that has not ended.
    pub open: Option<Run>,
}

impl Planned {
    /// Longest words of a calendar, in bytes.
    pub const CALENDAR_BYTES: usize = 256;
}

/// What became of a change of how far a schedule has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was made, by this call.
    Ours,
    /// It was not made: another was before us, and this is what stands.
    Theirs(Option<Planned>),
}

/// The backup for one planned instant, from that instant to its end: several operations where the first ones fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The planned instant.
    pub planned_at: Timestamp,
    /// The retention policy that keeps it longest.
    pub policy_id: Option<PolicyId>,
    /// Days that it is to be kept; for ever when absent.
    pub retain_days: Option<u32>,
    /// The number of the operation, from 1 on.
    pub attempt: u32,
    /// When that operation is to be accepted.
    pub start_at: Timestamp,
    /// The operation; absent until it is accepted.
    pub operation_id: Option<OperationId>,
}
