//! Log lines on standard error: text for people, JSON for collectors.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging for the process.
///
/// `severity` is Calico's word (`Debug`, `Info`, `Warning`, `Error`, `Fatal`, `None`, any case);
/// the variable `CARACAL_LOG` overrides it with a tracing filter (`info,bird=debug`).
/// A second call is ignored.
pub fn init(severity: &str, format: Format) {
    let filter = match std::env::var("CARACAL_LOG") {
        Ok(directives) => EnvFilter::new(directives),
        Err(_) => EnvFilter::new(level(severity)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    // A second initialisation (tests, roles in one process) keeps the first.
    let _ = match format {
        Format::Text => registry
            .with(fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false))
            .try_init(),
        Format::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
}

/// Calico's severity as a tracing level.
fn level(severity: &str) -> &'static str {
    match severity.to_ascii_lowercase().as_str() {
        "debug" | "trace" => "debug",
        "warning" | "warn" => "warn",
        "error" | "fatal" | "panic" => "error",
        "none" => "off",
        _ => "info",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn calico_severities_map_to_levels() {
        for (severity, level) in
            [("Info", "info"), ("Debug", "debug"), ("WARNING", "warn"), ("Fatal", "error"), ("none", "off")]
        {
            assert_eq!(super::level(severity), level);
        }
    }
}
