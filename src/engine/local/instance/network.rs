//! What an instance file says of the network: all that the Compute Engine API has, under its names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A network interface of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkInterface {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The subnetwork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnetwork: Option<String>,
    /// The internal address.
    #[serde(default, rename = "networkIP", skip_serializing_if = "Option::is_none")]
    pub network_ip: Option<String>,
    /// `GVNIC` or `VIRTIO_NET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nic_type: Option<String>,
    /// `IPV4_ONLY`, `IPV4_IPV6` or `IPV6_ONLY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_type: Option<String>,
    /// How many queues it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_count: Option<u32>,
    /// External addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub access_configs: Vec<AccessConfig>,
    /// Further internal addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alias_ip_ranges: Vec<AliasRange>,
    /// Further internal addresses of version 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alias_ipv6_ranges: Vec<AliasRange>,
    /// External addresses of version 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ipv6_access_configs: Vec<AccessConfig>,
    /// Where its address of version 6 is known: `INTERNAL` or `EXTERNAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_access_type: Option<String>,
    /// The internal address of version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_address: Option<String>,
    /// How many bits of it name the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_ipv6_prefix_length: Option<u32>,
    /// What it is attached to in the network of somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_attachment: Option<String>,
    /// Whether it takes part in multicast: `IGMP_QUERY_V2` or `IGMP_QUERY_DISABLED`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub igmp_query: Option<String>,
    /// Whether it has a name in all of its network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_vpc_scoped_dns: Option<bool>,
    /// The interface that it is a part of, as `nic0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_nic_name: Option<String>,
    /// Its number among the parts of that, from 2 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u32>,
    /// Which service it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_class_id: Option<String>,
}

/// An external address of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessConfig {
    /// `ONE_TO_ONE_NAT` or `DIRECT_IPV6`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The address.
    #[serde(default, rename = "natIP", skip_serializing_if = "Option::is_none")]
    pub nat_ip: Option<String>,
    /// `PREMIUM` or `STANDARD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_tier: Option<String>,
    /// The external address of version 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_ipv6: Option<String>,
    /// How many bits of it name the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_ipv6_prefix_length: Option<u32>,
    /// Addresses of the owner that it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_collection: Option<String>,
    /// The name of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_ptr_domain_name: Option<String>,
    /// Whether the address has that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_public_ptr: Option<bool>,
    /// What may reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_policy: Option<String>,
}

/// Further internal addresses of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AliasRange {
    /// The addresses, as `10.1.0.0/24`.
    pub ip_cidr_range: String,
    /// The range of the subnetwork that they are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnetwork_range_name: Option<String>,
}
