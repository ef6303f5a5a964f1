// Goal: programs written for the official Node SDK work, unmodified, over TLS. Method: the SDK's own clients and helper.
//
// The service and its tokens come from tests/outside/sdk/run, by the environment. The SDK has no endpoint discovery: the
// address is an argument of its calls.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { createRequire } = require('node:module');
const test = require('node:test');

const load = createRequire(`${process.env.REDKEEP_NODE_MODULES}/`);
const { Session, waitForOperation, errors } = load('@yandex-cloud/nodejs-sdk');
const { backup, backupService, cluster, clusterService } = load('@yandex-cloud/nodejs-sdk/mdb-redis-v1');
const { operationService } = load('@yandex-cloud/nodejs-sdk/operation');
const { apiEndpointService } = load('@yandex-cloud/nodejs-sdk/endpoint');

const ADDRESS = process.env.REDKEEP_ADDRESS;
const CA = fs.readFileSync(process.env.REDKEEP_CA);
const WAIT_MS = 60_000;
const TYPES = 'type.googleapis.com/yandex.cloud.mdb.redis.v1';
// Numbers of gRPC's codes.
const CODE = { CANCELLED: 1, INVALID_ARGUMENT: 3, NOT_FOUND: 5, PERMISSION_DENIED: 7, FAILED_PRECONDITION: 9, UNIMPLEMENTED: 12, UNAVAILABLE: 14, UNAUTHENTICATED: 16 };

const token = (role) => process.env[`REDKEEP_TOKEN_${role.toUpperCase()}`];
const login = (iamToken) => new Session({ iamToken, ssl: { rootCerts: CA }, pollInterval: 200 });
const clientsOf = (session) => ({
    clusters: session.client(clusterService.ClusterServiceClient, ADDRESS),
    backups: session.client(backupService.BackupServiceClient, ADDRESS),
    operations: session.client(operationService.OperationServiceClient, ADDRESS),
});

const session = login(token('editor'));
const { clusters, backups, operations } = clientsOf(session);
const wait = (operation) => waitForOperation(operation, session, WAIT_MS, ADDRESS);
const requestBackup = (clusterId, from = clusters) => from.backup(clusterService.BackupClusterRequest.fromPartial({ clusterId }));
const listBackups = async () => (await clusters.listBackups(clusterService.ListClusterBackupsRequest.fromPartial({ clusterId: 'demo' }))).backups;
// Where headers came before the error, the SDK hides the code in the text.
const codeOf = (error) => (error instanceof errors.ApiError ? CODE[/\b[A-Z_]{6,}\b/.exec(error.message)?.[0]] : error.code);
const refused = (call, code, words = /./) => assert.rejects(call, (error) => {
    assert.equal(codeOf(error), code, String(error));
    assert.match(error.details ?? error.message, words);
    return true;
});

test('discovery names the service', async () => {
    const endpoints = session.client(apiEndpointService.ApiEndpointServiceClient, ADDRESS);
    const listed = (await endpoints.list(apiEndpointService.ListApiEndpointsRequest.fromPartial({}))).endpoints;
    for (const id of ['endpoint', 'iam', 'operation', 'managed-redis']) {
        assert.equal(listed.find((endpoint) => endpoint.id === id)?.address, ADDRESS, id);
    }
});

test('clusters are listed and got', async () => {
    const listed = (await clusters.list(clusterService.ListClustersRequest.fromPartial({ folderId: 'default' }))).clusters;
    assert.deepEqual(listed.map(({ id }) => id).sort(), ['demo', 'locked', 'waiting']);
    const got = await clusters.get(clusterService.GetClusterRequest.fromPartial({ clusterId: 'demo' }));
    assert.equal(got.id, 'demo');
    assert.equal(got.folderId, 'default');
    assert.equal(got.status, cluster.Cluster_Status.RUNNING);
    const { hosts } = await clusters.listHosts(clusterService.ListClusterHostsRequest.fromPartial({ clusterId: 'demo' }));
    assert.deepEqual(hosts.map(({ role }) => role).sort(), [cluster.Host_Role.MASTER, cluster.Host_Role.REPLICA]);
});

