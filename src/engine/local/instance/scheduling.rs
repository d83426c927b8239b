//! What an instance file says of when and where a machine runs: all that the Compute Engine API has,
//! under its names.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// How a machine is scheduled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduling {
    /// Whether it is started again after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic_restart: Option<bool>,
    /// MIGRATE or TERMINATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_host_maintenance: Option<String>,
    /// Whether it may be stopped at any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<bool>,
    /// STANDARD or SPOT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_model: Option<String>,
    /// What becomes of it when it is stopped for others: STOP or DELETE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_termination_action: Option<String>,
    /// The least number of processors of a shared host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_node_cpus: Option<u32>,
    /// Hosts it may run on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_affinities: Vec<NodeAffinity>,
    /// How long it runs at the most before it is stopped or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_run_duration: Option<Span>,
    /// When it is stopped or deleted, as `2027-01-31T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_time: Option<String>,
    /// What else becomes of it when it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_instance_stop_action: Option<StopAction>,
    /// How much time its guest has to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<GracefulShutdown>,
    /// Whether it is stopped without asking its guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_guest_os_shutdown: Option<bool>,
    /// How long before it is stopped for others it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_notice_duration: Option<Span>,
    /// How long a failed host is waited for, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_error_timeout_seconds: Option<u32>,
    /// How long disks that are part of a failed host are waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ssd_recovery_timeout: Option<Span>,
    /// Which part of its placement policy it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_domain: Option<u32>,
    /// Near what it is put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location_hint: Option<String>,
    /// Whether it sees how its host is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expose_host_topology: Option<bool>,
    /// How far it is kept from being stopped for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection_tier: Option<String>,
}

/// Hosts that a machine may run on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeAffinity {
    /// The label of hosts.
    pub key: String,
    /// `IN` or `NOT_IN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Its values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What else becomes of a machine when it is stopped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopAction {
    /// Whether what is on disks that are part of its host is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard_local_ssd: Option<bool>,
}

/// How much time a guest has to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GracefulShutdown {
    /// Whether it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How much at the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration: Option<Span>,
}

/// A length of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    /// Whole seconds: `3600`, or `"3600"` as the API writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<Seconds>,
    /// Nanoseconds beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 999_999_999))]
    pub nanos: Option<u32>,
}

/// Whole seconds. The API writes such numbers as texts, and people write them as numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, JsonSchema)]
#[schemars(extend("type" = ["integer", "string"], "pattern" = "^[0-9]{1,12}$"))]
pub struct Seconds(pub u64);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_string())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let wrong = || serde::de::Error::custom("seconds are a whole number, such as 3600");
        read.map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_text;
    use super::*;

    fn read(scheduling: &str) -> Result<Scheduling, String> {
        let text = format!(
            "apiVersion: stillframe/v1\nkind: Instance\nmetadata: {{name: one}}\nspec: {{scheduling: {{{scheduling}}}}}\n"
        );
        let read = read_text(&text)?;
        Ok(read[0].document.spec.scheduling.clone().unwrap())
    }

    #[test]
    fn seconds_are_numbers_or_texts_and_nothing_else() {
        let hour = Span { seconds: Some(Seconds(3600)), nanos: None };
        for seconds in ["3600", "\"3600\""] {
            let scheduling = read(&format!("maxRunDuration: {{seconds: {seconds}}}")).unwrap();
            assert_eq!(scheduling.max_run_duration, Some(hour.clone()), "{seconds}");
        }
        assert_eq!(serde_json::to_value(&hour).unwrap(), serde_json::json!({"seconds": "3600"}));
        for seconds in ["1h", "-1", "1.5", "true", "[]"] {
            let said = read(&format!("maxRunDuration: {{seconds: {seconds}}}")).unwrap_err();
            assert!(said.contains("whole number"), "{seconds}: {said}");
        }
        let said = read("maxRunDurations: {seconds: 1}").unwrap_err();
        assert!(said.contains("did you mean `maxRunDuration`"), "{said}");
    }
}
