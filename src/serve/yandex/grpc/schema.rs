//! The messages that there are, with the numbers of their fields.
//!
//! Source: the protocol files of `yandex-cloud/cloudapi`, 2026-11. Only what this server knows is here;
//! fields that a client sends beyond that are passed over.

use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, MessageOptions,
};

/// Enums: package and name, and their values in order.
const ENUMS: &[(&str, &str, &[&str])] = &[
    ("compute.v1", "Status", &["STATUS_UNSPECIFIED", "CREATING", "READY", "ERROR", "DELETING"]),
    ("compute.v1", "OsType", &["TYPE_UNSPECIFIED", "LINUX", "WINDOWS"]),
    ("compute.v1", "Mode", &["MODE_UNSPECIFIED", "READ_ONLY", "READ_WRITE"]),
    (
        "compute.v1",
        "InstanceStatus",
        &[
            "INSTANCE_STATUS_UNSPECIFIED",
            "PROVISIONING",
            "RUNNING",
            "STOPPING",
            "STOPPED",
            "STARTING",
            "RESTARTING",
            "UPDATING",
            "INSTANCE_ERROR",
            "CRASHED",
            "INSTANCE_DELETING",
        ],
    ),
    ("access", "AccessBindingAction", &["ACCESS_BINDING_ACTION_UNSPECIFIED", "ADD", "REMOVE"]),
];