test('a backup is made, waited for and deleted', async () => {
    const before = new Set((await listBackups()).map(({ id }) => id));
    const started = await requestBackup('demo');
    assert.equal(started.done, false);
    assert.equal(started.createdBy, 'editor');
    assert.equal(started.metadata.typeUrl, `${TYPES}.BackupClusterMetadata`);
    assert.equal(clusterService.BackupClusterMetadata.decode(started.metadata.value).clusterId, 'demo');

    const ended = await wait(started);
    assert.equal(ended.done, true);
    assert.equal(ended.error, undefined);
    assert.equal(ended.response.typeUrl, `${TYPES}.Cluster`);
    assert.equal(cluster.Cluster.decode(ended.response.value).id, 'demo');

    const made = (await listBackups()).filter(({ id }) => !before.has(id));
    assert.equal(made.length, 1);
    const backupId = made[0].id;
    const got = await backups.get(backupService.GetBackupRequest.fromPartial({ backupId }));
    assert.deepEqual(got, made[0]);
    assert.equal(got.sourceClusterId, 'demo');
    assert.deepEqual(got.sourceShardNames, ['shard1']);
    assert.equal(got.type, backup.Backup_BackupType.MANUAL);
    assert.ok(got.createdAt >= got.startedAt);
    const ofFolder = (await backups.list(backupService.ListBackupsRequest.fromPartial({ folderId: 'default' }))).backups;
    assert.ok(ofFolder.some(({ id }) => id === backupId));

    const deleted = await wait(await backups.delete(backupService.DeleteBackupRequest.fromPartial({ backupId })));
    assert.equal(deleted.metadata.typeUrl, `${TYPES}.DeleteBackupMetadata`);
    assert.equal(backupService.DeleteBackupMetadata.decode(deleted.metadata.value).backupId, backupId);
    assert.equal(deleted.response.typeUrl, 'type.googleapis.com/google.protobuf.Empty');
    await refused(backups.get(backupService.GetBackupRequest.fromPartial({ backupId })), CODE.NOT_FOUND);
});

test('operations of a cluster are listed', async () => {
    const made = await wait(await requestBackup('demo'));
    const listed = (await clusters.listOperations(clusterService.ListClusterOperationsRequest.fromPartial({ clusterId: 'demo' }))).operations;
    assert.deepEqual(listed.find(({ id }) => id === made.id), made);
});

test('a failed backup rejects the wait with its error', async () => {
    const started = await requestBackup('locked');
    await assert.rejects(wait(started), (operation) => {
        assert.equal(operation.id, started.id);
        assert.equal(operation.done, true);
        assert.match(operation.error.message, /password|credentials/);
        return true;
    });
});

test('a conflicting operation is named, and a cancelled one ends with an error', async () => {
    const first = await requestBackup('waiting');
    await refused(requestBackup('waiting'), CODE.FAILED_PRECONDITION, new RegExp(`conflicting operation "${first.id}" detected`));
    await operations.cancel(operationService.CancelOperationRequest.fromPartial({ operationId: first.id }));
    await assert.rejects(wait(first), (operation) => {
        assert.equal(operation.error.code, CODE.CANCELLED);
        return true;
    });
});

test('what is not there, is not valid, is not built or is of another folder', async () => {
    await refused(clusters.get(clusterService.GetClusterRequest.fromPartial({ clusterId: 'nobody' })), CODE.NOT_FOUND, /nobody|cluster/);
    await refused(backups.get(backupService.GetBackupRequest.fromPartial({ backupId: 'c9qsomething:20181113T133617' })), CODE.NOT_FOUND);
    await refused(operations.get(operationService.GetOperationRequest.fromPartial({ operationId: 'nothing' })), CODE.NOT_FOUND);
    await refused(clusters.list(clusterService.ListClustersRequest.fromPartial({ folderId: 'x'.repeat(51) })), CODE.INVALID_ARGUMENT, /folder_id/);
    await refused(clusters.rebalance(clusterService.RebalanceClusterRequest.fromPartial({ clusterId: 'demo' })), CODE.UNIMPLEMENTED);
    await refused(clusters.get(clusterService.GetClusterRequest.fromPartial({ clusterId: 'foreign' })), CODE.NOT_FOUND);
});

test('without a good token nobody comes in, and a viewer changes nothing', async () => {
    const list = clusterService.ListClustersRequest.fromPartial({ folderId: 'default' });
    for (const bad of ['', 'wrong', token('expired')]) {
        await refused(clientsOf(login(bad)).clusters.list(list), CODE.UNAUTHENTICATED);
    }
    const viewer = clientsOf(login(token('viewer')));
    assert.equal((await viewer.clusters.list(list)).clusters.length, 3);
    await refused(requestBackup('demo', viewer.clusters), CODE.PERMISSION_DENIED);
    const [{ id: backupId }] = await listBackups();
    await refused(viewer.backups.delete(backupService.DeleteBackupRequest.fromPartial({ backupId })), CODE.PERMISSION_DENIED);
});

test('a client that does not know our authority does not connect', async () => {
    const strangers = new Session({ iamToken: token('viewer') }).client(clusterService.ClusterServiceClient, ADDRESS);
    await refused(strangers.list(clusterService.ListClustersRequest.fromPartial({ folderId: 'default' })), CODE.UNAVAILABLE);
});
