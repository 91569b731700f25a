//! Traces: whether and where they are exported, and the spans of HTTP requests.
//!
//! Spans are made with the crates `tracing` (requests) and `opentelemetry` (messages, see `messaging::trace`). Both do nothing until
//! [`crate::telemetry::init`] installs an exporter, which needs the feature `otlp`. Exporting never makes a request or an order wait: spans
//! go into a bounded queue; what does not fit is dropped, and so is what a collector does not take, which `traces_spans_lost_total` counts.

#[cfg(feature = "otlp")]
pub mod export;
mod http;

use clap::Args;

pub use self::http::traced;
use crate::{
    service_settings::given,
    settings::{SettingError, http_url, parse},
};

/// Where traces go, in OpenTelemetry's own variables.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Collector of traces, OTLP over HTTP, such as <http://tempo:4318>; no traces when not given.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otel_exporter_otlp_endpoint: Option<String>,
    /// What the service is called in traces; the program's name when not given.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME")]
    otel_service_name: Option<String>,
    /// Which requests are traced: always_on, always_off, traceidratio, or one of them with parentbased_ in front, which follows callers that
    /// have decided. parentbased_always_on when not given.
    #[arg(long, env = "OTEL_TRACES_SAMPLER", value_name = "SAMPLER")]
    otel_traces_sampler: Option<String>,
    /// Which part of them, with a traceidratio: 0 to 1; all when not given.
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO")]
    otel_traces_sampler_arg: Option<String>,
}

/// An export of traces, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceExport {
    /// Where batches of spans are posted to.
    pub url: String,
    /// What the service is called.
    pub service: String,
    /// What is sampled.
    pub sampling: Sampling,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The part of the traces that begin here, 0 to 1.
    pub ratio: f64,
    /// Whether a caller's decision is followed.
    pub parent_based: bool,
}

const SAMPLERS: &str =
    "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio";

impl TraceArgs {
    /// Where to export to; `None` when nothing is set. `program` is the service's name if none is given.
    ///
    /// # Errors
    ///
    /// A value that cannot be used, also while nothing is exported; and an endpoint in a build without the feature `otlp`.
    pub fn export(&self, program: &str) -> Result<Option<TraceExport>, SettingError> {
        let sampling = self.sampling()?;
        let Some(endpoint) = given(self.otel_exporter_otlp_endpoint.as_deref()) else { return Ok(None) };
        let example = "http://tempo:4318";
        let url = http_url("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, example)?;
        if url.contains('?') {
            return Err(SettingError::invalid("OTEL_EXPORTER_OTLP_ENDPOINT", url, format!("a URL such as {example}")));
        }
        if !cfg!(feature = "otlp") {
            let allowed = "unset: this build has no exporter (feature `otlp`)";
            return Err(SettingError::invalid("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, allowed));
        }
        let service = given(self.otel_service_name.as_deref()).unwrap_or(program).to_owned();
        Ok(Some(TraceExport { url: format!("{}/v1/traces", endpoint.trim_end_matches('/')), service, sampling }))
    }

    fn sampling(&self) -> Result<Sampling, SettingError> {
        let name = given(self.otel_traces_sampler.as_deref()).unwrap_or("parentbased_always_on");
        let (root, parent_based) = match name.strip_prefix("parentbased_") {
            Some(root) => (root, true),
            None => (name, false),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => self.ratio()?,
            _ => return Err(SettingError::invalid("OTEL_TRACES_SAMPLER", name, SAMPLERS)),
        };
        Ok(Sampling { ratio, parent_based })
    }

    fn ratio(&self) -> Result<f64, SettingError> {
        const NAME: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = given(self.otel_traces_sampler_arg.as_deref()) else { return Ok(1.0) };
        let ratio: f64 = parse(NAME, text, "a number from 0 to 1")?;
        if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err(SettingError::invalid(NAME, text, "a number from 0 to 1")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(sampler: &str, ratio: &str) -> TraceArgs {
        TraceArgs {
            otel_exporter_otlp_endpoint: Some("http://collector:4318/".to_owned()),
            otel_service_name: Some(String::new()),
            otel_traces_sampler: Some(sampler.to_owned()),
            otel_traces_sampler_arg: Some(ratio.to_owned()),
        }
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        for (sampler, ratio, expected) in [
            ("", "", (1.0, true)),
            ("always_on", "0.5", (1.0, false)),
            ("parentbased_always_off", "", (0.0, true)),
            ("traceidratio", "0.25", (0.25, false)),
            ("parentbased_traceidratio", "", (1.0, true)),
        ] {
            let sampling = args(sampler, ratio).sampling().unwrap();
            assert_eq!((sampling.ratio, sampling.parent_based), expected, "{sampler} {ratio}");
        }
        for (sampler, ratio, named) in
            [("sometimes", "", "OTEL_TRACES_SAMPLER"), ("traceidratio", "2", "_ARG"), ("traceidratio", "NaN", "_ARG")]
        {
            let error = args(sampler, ratio).export("test").unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn nothing_is_exported_unless_an_endpoint_is_given() {
        assert_eq!(TraceArgs::default().export("test").unwrap(), None);
        for wrong in ["collector:4318", "ftp://collector", "http://"] {
            let args = TraceArgs { otel_exporter_otlp_endpoint: Some(wrong.to_owned()), ..TraceArgs::default() };
            let error = args.export("test").unwrap_err().to_string();
            assert!(error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT is "), "{error}");
        }
        let export = args("", "").export("order-service");
        if cfg!(feature = "otlp") {
            let export = export.unwrap().unwrap();
            assert_eq!((export.url.as_str(), export.service.as_str()), ("http://collector:4318/v1/traces", "order-service"));
        } else {
            assert!(export.unwrap_err().to_string().contains("feature `otlp`"));
        }
    }
}
