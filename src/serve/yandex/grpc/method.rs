//! The methods of the services, each with the request in JSON that means the same.

use super::schema::full_name;

/// A method of a service, and the request in JSON that means the same.
pub struct Method {
    /// The service, without what all begin with.
    pub service: &'static str,
    /// Its name.
    pub name: &'static str,
    /// The method of HTTP.
    pub verb: &'static str,
    /// The path, with fields of the request in braces.
    pub template: &'static str,
    /// The message that asks.
    pub request: &'static str,
    /// The message that answers.
    pub response: &'static str,
}

impl Method {
    /// The path of a call.
    pub fn path(&self) -> String {
        format!("/{}/{}", full_name(self.service), self.name)
    }
}

macro_rules! methods {
    ($($service:literal { $($name:literal: $verb:literal $template:literal $request:literal -> $response:literal;)+ })+) => {
        &[$($(Method {
            service: $service, name: $name, verb: $verb, template: $template, request: $request,
            response: $response,
        },)+)+]
    };
}

/// Every method that there is.
pub const METHODS: &[Method] = methods! {
    "compute.v1.ImageService" {
        "Get": "GET" "/compute/v1/images/{imageId}" "compute.v1.GetImageRequest" -> "compute.v1.Image";
        "GetLatestByFamily": "GET" "/compute/v1/images:latestByFamily" "compute.v1.GetImageLatestByFamilyRequest" -> "compute.v1.Image";
        "List": "GET" "/compute/v1/images" "compute.v1.ListRequest" -> "compute.v1.ListImagesResponse";
        "Create": "POST" "/compute/v1/images" "compute.v1.CreateImageRequest" -> "operation.Operation";
        "Update": "PATCH" "/compute/v1/images/{imageId}" "compute.v1.UpdateImageRequest" -> "operation.Operation";
        "Delete": "DELETE" "/compute/v1/images/{imageId}" "compute.v1.GetImageRequest" -> "operation.Operation";
        "ListOperations": "GET" "/compute/v1/images/{imageId}/operations" "compute.v1.ListImageOperationsRequest" -> "compute.v1.ListOperationsResponse";
        "ListAccessBindings": "GET" "/compute/v1/images/{resourceId}:listAccessBindings" "access.ListAccessBindingsRequest" -> "access.ListAccessBindingsResponse";
        "SetAccessBindings": "POST" "/compute/v1/images/{resourceId}:setAccessBindings" "access.SetAccessBindingsRequest" -> "operation.Operation";
        "UpdateAccessBindings": "POST" "/compute/v1/images/{resourceId}:updateAccessBindings" "access.UpdateAccessBindingsRequest" -> "operation.Operation";
    }
    "compute.v1.SnapshotService" {
        "Get": "GET" "/compute/v1/snapshots/{snapshotId}" "compute.v1.GetSnapshotRequest" -> "compute.v1.Snapshot";
        "List": "GET" "/compute/v1/snapshots" "compute.v1.ListRequest" -> "compute.v1.ListSnapshotsResponse";
        "Create": "POST" "/compute/v1/snapshots" "compute.v1.CreateSnapshotRequest" -> "operation.Operation";
        "Update": "PATCH" "/compute/v1/snapshots/{snapshotId}" "compute.v1.UpdateSnapshotRequest" -> "operation.Operation";
        "Delete": "DELETE" "/compute/v1/snapshots/{snapshotId}" "compute.v1.GetSnapshotRequest" -> "operation.Operation";
        "ListAccessBindings": "GET" "/compute/v1/snapshots/{resourceId}:listAccessBindings" "access.ListAccessBindingsRequest" -> "access.ListAccessBindingsResponse";
        "SetAccessBindings": "POST" "/compute/v1/snapshots/{resourceId}:setAccessBindings" "access.SetAccessBindingsRequest" -> "operation.Operation";
        "UpdateAccessBindings": "POST" "/compute/v1/snapshots/{resourceId}:updateAccessBindings" "access.UpdateAccessBindingsRequest" -> "operation.Operation";
    }
    "compute.v1.DiskService" {
        "Get": "GET" "/compute/v1/disks/{diskId}" "compute.v1.GetDiskRequest" -> "compute.v1.Disk";
        "List": "GET" "/compute/v1/disks" "compute.v1.ListRequest" -> "compute.v1.ListDisksResponse";
        "Create": "POST" "/compute/v1/disks" "compute.v1.CreateDiskRequest" -> "operation.Operation";
        "Delete": "DELETE" "/compute/v1/disks/{diskId}" "compute.v1.GetDiskRequest" -> "operation.Operation";
    }
    "compute.v1.InstanceService" {
        "Get": "GET" "/compute/v1/instances/{instanceId}" "compute.v1.GetInstanceRequest" -> "compute.v1.Instance";
        "List": "GET" "/compute/v1/instances" "compute.v1.ListRequest" -> "compute.v1.ListInstancesResponse";
        "Stop": "POST" "/compute/v1/instances/{instanceId}:stop" "compute.v1.GetInstanceRequest" -> "operation.Operation";
        "Start": "POST" "/compute/v1/instances/{instanceId}:start" "compute.v1.GetInstanceRequest" -> "operation.Operation";
    }
    "operation.OperationService" {
        "Get": "GET" "/operations/{operationId}" "operation.GetOperationRequest" -> "operation.Operation";
    }
    "endpoint.ApiEndpointService" {
        "List": "GET" "/endpoints" "endpoint.ListApiEndpointsRequest" -> "endpoint.ListApiEndpointsResponse";
        "Get": "GET" "/endpoints/{apiEndpointId}" "endpoint.GetApiEndpointRequest" -> "endpoint.ApiEndpoint";
    }
    "iam.v1.IamTokenService" {
        "Create": "POST" "/iam/v1/tokens" "iam.v1.CreateIamTokenRequest" -> "iam.v1.CreateIamTokenResponse";
    }
    "resourcemanager.v1.FolderService" {
        "Get": "GET" "/resource-manager/v1/folders/{folderId}" "resourcemanager.v1.GetFolderRequest" -> "resourcemanager.v1.Folder";
    }
};
