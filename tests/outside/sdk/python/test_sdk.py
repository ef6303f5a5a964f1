"""Goal: programs written for the official Python SDK work, unmodified, over TLS. Method: the SDK's own calls and helpers.

The service and its tokens come from tests/outside/sdk/run, by the environment.
"""

import os
import warnings
from pathlib import Path

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from yandex.cloud.endpoint.api_endpoint_service_pb2 import GetApiEndpointRequest, ListApiEndpointsRequest
from yandex.cloud.endpoint.api_endpoint_service_pb2_grpc import ApiEndpointServiceStub
from yandex.cloud.mdb.redis.v1.backup_pb2 import Backup
from yandex.cloud.mdb.redis.v1.backup_service_pb2 import DeleteBackupMetadata, DeleteBackupRequest, GetBackupRequest, ListBackupsRequest
from yandex.cloud.mdb.redis.v1.backup_service_pb2_grpc import BackupServiceStub
from yandex.cloud.mdb.redis.v1.cluster_pb2 import Cluster, Host
from yandex.cloud.mdb.redis.v1.cluster_service_pb2 import (
    BackupClusterMetadata,
    BackupClusterRequest,
    GetClusterRequest,
    ListClusterBackupsRequest,
    ListClusterHostsRequest,
    ListClusterOperationsRequest,
    ListClustersRequest,
    RescheduleMaintenanceRequest,
)
from yandex.cloud.mdb.redis.v1.cluster_service_pb2_grpc import ClusterServiceStub
from yandex.cloud.operation.operation_service_pb2 import CancelOperationRequest, GetOperationRequest
from yandex.cloud.operation.operation_service_pb2_grpc import OperationServiceStub
from yandexcloud import SDK, RetryPolicy
from yandexcloud.operations import OperationError

ADDRESS = os.environ["REDKEEP_ADDRESS"]
CA = Path(os.environ["REDKEEP_CA"]).read_bytes()
WAIT_SECS = 60


def token(role):
    return os.environ[f"REDKEEP_TOKEN_{role.upper()}"]


def sdk(**login):
    return SDK(endpoint=ADDRESS, root_certificates=CA, **(login or {"iam_token": token("editor")}))


def refused(call, request, **options):
    """The error of a call that must not succeed."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20, **options)
    return caught.value


def details(error):
    """The structured part of an error, as google.rpc.Status."""
    found = [value for key, value in error.trailing_metadata() if key == "grpc-status-details-bin"]
    return Status.FromString(found[0]) if found else Status()


@pytest.fixture(scope="module")
def client():
    return sdk()


@pytest.fixture(scope="module")
def backup(client):
    """One backup, made with the SDK's helper and found by list as a user of the SDK must."""
    clusters = client.client(ClusterServiceStub)
    operation = clusters.Backup(BackupClusterRequest(cluster_id="demo"))
    client.wait_operation_and_get_result(operation, response_type=Cluster, meta_type=BackupClusterMetadata, timeout=WAIT_SECS)
    return clusters.ListBackups(ListClusterBackupsRequest(cluster_id="demo")).backups[0]


def test_discovery_names_the_service(client):
    endpoints = client.client(ApiEndpointServiceStub)
    listed = {endpoint.id: endpoint.address for endpoint in endpoints.List(ListApiEndpointsRequest()).endpoints}
    assert {"endpoint", "iam", "operation", "managed-redis"} <= listed.keys()
    assert set(listed.values()) == {ADDRESS}
    assert endpoints.Get(GetApiEndpointRequest(api_endpoint_id="managed-redis")).address == ADDRESS


def test_clusters_are_listed_and_got(client):
    clusters = client.client(ClusterServiceStub)
    listed = clusters.List(ListClustersRequest(folder_id="default"))
    assert {"demo", "locked", "waiting"} == {cluster.id for cluster in listed.clusters}
    named = clusters.List(ListClustersRequest(folder_id="default", filter='name="demo"'))
    assert ["demo"] == [cluster.id for cluster in named.clusters]

    cluster = clusters.Get(GetClusterRequest(cluster_id="demo"))
    assert (cluster.id, cluster.folder_id, cluster.name) == ("demo", "default", "demo")
    assert cluster.status == Cluster.RUNNING

    hosts = clusters.ListHosts(ListClusterHostsRequest(cluster_id="demo")).hosts
    assert sorted(host.role for host in hosts) == [Host.MASTER, Host.REPLICA]


