//! `version`.

use std::time::Duration;

use serde_json::Value;

use super::console::line;
use super::session;
use crate::ctl::args::Version;

/// The commit this was built from, when the build says so.
const COMMIT: &str = match option_env!("CARACAL_GIT_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// `version`.
pub(super) async fn version(arguments: &Version) -> Result<bool, String> {
    line(format!("Client Version:    {}", session::VERSION));
    line(format!("Git commit:        {COMMIT}"));
    if arguments.client {
        return Ok(true);
    }
    let pause = duration(&arguments.poll)?;
    let client = session::connect(&arguments.connection).await?;
    let mut told: Option<(String, String)> = None;
    loop {
        let found = client
            .cluster_information()
            .await
            .map_err(|e| format!("unable to retrieve Cluster Version or Type: {e}"))?;
        let text = |field: &str| {
            let text = found
                .as_ref()
                .and_then(|f| f.value.pointer(field))
                .and_then(Value::as_str)
                .unwrap_or_default();
            if text.is_empty() { "unknown".to_owned() } else { text.to_owned() }
        };
        let now = (text("/spec/calicoVersion"), text("/spec/clusterType"));
        if told.as_ref() != Some(&now) {
            line(format!("Cluster Version:   {}", now.0));
            line(format!("Cluster Type:      {}", now.1));
        }
        if pause.is_zero() {
            return Ok(true);
        }
        told = Some(now);
        tokio::time::sleep(pause).await;
    }
}

/// `5s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("invalid argument \"{text}\" for --poll: a time such as 5s or 1m is wanted");
    text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert!(duration("soon").is_err() && duration("-1s").is_err());
    }
}