/// Messages: package and name, and their fields as `NUMBER TYPE NAME`. A type of its own package has its
/// name; `*` stands before what is there many times, `#` before an enum, `map` is one of texts.
const MESSAGES: &[(&str, &str, &[&str])] = &[
    ("compute.v1", "KMSKey", &["1 string key_id", "2 string version_id"]),
    ("compute.v1", "Os", &["1 #OsType type"]),
    (
        "compute.v1",
        "Image",
        &[
            "1 string id",
            "2 string folder_id",
            "3 google.protobuf.Timestamp created_at",
            "4 string name",
            "5 string description",
            "6 map labels",
            "7 string family",
            "16 int64 size",
            "8 int64 storage_size",
            "9 int64 min_disk_size",
            "10 *string product_ids",
            "11 #Status status",
            "12 Os os",
            "13 bool pooled",
            "15 KMSKey kms_key",
        ],
    ),
    (
        "compute.v1",
        "Snapshot",
        &[
            "1 string id",
            "2 string folder_id",
            "3 google.protobuf.Timestamp created_at",
            "4 string name",
            "5 string description",
            "6 map labels",
            "7 int64 storage_size",
            "8 int64 disk_size",
            "9 *string product_ids",
            "10 #Status status",
            "11 string source_disk_id",
            "13 KMSKey kms_key",
        ],
    ),
    (
        "compute.v1",
        "Disk",
        &[
            "1 string id",
            "2 string folder_id",
            "3 google.protobuf.Timestamp created_at",
            "4 string name",
            "5 string description",
            "6 map labels",
            "7 string type_id",
            "8 string zone_id",
            "9 int64 size",
            "15 int64 block_size",
            "10 *string product_ids",
            "11 #Status status",
            "12 string source_image_id",
            "13 string source_snapshot_id",
            "14 *string instance_ids",
            "18 KMSKey kms_key",
        ],
    ),
    (
        "compute.v1",
        "AttachedDisk",
        &["1 #Mode mode", "2 string device_name", "3 bool auto_delete", "4 string disk_id"],
    ),
    (
        "compute.v1",
        "Instance",
        &[
            "1 string id",
            "2 string folder_id",
            "3 google.protobuf.Timestamp created_at",
            "4 string name",
            "5 string description",
            "6 map labels",
            "7 string zone_id",
            "8 string platform_id",
            "10 #InstanceStatus status",
            "12 AttachedDisk boot_disk",
            "13 *AttachedDisk secondary_disks",
            "16 string fqdn",
        ],
    ),
    (
        "compute.v1",
        "ListRequest",
        &[
            "1 string folder_id",
            "2 int64 page_size",
            "3 string page_token",
            "4 string filter",
            "5 string order_by",
        ],
    ),
    ("compute.v1", "ListImagesResponse", &["1 *Image images", "2 string next_page_token"]),
    ("compute.v1", "ListSnapshotsResponse", &["1 *Snapshot snapshots", "2 string next_page_token"]),
    ("compute.v1", "ListDisksResponse", &["1 *Disk disks", "2 string next_page_token"]),
    ("compute.v1", "ListInstancesResponse", &["1 *Instance instances", "2 string next_page_token"]),
    (
        "compute.v1",
        "ListOperationsResponse",
        &["1 *yandex.cloud.operation.Operation operations", "2 string next_page_token"],
    ),
    ("compute.v1", "GetImageRequest", &["1 string image_id"]),
    ("compute.v1", "GetImageLatestByFamilyRequest", &["1 string folder_id", "2 string family"]),
    (
        "compute.v1",
        "ListImageOperationsRequest",
        &["1 string image_id", "2 int64 page_size", "3 string page_token"],
    ),
    (
        "compute.v1",
        "CreateImageRequest",
        &[
            "1 string folder_id",
            "2 string name",
            "3 string description",
            "4 map labels",
            "5 string family",
            "6 int64 min_disk_size",
            "7 *string product_ids",
            "8 string image_id",
            "9 string disk_id",
            "10 string snapshot_id",
            "11 string uri",
            "12 Os os",
            "17 bool pooled",
        ],
    ),
    (
        "compute.v1",
        "UpdateImageRequest",
        &[
            "1 string image_id",
            "2 google.protobuf.FieldMask update_mask",
            "3 string name",
            "4 string description",
            "5 int64 min_disk_size",
            "6 map labels",
        ],
    ),
    ("compute.v1", "GetSnapshotRequest", &["1 string snapshot_id"]),
    (
        "compute.v1",
        "CreateSnapshotRequest",
        &[
            "1 string folder_id",
            "2 string disk_id",
            "3 string name",
            "4 string description",
            "6 map labels",
        ],
    ),
    (
        "compute.v1",
        "UpdateSnapshotRequest",
        &[
            "1 string snapshot_id",
            "2 google.protobuf.FieldMask update_mask",
            "3 string name",
            "4 string description",
            "5 map labels",
        ],
    ),
    ("compute.v1", "GetDiskRequest", &["1 string disk_id"]),
    (
        "compute.v1",
        "CreateDiskRequest",
        &[
            "1 string folder_id",
            "2 string name",
            "3 string description",
            "4 map labels",
            "5 string type_id",
            "6 string zone_id",
            "7 int64 size",
            "8 string image_id",
            "9 string snapshot_id",
            "10 int64 block_size",
            "14 string kms_key_id",
        ],
    ),
    ("compute.v1", "GetInstanceRequest", &["1 string instance_id"]),
    ("compute.v1", "CreateImageMetadata", &["1 string image_id"]),
    ("compute.v1", "UpdateImageMetadata", &["1 string image_id"]),
    ("compute.v1", "DeleteImageMetadata", &["1 string image_id"]),
    ("compute.v1", "CreateSnapshotMetadata", &["1 string snapshot_id", "2 string disk_id"]),
    ("compute.v1", "UpdateSnapshotMetadata", &["1 string snapshot_id"]),
    ("compute.v1", "DeleteSnapshotMetadata", &["1 string snapshot_id"]),
    ("compute.v1", "CreateDiskMetadata", &["1 string disk_id"]),
    ("compute.v1", "DeleteDiskMetadata", &["1 string disk_id"]),
    ("compute.v1", "CreateInstanceMetadata", &["1 string instance_id"]),
    ("compute.v1", "UpdateInstanceMetadata", &["1 string instance_id"]),
    ("compute.v1", "DeleteInstanceMetadata", &["1 string instance_id"]),
    ("compute.v1", "StopInstanceMetadata", &["1 string instance_id"]),
    ("compute.v1", "StartInstanceMetadata", &["1 string instance_id"]),
    ("access", "Subject", &["1 string id", "2 string type"]),
    ("access", "AccessBinding", &["1 string role_id", "2 Subject subject"]),
    (
        "access",
        "AccessBindingDelta",
        &["1 #AccessBindingAction action", "2 AccessBinding access_binding"],
    ),
    (
        "access",
        "ListAccessBindingsRequest",
        &["1 string resource_id", "2 int64 page_size", "3 string page_token"],
    ),
    (
        "access",
        "ListAccessBindingsResponse",
        &["1 *AccessBinding access_bindings", "2 string next_page_token"],
    ),
    (
        "access",
        "SetAccessBindingsRequest",
        &["1 string resource_id", "2 *AccessBinding access_bindings"],
    ),
    (
        "access",
        "UpdateAccessBindingsRequest",
        &["1 string resource_id", "2 *AccessBindingDelta access_binding_deltas"],
    ),
    ("access", "SetAccessBindingsMetadata", &["1 string resource_id"]),
    ("access", "UpdateAccessBindingsMetadata", &["1 string resource_id"]),
    ("access", "AccessBindingsOperationResult", &["1 *AccessBindingDelta effective_deltas"]),
    ("operation", "Status", &["1 int32 code", "2 string message"]),
    (
        "operation",
        "Operation",
        &[
            "1 string id",
            "2 string description",
            "3 google.protobuf.Timestamp created_at",
            "4 string created_by",
            "5 google.protobuf.Timestamp modified_at",
            "6 bool done",
            "7 google.protobuf.Any metadata",
            "8 Status error",
            "9 google.protobuf.Any response",
        ],
    ),
    ("operation", "GetOperationRequest", &["1 string operation_id"]),
    ("endpoint", "ApiEndpoint", &["1 string id", "2 string address"]),
    ("endpoint", "ListApiEndpointsRequest", &[]),
    ("endpoint", "GetApiEndpointRequest", &["1 string api_endpoint_id"]),
    (
        "endpoint",
        "ListApiEndpointsResponse",
        &["1 *ApiEndpoint endpoints", "2 string next_page_token"],
    ),
    ("iam.v1", "CreateIamTokenRequest", &["1 string yandex_passport_oauth_token", "2 string jwt"]),
    (
        "iam.v1",
        "CreateIamTokenResponse",
        &["1 string iam_token", "2 google.protobuf.Timestamp expires_at"],
    ),
    ("resourcemanager.v1", "GetFolderRequest", &["1 string folder_id"]),
    ("resourcemanager.v1", "Folder", &["1 string id", "2 string cloud_id", "4 string name"]),
];

