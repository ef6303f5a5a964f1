//! The transition function: every pair of state and event, and nothing else.

use super::{Epoch, Operation, Policy, Progress, Publication, Response, Spec, State, Step};
use crate::cluster::Timestamp;
use crate::failure::{Failure, Reason};
use chrono::TimeDelta;

/// Whose fault ended an attempt that may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The source's, before it was asked to fork: counted, and bounded by [`Policy::SOURCE_FAULTS`].
    Source,
    /// The source's, after it was asked to fork: as [`Fault::Source`], and a fork besides.
    Forked,
    /// The dump did not hold together: bounded by [`Policy::CORRUPT`].
    Corrupt,
    /// The storage's or the store's: repeated until the deadline.
    Storage,
}

/// How the work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Succeeded(Response),
    /// Without a result, and another attempt would not help.
    Failed(Failure),
    /// Stopped, as it was told.
    Cancelled,
}

/// What happens to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker asks for it. A lapsed lease is judged here: a crash is counted, a cancellation ends. The answer may be a
    /// state other than RUNNING; then the worker does not have it.
    Claim {
        /// When the new lease lapses.
        lease_until: Timestamp,
    },
    /// The worker is still there.
    Renew {
        /// Its attempt.
        epoch: Epoch,
        /// When the lease lapses from here on.
        lease_until: Timestamp,
    },
    /// The worker starts a step. PUBLISH needs the decision to publish, and only it may bring one.
    Step {
        /// Its attempt.
        epoch: Epoch,
        /// The step; never an earlier one.
        step: Step,
        /// The decision to publish.
        publication: Option<Publication>,
    },
    /// The worker tells how far it is.
    Progress {
        /// Its attempt.
        epoch: Epoch,
        /// How far.
        progress: Progress,
    },
    /// The attempt failed and another may help.
    Retry {
        /// Its attempt.
        epoch: Epoch,
        /// Earliest start of the next one; the wait after a fork is added here, not by the caller.
        not_before: Timestamp,
        /// Whose fault it was.
        fault: Fault,
        /// What went wrong.
        failure: Failure,
    },
    /// The worker's process stops gracefully. It is no crash.
    HandBack {
        /// Its attempt.
        epoch: Epoch,
    },
    /// The attempt may not go on at this time of day; it ends before anything was forked, and nothing is counted.
    Defer {
        /// Its attempt.
        epoch: Epoch,
        /// Earliest start of the next one.
        until: Timestamp,
        /// No attempt starts after this instant, if that is later than what held before.
        deadline_at: Timestamp,
        /// What is waited for, in words.
        waiting_for: String,
    },
    /// The work ended.
    Complete {
        /// Its attempt.
        epoch: Epoch,
        /// How.
        outcome: Outcome,
    },
    /// A caller wants it to stop.
    Cancel,
}

/// Why an event changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another attempt has begun, or the operation has ended: the sender is a late worker.
    #[error("the attempt {sent} is over, the latest is {latest}")]
    Fenced {
        /// The sender's attempt.
        sent: Epoch,
        /// The latest attempt.
        latest: Epoch,
    },
    /// It was told to stop; only its end may follow.
    #[error("the operation is being cancelled")]
    Cancelling,
    /// It is not due yet, or its lease has not lapsed.
    #[error("the operation is not due")]
    NotDue,
    /// The event does not fit the state.
    #[error("not allowed in this state: {0}")]
    NotAllowed(&'static str),
}

