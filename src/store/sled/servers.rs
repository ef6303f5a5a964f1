//! Where the servers of a cluster are that is being restored.

use super::judge::{Judge, refused};
use super::keys;
use crate::cluster::{Adopted, LocalServers};
use crate::operation::{Epoch, OperationId, Spec};
use crate::store::Error;

impl Judge {
    /// Writes the servers of the cluster that an operation makes into its record.
    pub(super) fn record_servers(&mut self, id: OperationId, epoch: Epoch, nodes: Vec<String>, servers: LocalServers) -> Result<(), Error> {
        let operation = self.rows.operation(id)?.ok_or(Error::NoOperation)?;
        operation.goes_on(epoch).map_err(refused)?;
        let Spec::RestoreCluster(_) = &operation.spec else {
            return Err(Error::Invalid("only a restore makes servers".to_owned()));
        };
        let before = self.rows.cluster(&operation.cluster_id)?.ok_or(Error::NoCluster)?;
        let mut row = Adopted { local: Some(servers), ..before };
        row.connection.nodes = nodes;
        if row.bytes() > Adopted::BYTES {
            return Err(Error::Invalid("the cluster has too many servers for its record".to_owned()));
        }
        self.rows.write(keys::cluster(&operation.cluster_id), &row)
    }
}