def test_pages_follow_one_another(client):
    clusters = client.client(ClusterServiceStub)
    found, page_token = [], ""
    for _ in range(10):
        page = clusters.List(ListClustersRequest(folder_id="default", page_size=1, page_token=page_token))
        found += [cluster.id for cluster in page.clusters]
        page_token = page.next_page_token
        if not page_token:
            break
    assert sorted(found) == ["demo", "locked", "waiting"]


def test_a_backup_is_made_waited_for_and_deleted(client):
    clusters, backups = client.client(ClusterServiceStub), client.client(BackupServiceStub)
    before = {backup.id for backup in clusters.ListBackups(ListClusterBackupsRequest(cluster_id="demo")).backups}

    operation = clusters.Backup(BackupClusterRequest(cluster_id="demo"))
    assert operation.id and not operation.done and operation.created_by == "editor"
    # The SDK ignores that an Any holds another type than it was told; the name says whether it does.
    assert operation.metadata.type_url == "type.googleapis.com/yandex.cloud.mdb.redis.v1.BackupClusterMetadata"
    result = client.wait_operation_and_get_result(operation, response_type=Cluster, meta_type=BackupClusterMetadata, timeout=WAIT_SECS)
    assert result.meta.cluster_id == "demo"
    assert (result.response.id, result.response.folder_id, result.response.status) == ("demo", "default", Cluster.RUNNING)

    made = [backup for backup in clusters.ListBackups(ListClusterBackupsRequest(cluster_id="demo")).backups if backup.id not in before]
    assert len(made) == 1
    (backup,) = made
    got = backups.Get(GetBackupRequest(backup_id=backup.id))
    assert got == backup
    assert (got.folder_id, got.source_cluster_id, list(got.source_shard_names), got.type) == ("default", "demo", ["shard1"], Backup.MANUAL)
    assert got.created_at.ToDatetime() >= got.started_at.ToDatetime()
    assert backup in backups.List(ListBackupsRequest(folder_id="default")).backups

    deletion = backups.Delete(DeleteBackupRequest(backup_id=backup.id))
    result = client.wait_operation_and_get_result(deletion, response_type=Empty, meta_type=DeleteBackupMetadata, timeout=WAIT_SECS)
    assert result.meta.backup_id == backup.id
    ended = client.client(OperationServiceStub).Get(GetOperationRequest(operation_id=deletion.id))
    assert ended.done and ended.response.Is(Empty.DESCRIPTOR)
    assert refused(backups.Get, GetBackupRequest(backup_id=backup.id)).code() == grpc.StatusCode.NOT_FOUND
    assert refused(backups.Delete, DeleteBackupRequest(backup_id=backup.id)).code() == grpc.StatusCode.NOT_FOUND


def test_create_operation_and_get_result_does_it_in_one_call(client):
    result = client.create_operation_and_get_result(
        BackupClusterRequest(cluster_id="demo"), ClusterServiceStub, "Backup", Cluster, BackupClusterMetadata, timeout=WAIT_SECS
    )
    assert (result.meta.cluster_id, result.response.id) == ("demo", "demo")


def test_operations_of_a_cluster_are_listed(client, backup):
    listed = client.client(ClusterServiceStub).ListOperations(ListClusterOperationsRequest(cluster_id="demo")).operations
    made = [operation for operation in listed if operation.metadata.Is(BackupClusterMetadata.DESCRIPTOR)]
    assert made and all(operation.done and operation.WhichOneof("result") == "response" for operation in made)
    got = client.client(OperationServiceStub).Get(GetOperationRequest(operation_id=made[0].id))
    assert got == made[0] and got.response.Is(Cluster.DESCRIPTOR)
    assert backup.source_cluster_id == "demo"