impl Operation {
    /// Applies `event` at `now`, or refuses it and leaves the record as it was.
    ///
    /// On success the revision has risen by one and `modified_at` is `now`, except where nothing changed: a cancellation
    /// that comes too late or again.
    ///
    /// # Errors
    ///
    /// [`Refused`], by condition.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<(), Refused> {
        if let State::Succeeded(_) | State::Failed(_) | State::Cancelled = self.state {
            return match event {
                Event::Cancel => Ok(()),
                Event::Claim { .. } => Err(Refused::NotDue),
                Event::Renew { epoch, .. }
                | Event::Step { epoch, .. }
                | Event::Progress { epoch, .. }
                | Event::Retry { epoch, .. }
                | Event::HandBack { epoch }
                | Event::Defer { epoch, .. }
                | Event::Complete { epoch, .. } => Err(Refused::Fenced { sent: epoch, latest: self.epoch }),
            };
        }
        match event {
            Event::Claim { lease_until } => self.claim(lease_until, now)?,
            Event::Cancel => {
                if !self.cancel() {
                    return Ok(());
                }
            }
            Event::Renew { epoch, lease_until: until } => {
                self.guard(epoch)?;
                match &mut self.state {
                    State::Running { lease_until, .. } | State::Cancelling { lease_until } => *lease_until = until,
                    State::Queued { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => return Err(Refused::NotAllowed("renew")),
                }
            }
            Event::Step { epoch, step, publication } => {
                self.guard(epoch)?;
                self.start_step(step, publication)?;
            }
            Event::Progress { epoch, progress } => {
                self.guard(epoch)?;
                // What may have been sent is never told to be less.
                let written = self.progress.written.take().filter(|written| written.is_ahead_of(progress.written.as_deref()));
                self.progress = progress;
                self.progress.written = written.or(self.progress.written.take());
            }
            Event::Retry { epoch, not_before, fault, failure } => {
                self.guard(epoch)?;
                self.retry(not_before, fault, failure, now);
            }
            Event::HandBack { epoch } => {
                self.guard(epoch)?;
                self.hand_back(now);
            }
            Event::Defer { epoch, until, deadline_at, waiting_for } => {
                self.guard(epoch)?;
                self.defer(until, deadline_at, waiting_for, now)?;
            }
            Event::Complete { epoch, outcome } => {
                self.guard(epoch)?;
                self.complete(outcome)?;
            }
        }
        if self.state.is_terminal() {
            self.spec.forget_login();
        }
        self.revision += 1;
        self.modified_at = now.max(self.modified_at);
        Ok(())
    }

    /// Whether the attempt `epoch` is under way and may go on.
    ///
    /// # Errors
    ///
    /// [`Refused::Fenced`] and [`Refused::Cancelling`].
    pub fn goes_on(&self, epoch: Epoch) -> Result<(), Refused> {
        self.guard(epoch)?;
        match &self.state {
            State::Running { .. } => Ok(()),
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => Err(Refused::Cancelling),
        }
    }

