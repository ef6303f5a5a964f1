//! What a cluster must be for a backup to be taken on.
//!
//! A cluster that was made known to us is running from the end of its adoption on. What a look could not find out refuses nothing: a server that does
//! not answer is told by the end of the operation, as through every other door.

use super::answer::Refusal;
use crate::cluster::{Role, View};

/// Least hosts of a cluster.
const NODES: usize = 2;

/// What is thought of cluster mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterMode {
    Allowed,
    Refused,
}

/// Whether a cluster that looks like this may be backed up: cluster mode as it is thought of, two nodes, one a replica.
pub(super) fn check(view: &View, cluster_mode: ClusterMode) -> Result<(), Refusal> {
    let is = |role: Role| view.hosts.iter().any(|host| host.role == role);
    if !is(Role::Primary) && !is(Role::Replica) {
        return Ok(());
    }
    let shown = || view.id.to_string();
    if view.cluster_mode && cluster_mode == ClusterMode::Refused {
        return Err(Refusal::ClusterMode(shown()));
    }
    if view.hosts.len() < NODES {
        return Err(Refusal::TooFewNodes(shown()));
    }
    if !is(Role::Replica) && !is(Role::Unknown) {
        return Err(Refusal::NoReplica(shown()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]
    use super::*;
    use crate::cluster::{Health, Host, Timestamp};
    use std::collections::BTreeMap;

    fn view(roles: &[Role], cluster_mode: bool) -> View {
        let host = |(index, role): (usize, &Role)| Host {
            name: format!("h:{index}"),
            shard_name: "shard1".into(),
            role: *role,
            health: Health::Alive,
            memory_bytes: 0,
            replica_priority: None,
        };
        View {
            id: "main".parse().unwrap(),
            folder_id: "default".parse().unwrap(),
            created_at: Timestamp::UNIX_EPOCH,
            name: "main".into(),
            description: String::new(),
            labels: BTreeMap::new(),
            health: Health::Alive,
            version: String::new(),
            engine: String::new(),
            hosts: roles.iter().enumerate().map(host).collect(),
            probed_at: None,
            cluster_mode,
            backup_window_start: None,
            backup_retain_days: None,
            tls_enabled: false,
            is_adopting: false,
            keeps_no_log: false,
        }
    }

    #[test]
    fn a_primary_and_a_replica_are_needed() {
        use Role::{Primary, Replica, Unknown};
        let main = || "main".to_owned();
        for (roles, cluster_mode, expected) in [
            (vec![Primary, Replica], false, Ok(())),
            (vec![Primary, Replica, Replica], false, Ok(())),
            (vec![Primary], false, Err(Refusal::TooFewNodes(main()))),
            (vec![Replica], false, Err(Refusal::TooFewNodes(main()))),
            (vec![Primary, Primary], false, Err(Refusal::NoReplica(main()))),
            (vec![Primary, Replica], true, Err(Refusal::ClusterMode(main()))),
            (vec![Primary], true, Err(Refusal::ClusterMode(main()))),
            // Silent hosts may be anything.
            (vec![Primary, Unknown], false, Ok(())),
            (vec![Unknown, Replica], false, Ok(())),
            (vec![Unknown], false, Ok(())),
            (vec![], false, Ok(())),
        ] {
            assert_eq!(check(&view(&roles, cluster_mode), ClusterMode::Refused), expected, "{roles:?}");
        }
        assert_eq!(check(&view(&[Primary, Replica], true), ClusterMode::Allowed), Ok(()));
        assert_eq!(check(&view(&[Primary], true), ClusterMode::Allowed), Err(Refusal::TooFewNodes(main())));
    }
}