def test_a_key_makes_a_call_repeatable(client):
    clusters = client.client(ClusterServiceStub)
    key = (("idempotency-key", "5f2c0b3e-8b0c-4d0e-9a51-0c6b2f5a3d11"),)
    first = clusters.Backup(BackupClusterRequest(cluster_id="demo"), metadata=key)
    again = clusters.Backup(BackupClusterRequest(cluster_id="demo"), metadata=key)
    assert first.id == again.id
    client.wait_operation_and_get_result(first, timeout=WAIT_SECS)


def test_an_oauth_token_is_exchanged():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = sdk(token=token("editor"))
    operation = client.client(ClusterServiceStub).Backup(BackupClusterRequest(cluster_id="demo"))
    assert operation.created_by == "editor"
    result = client.wait_operation_and_get_result(operation, response_type=Cluster, timeout=WAIT_SECS)
    assert result.response.id == "demo"


def test_a_key_of_a_service_account_is_exchanged():
    key = {"id": os.environ["REDKEEP_KEY_ID"], "service_account_id": os.environ["REDKEEP_ACCOUNT"], "private_key": Path(os.environ["REDKEEP_KEY"]).read_text()}
    client = sdk(service_account_key=key)
    operation = client.client(ClusterServiceStub).Backup(BackupClusterRequest(cluster_id="demo"))
    assert os.environ["REDKEEP_ACCOUNT"] in operation.created_by
    result = client.wait_operation_and_get_result(operation, response_type=Cluster, meta_type=BackupClusterMetadata, timeout=WAIT_SECS)
    assert result.response.id == "demo"


def test_a_key_that_is_not_the_accounts_is_refused():
    key = {"id": os.environ["REDKEEP_KEY_ID"], "service_account_id": os.environ["REDKEEP_ACCOUNT"], "private_key": Path(os.environ["REDKEEP_OTHER_KEY"]).read_text()}
    error = refused(sdk(service_account_key=key).client(ClusterServiceStub).List, ListClustersRequest(folder_id="default"))
    # The error of the exchange, inside the SDK's plugin, becomes this one.
    assert error.code() == grpc.StatusCode.UNAVAILABLE and "StatusCode.UNAUTHENTICATED" in error.details(), error


def test_a_failed_backup_is_the_sdks_operation_error(client):
    operation = client.client(ClusterServiceStub).Backup(BackupClusterRequest(cluster_id="locked"))
    with pytest.raises(OperationError) as caught:
        client.wait_operation_and_get_result(operation, response_type=Cluster, meta_type=BackupClusterMetadata, timeout=WAIT_SECS)
    assert "password" in caught.value.message or "credentials" in caught.value.message, caught.value.message
    assert caught.value.operation_result.meta.cluster_id == "locked"


def test_a_conflicting_operation_is_named_waited_for_and_cancelled(client):
    clusters, operations = client.client(ClusterServiceStub), client.client(OperationServiceStub)
    first = clusters.Backup(BackupClusterRequest(cluster_id="waiting"))
    error = refused(clusters.Backup, BackupClusterRequest(cluster_id="waiting"))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    # Known clients look for these words, wait for that id and ask again.
    assert error.details() == f'conflicting operation "{first.id}" detected'

    operations.Cancel(CancelOperationRequest(operation_id=first.id))
    with pytest.raises(OperationError):
        client.wait_operation_and_get_result(first, response_type=Cluster, meta_type=BackupClusterMetadata, timeout=WAIT_SECS)
    ended = operations.Get(GetOperationRequest(operation_id=first.id))
    assert ended.done and ended.error.code == grpc.StatusCode.CANCELLED.value[0]


def test_what_is_not_there_is_not_found(client):
    for stub, call, request in [
        (ClusterServiceStub, "Get", GetClusterRequest(cluster_id="nobody")),
        (ClusterServiceStub, "Backup", BackupClusterRequest(cluster_id="nobody")),
        (BackupServiceStub, "Get", GetBackupRequest(backup_id="0199f3a4-0000-7000-8000-000000000000")),
        (BackupServiceStub, "Get", GetBackupRequest(backup_id="c9qsomething:20181113T133617")),
        (OperationServiceStub, "Get", GetOperationRequest(operation_id="0199f3a4-0000-7000-8000-000000000000")),
    ]:
        error = refused(getattr(client.client(stub), call), request)
        assert error.code() == grpc.StatusCode.NOT_FOUND, (call, request, error)