    /// Whether the attempt `epoch` is under way and its lease has not lapsed at `now`.
    pub fn is_leased(&self, epoch: Epoch, now: Timestamp) -> bool {
        match &self.state {
            State::Running { lease_until, .. } | State::Cancelling { lease_until } => epoch == self.epoch && now < *lease_until,
            State::Queued { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
        }
    }

    /// Lets the worker of `epoch` through, and no other. A queued operation has no worker.
    fn guard(&self, epoch: Epoch) -> Result<(), Refused> {
        let held = matches!(self.state, State::Running { .. } | State::Cancelling { .. });
        if held && epoch == self.epoch { Ok(()) } else { Err(Refused::Fenced { sent: epoch, latest: self.epoch }) }
    }

    fn claim(&mut self, lease_until: Timestamp, now: Timestamp) -> Result<(), Refused> {
        match &self.state {
            State::Queued { not_before } => {
                let not_before = *not_before;
                if self.publication.is_none() && now > self.policy.deadline_at {
                    self.state = State::Failed(self.deadline_failure());
                    return Ok(());
                }
                if now < not_before {
                    return Err(Refused::NotDue);
                }
                self.start_attempt(lease_until);
                Ok(())
            }
            State::Cancelling { lease_until: until } => {
                if now < *until {
                    return Err(Refused::NotDue);
                }
                self.state = State::Cancelled;
                Ok(())
            }
            State::Running { step, lease_until: until } => {
                if now < *until {
                    return Err(Refused::NotDue);
                }
                let step = *step;
                self.crashed(step, lease_until, now);
                Ok(())
            }
            State::Succeeded(_) | State::Failed(_) | State::Cancelled => Err(Refused::NotDue),
        }
    }

    fn start_attempt(&mut self, lease_until: Timestamp) {
        self.epoch = Epoch(self.epoch.0 + 1);
        let step = if self.publication.is_some() { Step::Publish } else { self.spec.first_step() };
        if step != Step::Publish {
            self.progress = Progress { left: self.progress.left.take(), written: self.progress.written.take(), ..Progress::default() };
        }
        self.reached = Some(step);
        self.state = State::Running { step, lease_until };
    }

    /// The worker vanished in `step`.
    fn crashed(&mut self, step: Step, lease_until: Timestamp, now: Timestamp) {
        if step == Step::Publish {
            self.start_attempt(lease_until);
            return;
        }
        self.tally.crashes += 1;
        let forked = self.spec.forks() && step.forks();
        if forked {
            self.tally.forks += 1;
        }
        let lost = Failure::new(Reason::Internal, format!("the process that worked on it ended during {}", step_word(step)));
        if self.tally.crashes >= Policy::CRASHES {
            self.state = State::Failed(Failure::new(
                Reason::Poisoned,
                format!(
                    "the process that worked on it ended {} times, the last time during {}; look at its log before you try again{}",
                    self.tally.crashes,
                    step_word(step),
                    self.all_the_same()
                ),
            ));
        } else if forked {
            self.requeue(now, lost, true, now);
        } else if now > self.policy.deadline_at {
            self.state = State::Failed(self.deadline_failure());
        } else {
            self.last_failure = Some(lost);
            self.start_attempt(lease_until);
        }
        // A fork whose wait is over at once need not go through the queue a second time.
        if let State::Queued { not_before } = self.state
            && now >= not_before
        {
            self.start_attempt(lease_until);
        }
    }

    /// Puts it back into the queue, or ends it where the budget of forks or the deadline forbids another attempt.
    fn requeue(&mut self, not_before: Timestamp, failure: Failure, forked: bool, now: Timestamp) {
        let mut not_before = not_before.max(now);
        if forked {
            if self.tally.forks >= Policy::FORKS {
                self.state = State::Failed(Failure::new(
                    Reason::ForkBudget,
                    format!("the source was forked {} times for this operation, which is the limit; the last attempt failed: {failure}", self.tally.forks),
                ));
                return;
            }
            let delay = TimeDelta::from_std(self.policy.refork_delay()).unwrap_or(TimeDelta::MAX);
            not_before = not_before.max(now.checked_add_signed(delay).unwrap_or(Timestamp::MAX_UTC));
        }
        if not_before > self.policy.deadline_at {
            self.state = State::Failed(Failure::new(
                failure.reason,
                format!(
                    "{failure}; the next attempt could not start before the deadline at {}{}",
                    self.policy.deadline_at.format("%FT%TZ"),
                    self.all_the_same()
                ),
            ));
            return;
        }
        self.last_failure = Some(failure);
        self.wait_until(not_before);
    }

    /// Puts it back into the queue. What the attempt waited for is over.
    fn wait_until(&mut self, not_before: Timestamp) {
        self.progress.waiting_for.clear();
        self.state = State::Queued { not_before };
    }

    fn defer(&mut self, until: Timestamp, deadline_at: Timestamp, waiting_for: String, now: Timestamp) -> Result<(), Refused> {
        match &self.state {
            State::Running { step, .. } if step.is_final() || step.forks() => return Err(Refused::NotAllowed("put off after it was begun")),
            State::Running { .. } => {}
            // It was told to stop, and it has stopped.
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => {
                self.state = State::Cancelled;
                return Ok(());
            }
        }
        // The time in which it may not start is no part of the time that it has to start.
        self.policy.deadline_at = self.policy.deadline_at.max(deadline_at);
        self.wait_until(until.max(now));
        self.progress.waiting_for = waiting_for;
        Ok(())
    }

    fn deadline_failure(&self) -> Failure {
        let why = match &self.last_failure {
            Some(failure) => format!("; the last attempt failed: {failure}"),
            None => "; no worker was free for it".to_owned(),
        };
        let message = format!("no attempt could start before the deadline at {}{why}{}", self.policy.deadline_at.format("%FT%TZ"), self.all_the_same());
        Failure::new(Reason::DeadlineExceeded, message)
    }

    /// What holds although the operation failed.
    fn all_the_same(&self) -> &'static str {
        match self.spec {
            Spec::DeleteBackup => "; the backup is deleted all the same, only the word of it in storage is missing",
            Spec::CreateBackup | Spec::UpdateBackup(_) | Spec::CopyBackup { .. } | Spec::ExportBackup(_) | Spec::ImportBackup(_) => "",
            Spec::AdoptCluster | Spec::UpdateConnection | Spec::ForgetCluster => "",
            // Only once it was told to follow us is there anything left of it.
            Spec::RestoreInto(_) if self.progress.left.as_ref().is_some_and(|left| left.state.is_empty()) => {
                "; the target may still follow a feed that is gone: REPLICAOF NO ONE frees it"
            }
            Spec::UndeleteBackup | Spec::VerifyBackup { .. } | Spec::RestoreInto(_) | Spec::RestoreCluster(_) | Spec::DeleteCluster => "",
            Spec::UpdateCluster(_) | Spec::CreatePolicy(_) | Spec::DeletePolicy { .. } => "",
        }
    }