/// The packages, each after those that it needs.
const PACKAGES: [&str; 6] =
    ["operation", "access", "compute.v1", "endpoint", "iam.v1", "resourcemanager.v1"];
/// What all packages begin with.
const PREFIX: &str = "yandex.cloud";

/// The whole name of a message or service.
pub fn full_name(name: &str) -> String {
    format!("{PREFIX}.{name}")
}

/// All messages, beside those that everybody has.
pub fn pool() -> Result<DescriptorPool, String> {
    let mut pool = DescriptorPool::global();
    for package in PACKAGES {
        let known =
            ["any", "field_mask", "timestamp"].map(|one| format!("google/protobuf/{one}.proto"));
        let before = PACKAGES.iter().take_while(|other| **other != package);
        let file = FileDescriptorProto {
            name: Some(file_of(package)),
            package: Some(full_name(package)),
            dependency: known.into_iter().chain(before.map(|other| file_of(other))).collect(),
            message_type: messages(package)?,
            enum_type: enums(package)?,
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        };
        pool.add_file_descriptor_proto(file).map_err(|error| error.to_string())?;
    }
    Ok(pool)
}

fn file_of(package: &str) -> String {
    format!("stillframe/{package}.proto")
}

fn enums(package: &str) -> Result<Vec<EnumDescriptorProto>, String> {
    let of_it = ENUMS.iter().filter(|(of, ..)| *of == package);
    of_it
        .map(|(_, name, values)| {
            let value = |(number, value): (i32, &&str)| EnumValueDescriptorProto {
                name: Some((*value).to_owned()),
                number: Some(number),
                options: None,
            };
            Ok(EnumDescriptorProto {
                name: Some((*name).to_owned()),
                value: (0..).zip(values.iter()).map(value).collect(),
                ..EnumDescriptorProto::default()
            })
        })
        .collect()
}

fn messages(package: &str) -> Result<Vec<DescriptorProto>, String> {
    let of_it = MESSAGES.iter().filter(|(of, ..)| *of == package);
    of_it
        .map(|(_, name, fields)| {
            let mut message =
                DescriptorProto { name: Some((*name).to_owned()), ..DescriptorProto::default() };
            for field in *fields {
                let (field, entry) = read_field(package, name, field)
                    .ok_or_else(|| format!("{name}: `{field}` is no field"))?;
                message.field.push(field);
                message.nested_type.extend(entry);
            }
            Ok(message)
        })
        .collect()
}

fn read_field(
    package: &str,
    message: &str,
    text: &str,
) -> Option<(FieldDescriptorProto, Option<DescriptorProto>)> {
    let mut words = text.split(' ');
    let (number, kind, name) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    if kind == "map" {
        // A map is a list of entries, which has a message of its own.
        let entry = format!("{}Entry", camel(name));
        let type_name = format!(".{}.{message}.{entry}", full_name(package));
        let field = field(number, name, Type::Message, Label::Repeated, Some(type_name));
        return Some((field, Some(map_entry(entry))));
    }
    let (label, kind) = match kind.strip_prefix('*') {
        Some(kind) => (Label::Repeated, kind),
        None => (Label::Optional, kind),
    };
    let local = |kind: &str| Some(format!(".{}.{kind}", full_name(package)));
    let (of, type_name) = match kind {
        "string" => (Type::String, None),
        "int64" => (Type::Int64, None),
        "int32" => (Type::Int32, None),
        "bool" => (Type::Bool, None),
        other => match other.strip_prefix('#') {
            Some(other) => (Type::Enum, local(other)),
            None if other.contains('.') => (Type::Message, Some(format!(".{other}"))),
            None => (Type::Message, local(other)),
        },
    };
    Some((field(number, name, of, label, type_name), None))
}

fn field(
    number: i32,
    name: &str,
    of: Type,
    label: Label,
    type_name: Option<String>,
) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(of.into()),
        type_name,
        ..FieldDescriptorProto::default()
    }
}

fn map_entry(name: String) -> DescriptorProto {
    let text = |number, name| field(number, name, Type::String, Label::Optional, None);
    DescriptorProto {
        name: Some(name),
        field: vec![text(1, "key"), text(2, "value")],
        options: Some(MessageOptions { map_entry: Some(true), ..MessageOptions::default() }),
        ..DescriptorProto::default()
    }
}

fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or(("", word));
        first.to_uppercase() + rest
    });
    words.collect()
}