def test_an_invalid_field_is_named(client):
    clusters = client.client(ClusterServiceStub)
    for request, field in [
        (ListClustersRequest(), "folder_id"),
        (ListClustersRequest(folder_id="default", page_size=1001), "page_size"),
        (ListClustersRequest(folder_id="x" * 51), "folder_id"),
    ]:
        error = refused(clusters.List, request)
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        found = BadRequest()
        assert any(detail.Unpack(found) for detail in details(error).details), error
        assert [violation.field for violation in found.field_violations] == [field]


def test_a_call_that_is_not_built_says_so(client):
    error = refused(client.client(ClusterServiceStub).RescheduleMaintenance, RescheduleMaintenanceRequest(cluster_id="demo", reschedule_type="IMMEDIATE"))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED and error.details()


def test_without_a_good_token_nobody_comes_in():
    request = ListClustersRequest(folder_id="default")
    channel = grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials(CA))
    callers = {"no token": ClusterServiceStub(channel), "an empty token": sdk(iam_token="").client(ClusterServiceStub)}
    callers["a wrong token"] = sdk(iam_token="wrong").client(ClusterServiceStub)
    callers["an expired token"] = sdk(iam_token=token("expired")).client(ClusterServiceStub)
    changed = token("editor")[:-1] + ("a" if token("editor")[-1] != "a" else "b")
    callers["a token of which one letter differs"] = sdk(iam_token=changed).client(ClusterServiceStub)
    for what, clusters in callers.items():
        assert refused(clusters.List, request).code() == grpc.StatusCode.UNAUTHENTICATED, what


def test_a_viewer_sees_and_changes_nothing(client, backup):
    viewer = sdk(iam_token=token("viewer"))
    clusters, backups = viewer.client(ClusterServiceStub), viewer.client(BackupServiceStub)
    assert backups.Get(GetBackupRequest(backup_id=backup.id)) == backup
    assert refused(backups.Delete, DeleteBackupRequest(backup_id=backup.id)).code() == grpc.StatusCode.PERMISSION_DENIED
    assert refused(clusters.Backup, BackupClusterRequest(cluster_id="demo")).code() == grpc.StatusCode.PERMISSION_DENIED
    assert client.client(BackupServiceStub).Get(GetBackupRequest(backup_id=backup.id)) == backup


def test_another_folder_does_not_exist(client, backup):
    clusters = client.client(ClusterServiceStub)
    assert refused(clusters.Get, GetClusterRequest(cluster_id="foreign")).code() == grpc.StatusCode.NOT_FOUND
    assert refused(clusters.Backup, BackupClusterRequest(cluster_id="foreign")).code() == grpc.StatusCode.NOT_FOUND
    stranger = sdk(iam_token=token("stranger"))
    assert refused(stranger.client(BackupServiceStub).Delete, DeleteBackupRequest(backup_id=backup.id)).code() == grpc.StatusCode.NOT_FOUND
    assert [cluster.id for cluster in stranger.client(ClusterServiceStub).List(ListClustersRequest(folder_id="shop")).clusters] == ["foreign"]


def test_a_client_that_does_not_know_our_authority_does_not_connect():
    error = refused(
        ClusterServiceStub(grpc.secure_channel(ADDRESS, grpc.ssl_channel_credentials())).List, ListClustersRequest(folder_id="default")
    )
    assert error.code() == grpc.StatusCode.UNAVAILABLE


def test_the_sdks_retry_policy_is_taken():
    client = SDK(endpoint=ADDRESS, root_certificates=CA, iam_token=token("viewer"), retry_policy=RetryPolicy())
    assert client.client(ClusterServiceStub).Get(GetClusterRequest(cluster_id="demo")).id == "demo"