    fn start_step(&mut self, next: Step, publication: Option<Publication>) -> Result<(), Refused> {
        let State::Running { step, .. } = &mut self.state else {
            return Err(Refused::Cancelling);
        };
        if next < *step {
            return Err(Refused::NotAllowed("an earlier step"));
        }
        match (next, publication) {
            (Step::Publish, Some(publication)) if self.publication.is_none() => self.publication = Some(publication),
            (Step::Publish, None) if self.publication.is_some() => {}
            (Step::Publish, _) => return Err(Refused::NotAllowed("one decision to publish goes with PUBLISH")),
            (_, Some(_)) => return Err(Refused::NotAllowed("a decision to publish goes with PUBLISH only")),
            (_, None) => {}
        }
        *step = next;
        self.reached = Some(next);
        Ok(())
    }

    fn retry(&mut self, not_before: Timestamp, fault: Fault, failure: Failure, now: Timestamp) {
        let step = match &self.state {
            State::Running { step, .. } => *step,
            // It was told to stop, and it has stopped.
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => {
                self.state = State::Cancelled;
                return;
            }
        };
        if step == Step::Publish {
            self.last_failure = Some(failure);
            self.wait_until(not_before.max(now));
            return;
        }
        let forked = self.spec.forks() && step.forks() && fault != Fault::Source;
        if forked {
            self.tally.forks += 1;
        }
        let spent = match fault {
            Fault::Source | Fault::Forked => {
                self.tally.source_faults += 1;
                self.tally.source_faults >= Policy::SOURCE_FAULTS
            }
            Fault::Corrupt => {
                self.tally.corrupt += 1;
                self.tally.corrupt >= Policy::CORRUPT
            }
            Fault::Storage => false,
        };
        if spent {
            self.state = State::Failed(failure);
        } else {
            self.requeue(not_before, failure, forked, now);
        }
    }

    fn hand_back(&mut self, now: Timestamp) {
        match &self.state {
            State::Running { step, .. } => {
                // The source was forked all the same; only the wait and the count of crashes are spared.
                if self.spec.forks() && step.forks() {
                    self.tally.forks += 1;
                    if self.tally.forks >= Policy::FORKS {
                        self.state = State::Failed(Failure::new(
                            Reason::ForkBudget,
                            format!(
                                "the source was forked {} times for this operation, which is the limit; the last time the service was stopped meanwhile",
                                self.tally.forks
                            ),
                        ));
                        return;
                    }
                }
                self.wait_until(now);
            }
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => self.state = State::Cancelled,
        }
    }

    fn complete(&mut self, outcome: Outcome) -> Result<(), Refused> {
        let step = match &self.state {
            State::Running { step, .. } => *step,
            State::Queued { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => {
                // Before PUBLISH there is nothing that could have succeeded; whatever the worker says, it was told to stop.
                self.state = State::Cancelled;
                return Ok(());
            }
        };
        self.state = match outcome {
            Outcome::Succeeded(response) if step.is_final() => State::Succeeded(response),
            Outcome::Succeeded(_) => return Err(Refused::NotAllowed("success before the last step")),
            Outcome::Failed(failure) => State::Failed(failure),
            Outcome::Cancelled => return Err(Refused::NotAllowed("a cancellation that nobody asked for")),
        };
        Ok(())
    }

    /// Returns whether anything changed.
    fn cancel(&mut self) -> bool {
        match &self.state {
            // What is decided is not taken back: a manifest to be published, a backup that is hidden and whose name is free.
            State::Queued { .. } if self.publication.is_some() || self.spec == Spec::DeleteBackup => false,
            State::Queued { .. } => {
                self.state = State::Cancelled;
                true
            }
            State::Running { step, lease_until } if !step.is_final() => {
                self.state = State::Cancelling { lease_until: *lease_until };
                true
            }
            State::Running { .. } | State::Cancelling { .. } | State::Succeeded(_) | State::Failed(_) | State::Cancelled => false,
        }
    }
}

/// The word for a step in messages.
fn step_word(step: Step) -> &'static str {
    match step {
        Step::Preflight => "PREFLIGHT",
        Step::Snapshot => "SNAPSHOT",
        Step::Seal => "SEAL",
        Step::Load => "LOAD",
        Step::Publish => "PUBLISH",
        Step::Work => "WORK",
    }
}

#[cfg(test)]
mod tests;
