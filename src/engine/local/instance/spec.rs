//! What an instance file says. The names are those of the Compute Engine API.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::NetworkInterface;
use super::scheduling::Scheduling;
use crate::policy::written::ApiVersion;

/// The kind of an instance document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InstanceKind {
    /// A virtual machine.
    Instance,
}

/// A virtual machine of an embedded engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceDocument {
    /// Always `stillframe/v1`.
    pub api_version: ApiVersion,
    /// Always `Instance`.
    pub kind: InstanceKind,
    /// Which machine it is.
    pub metadata: InstanceMetadata,
    /// What the machine is like.
    pub spec: InstanceSpec,
}

/// Which machine it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceMetadata {
    /// The name of the machine.
    pub name: String,
    /// Its id, which outlives a renaming. The default is the name; then renaming the machine
    /// begins a new series of restore points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What a machine is like. The names are those of the Compute Engine API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceSpec {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// Its machine type.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine_type: String,
    /// Its state. The default is RUNNING.
    #[serde(default)]
    pub status: InstanceStatus,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// Metadata items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Network tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Service accounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccount>,
    /// How it is scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Its network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Its accelerators.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guest_accelerators: Vec<Accelerator>,
    /// Whether it may forward packets that are not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_ip_forward: Option<bool>,
    /// Whether it is protected from being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_protection: Option<bool>,
    /// The least processor platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_cpu_platform: Option<String>,
    /// What happens when its key is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_revocation_action_type: Option<String>,
    /// What happens after its key was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_key_revocation_action_type: Option<String>,
    /// Its name in the network, where it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Policies of the cloud that hold for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_policies: Vec<String>,
    /// Tags of the organisation, as `tagKeys/…: tagValues/…`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_manager_tags: BTreeMap<String, String>,
    /// How it reaches the services of the cloud over IPv6.
    #[serde(default, rename = "privateIpv6GoogleAccess", skip_serializing_if = "Option::is_none")]
    pub private_ipv6_access: Option<String>,
    /// How disks that are part of the machine are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ssd_encryption_mode: Option<String>,
    /// What its firmware checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shielded_instance_config: Option<ShieldedInstance>,
    /// What keeps its memory from the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_instance_config: Option<ConfidentialInstance>,
    /// Features of its processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advanced_machine_features: Option<MachineFeatures>,
    /// How fast its network is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_performance_config: Option<NetworkPerformance>,
    /// Which reservations it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation_affinity: Option<ReservationAffinity>,
    /// The identity of what runs in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity_config: Option<WorkloadIdentity>,
}

/// The state of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceStatus {
    /// It runs.
    #[default]
    Running,
    /// It is stopped.
    Terminated,
    /// It is suspended.
    Suspended,
}

impl InstanceStatus {
    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Terminated => "TERMINATED",
            Self::Suspended => "SUSPENDED",
        }
    }
}

/// A disk of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskSpec {
    /// Its device name, unique within the machine.
    pub device_name: String,
    /// The file or block device, relative to the instance file.
    pub path: String,
    /// What the file is. The default is raw; a file that looks like another format must say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<DiskFormat>,
    /// Whether the machine starts from it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub boot: bool,
    /// Whether it is deleted with the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_delete: Option<bool>,
    /// `READ_WRITE` or `READ_ONLY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// SCSI or NVME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What kind of disk it is, as `pd-ssd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<String>,
    /// `X86_64` or `ARM64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// What the system on it can do, as `UEFI_COMPATIBLE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guest_os_features: Vec<String>,
    /// Licenses of what is on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub licenses: Vec<String>,
    /// The key that the cloud says it is encrypted under. It is recorded; nothing here is encrypted or
    /// read with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_encryption_key: Option<DiskKey>,
    /// Its own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The key of a disk. What opens it (`rawKey` and `rsaEncryptedKey` of the API, which only requests
/// have) has no place here: it would stand in every image of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DiskKey {
    /// The name of the key in the key management service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_name: Option<String>,
    /// The service account that it is used with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_service_account: Option<String>,
    /// The hash of a key that the owner of the disk keeps, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What a disk file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// The bytes of the disk themselves.
    #[default]
    Raw,
    /// A qcow2 file, with or without a backing file.
    Qcow2,
    /// A block device.
    Block,
}

/// A service account of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccount {
    /// Its address.
    pub email: String,
    /// What it may do.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// Accelerators of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accelerator {
    /// What they are.
    pub accelerator_type: String,
    /// How many.
    pub accelerator_count: u32,
}

impl DiskSpec {
    /// What the file is.
    pub fn format(&self) -> DiskFormat {
        self.format.unwrap_or_default()
    }
}

/// What the firmware of a machine checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShieldedInstance {
    /// Whether only what is signed is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_secure_boot: Option<bool>,
    /// Whether it has a trusted platform module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_vtpm: Option<bool>,
    /// Whether what was started is compared with what should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_integrity_monitoring: Option<bool>,
}

/// What keeps the memory of a machine from its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfidentialInstance {
    /// Whether it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_confidential_compute: Option<bool>,
    /// `SEV`, `SEV_SNP` or `TDX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_instance_type: Option<String>,
    /// What stands between it and its host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_paravisor_config: Option<ConfidentialParavisor>,
}

/// What stands between a machine and its host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfidentialParavisor {
    /// What kind of trusted platform module it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidential_tpm_type: Option<String>,
    /// How interrupts come to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sev_snp_irq_mode: Option<String>,
}

/// Features of the processors of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineFeatures {
    /// Whether it may run machines itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_nested_virtualization: Option<bool>,
    /// Threads of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads_per_core: Option<u32>,
    /// Cores that it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible_core_count: Option<u32>,
    /// Whether it may start from the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_uefi_networking: Option<bool>,
    /// Which counters it sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub performance_monitoring_unit: Option<String>,
    /// How fast its cores may become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turbo_mode: Option<String>,
}

/// How fast the network of a machine is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPerformance {
    /// `DEFAULT` or `TIER_1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_egress_bandwidth_tier: Option<String>,
}

/// Which reservations a machine may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReservationAffinity {
    /// `ANY_RESERVATION`, `SPECIFIC_RESERVATION` or `NO_RESERVATION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consume_reservation_type: Option<String>,
    /// The label of reservations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// The identity of what runs in a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkloadIdentity {
    /// The identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What kind of identity it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_type: Option<String>,
    /// Whether it has a certificate of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_certificate_enabled: Option<bool>,
}
