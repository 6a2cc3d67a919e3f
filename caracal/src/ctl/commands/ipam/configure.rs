//! `ipam configure`.

use caracal_datastore::{Error as StoreError, Expect};
use caracal_model::{IpamConfig, Key, Value};

use super::super::console::line;
use super::super::session;
use crate::ctl::args::IpamConfigure;
use crate::ctl::client::{self, ATTEMPTS, pause};

/// What is to be set.
#[derive(Debug, Default)]
struct Wanted {
    strict_affinity: Option<bool>,
    max_blocks_per_host: Option<i64>,
    vm_address_persistence: Option<&'static str>,
    cooldown_seconds: Option<i64>,
}

impl Wanted {
    fn read(arguments: &IpamConfigure) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        if let Some(word) = &arguments.strictaffinity {
            let value = truth(word).ok_or("invalid value. Use true or false to set strictaffinity")?;
            wanted.strict_affinity = Some(value);
        }
        if let Some(word) = &arguments.max_blocks_per_host {
            let value = word
                .parse()
                .ok()
                .filter(|n| *n >= 0)
                .ok_or("invalid value for maxblockhost. Use a valid number")?;
            wanted.max_blocks_per_host = Some(value);
        }
        if let Some(word) = &arguments.kubevirt_ip_persistence {
            let value = ["Enabled", "Disabled"].into_iter().find(|known| known.eq_ignore_ascii_case(word));
            let value =
                value.ok_or("invalid value for --kubevirt-ip-persistence. Use Enabled or Disabled")?;
            wanted.vm_address_persistence = Some(value);
        }
        if let Some(seconds) = arguments.ip_cooldown_seconds {
            if seconds < 0 {
                return Err("invalid value for --ip-cooldown-seconds. Use 0 or more seconds".to_owned());
            }
            wanted.cooldown_seconds = Some(seconds);
        }
        Ok(wanted)
    }

    fn is_empty(&self) -> bool {
        self.strict_affinity.is_none()
            && self.max_blocks_per_host.is_none()
            && self.vm_address_persistence.is_none()
            && self.cooldown_seconds.is_none()
    }

    /// The configuration with the wanted values; what Calico leaves out at its default is left out.
    fn apply(&self, mut config: IpamConfig) -> Result<IpamConfig, String> {
        config.strict_affinity = self.strict_affinity.or(config.strict_affinity).filter(|on| *on);
        config.auto_allocate_blocks = config.auto_allocate_blocks.filter(|on| *on);
        config.max_blocks_per_host =
            self.max_blocks_per_host.or(config.max_blocks_per_host).filter(|n| *n != 0);
        config.ip_cooldown_seconds = self.cooldown_seconds.or(config.ip_cooldown_seconds).filter(|n| *n != 0);
        if let Some(word) = self.vm_address_persistence {
            config.kube_virt_vm_address_persistence = Some(word.to_owned());
        }
        if config.strict_affinity.is_none() && config.auto_allocate_blocks.is_none() {
            return Err(
                "error: Cannot disable 'StrictAffinity' and 'AutoAllocateBlocks' at the same time".to_owned()
            );
        }
        if config.max_blocks_per_host.is_some() && config.strict_affinity.is_none() {
            return Err("error: MaxBlocksPerHost requires StrictAffinity to be enabled".to_owned());
        }
        Ok(config)
    }

    fn tell(&self) {
        let set = |name: &str, value: String| line(format!("Successfully set {name} to: {value}"));
        if let Some(value) = self.strict_affinity {
            set("StrictAffinity", value.to_string());
        }
        if let Some(value) = self.max_blocks_per_host {
            set("MaxBlocksPerHost", value.to_string());
        }
        if let Some(value) = self.vm_address_persistence {
            set("KubeVirtVMAddressPersistence", value.to_owned());
        }
        if let Some(value) = self.cooldown_seconds {
            set("IPCooldownSeconds", value.to_string());
        }
    }
}

/// A truth value as Go reads it.
fn truth(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// `ipam configure`.
pub(super) async fn configure(arguments: &IpamConfigure, allow_mismatch: bool) -> Result<bool, String> {
    let wanted = Wanted::read(arguments)?;
    if wanted.is_empty() {
        return Err("at least one configuration option must be specified".to_owned());
    }
    let client = session::open(&arguments.connection, allow_mismatch).await?;
    for attempt in 0..ATTEMPTS {
        let (mut config, rev) = client::ipam_config(&client)
            .await
            .map_err(|e| format!("cannot read the IPAM configuration: {e}"))?;
        let expect = if rev == 0 {
            config.kube_virt_vm_address_persistence = Some("Enabled".to_owned());
            Expect::Absent
        } else {
            Expect::Rev(rev)
        };
        let config = Value::IpamConfig(wanted.apply(config)?).to_json();
        match client.store.put(&Key::IpamConfig.path(), config, expect, None).await {
            Ok(_) => {
                wanted.tell();
                return Ok(true);
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => pause(attempt).await,
            Err(error) => return Err(format!("cannot write the IPAM configuration: {error}")),
        }
    }
    Err("the IPAM configuration was changed by others all the time; try again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        let stored = |strict, auto| IpamConfig {
            strict_affinity: Some(strict),
            auto_allocate_blocks: Some(auto),
            ..IpamConfig::default()
        };
        let strict = |on| Wanted { strict_affinity: Some(on), ..Wanted::default() };
        let blocks = Wanted { max_blocks_per_host: Some(3), ..Wanted::default() };
        let done = strict(true).apply(stored(false, true)).unwrap();
        assert_eq!((done.strict_affinity, done.auto_allocate_blocks), (Some(true), Some(true)));
        assert_eq!(strict(false).apply(stored(true, true)).unwrap().strict_affinity, None);
        assert!(strict(false).apply(stored(true, false)).unwrap_err().contains("at the same time"));
        assert!(blocks.apply(stored(false, true)).unwrap_err().contains("requires StrictAffinity"));
        assert_eq!(blocks.apply(stored(true, false)).unwrap().max_blocks_per_host, Some(3));
    }
}
