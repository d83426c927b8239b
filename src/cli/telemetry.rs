//! Traces and logs for a collector of OpenTelemetry, over OTLP with HTTP.
//!
//! Where it is, and all else, is said by the variables of the specification
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>): `OTEL_EXPORTER_OTLP_ENDPOINT`, or
//! one of traces or logs alone. Without one of them nothing is set up. What cannot be sent is dropped:
//! no run fails or waits for it, but for a moment at its end.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;

/// How long the end of a run waits for what is still to be sent.
const LAST_WORD: Duration = Duration::from_secs(3);
/// What belongs to the program, and not to what it is made of.
const OWN: &str = env!("CARGO_PKG_NAME");

/// Sends traces and logs as long as it lives.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

impl Telemetry {
    /// What spans and events go to, and what sends them.
    pub(super) fn begin() -> (Vec<Box<dyn Layer<Registry> + Send + Sync>>, Self) {
        let mut telemetry = Self::default();
        let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = Vec::new();
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return (layers, telemetry);
        }
        // An engine may set it up as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let is_meant = |signal: &str| {
            [
                "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
                format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"),
            ]
            .iter()
            .any(|name| variable(name).is_some_and(|endpoint| !endpoint.is_empty()))
        };
        if is_meant("TRACES") {
            match SpanExporter::builder().with_http().build() {
                Ok(exporter) => {
                    let provider = SdkTracerProvider::builder()
                        .with_batch_exporter(exporter)
                        .with_resource(resource())
                        .build();
                    let spans = filter_fn(|metadata| metadata.is_span() && is_own(metadata));
                    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(OWN));
                    layers.push(layer.with_filter(spans).boxed());
                    telemetry.traces = Some(provider);
                }
                Err(error) => told("traces", &error),
            }
        }
        if is_meant("LOGS") {
            match LogExporter::builder().with_http().build() {
                Ok(exporter) => {
                    let provider = SdkLoggerProvider::builder()
                        .with_batch_exporter(exporter)
                        .with_resource(resource())
                        .build();
                    let events = filter_fn(|metadata| {
                        metadata.is_event() && is_own(metadata) && *metadata.level() <= Level::INFO
                    });
                    let layer = OpenTelemetryTracingBridge::new(&provider);
                    layers.push(layer.with_filter(events).boxed());
                    telemetry.logs = Some(provider);
                }
                Err(error) => told("logs", &error),
            }
        }
        (layers, telemetry)
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // What could not be sent is no affair of the run.
        if let Some(logs) = &self.logs {
            let _ = logs.shutdown_with_timeout(LAST_WORD);
        }
        if let Some(traces) = &self.traces {
            let _ = traces.shutdown_with_timeout(LAST_WORD);
        }
    }
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next() == Some(OWN)
}

/// Who sends it: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
fn resource() -> Resource {
    let builder = Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match variable("OTEL_SERVICE_NAME") {
        Some(name) if !name.is_empty() => builder.build(),
        _ => builder.with_service_name(OWN).build(),
    }
}

/// Logging is not set up yet.
#[expect(clippy::print_stderr, reason = "logging is being set up")]
fn told(what: &str, error: &dyn std::error::Error) {
    eprintln!("no {what} are sent by OTLP: {error}");
}

#[expect(clippy::disallowed_methods, reason = "variables of the specification of OpenTelemetry")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
