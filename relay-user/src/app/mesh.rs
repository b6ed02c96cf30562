//! The mesh: its key, the other relays and whom to trust as them, checked before anything is started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use anyhow::{Context, bail, ensure};
use relay_common::key::MeshKey;
use rustls::pki_types::ServerName;
use tokio::task::JoinSet;

use crate::cli::Serve;
use crate::cli::mesh_with::{self, MeshHost};
use crate::mesh::dial::Peer;
use crate::mesh::service::{self, Mesh};
use crate::relay::Relay;
use crate::transport::tls::client::{self, Pin};
use crate::workers::Pool;

/// Where derper looks for the mesh key in development mode.
const KEY_VARIABLE: &str = "TAILSCALE_DERPER_MESH_KEY";

/// How to make a key.
const MAKE: &str = "`openssl rand -hex 32` makes one for all relays of the region";

/// The checked settings.
pub(super) struct Plan {
    /// The region's key.
    pub(super) key: Option<MeshKey>,
    peers: Vec<Peer>,
}

/// Checks the flags of the mesh, and reads the key's file and the certificate authorities.
pub(super) fn judge(serve: &Serve) -> anyhow::Result<Plan> {
    let key = key(serve)?;
    let hosts = &serve.mesh_with.0;
    let pins = pins(serve)?;
    if hosts.is_empty() {
        return Ok(Plan { key, peers: Vec::new() });
    }
    ensure!(
        key.is_some(),
        "-mesh-with needs the region's mesh key: name its file with -mesh-psk-file; {MAKE}{}",
        if env::var_os(KEY_VARIABLE).is_some() {
            format!(" ({KEY_VARIABLE} counts only with -dev, as in derper)")
        } else {
            String::new()
        }
    );
    // One configuration for all relays that are not pinned; without such relays no authority is needed.
    let mut trusting = None;
    let mut peers = Vec::new();
    for host in hosts {
        let tls = match (pins.get(&host.authority()), &trusting) {
            (Some(pin), _) => client::pinned(*pin, serve.tls_records)?,
            (None, Some(config)) => Arc::clone(config),
            (None, None) => {
                Arc::clone(trusting.insert(client::trusting(client::roots()?, serve.tls_records)?))
            }
        };
        let name = ServerName::try_from(host.name.clone());
        let name =
            name.with_context(|| format!("{:?} (-mesh-with) cannot be a name in a certificate", host.name))?;
        peers.push(Peer { host: host.clone(), name, tls });
    }
    Ok(Plan { key, peers })
}

/// Keeps links to the other relays, if there are any.
pub(super) fn start(
    plan: Plan,
    relay: &Arc<Relay>,
    pool: &Arc<Pool>,
    tasks: &mut JoinSet<()>,
) -> Option<Arc<Mesh>> {
    if plan.peers.is_empty() {
        return None;
    }
    let mesh = Arc::new(Mesh::new(plan.peers, relay));
    tasks.spawn(service::serve(Arc::clone(&mesh), Arc::clone(relay), Arc::clone(pool)));
    Some(mesh)
}

fn key(serve: &Serve) -> anyhow::Result<Option<MeshKey>> {
    // As in derper, the environment comes first, and only in development mode.
    if let Ok(text) = env::var(KEY_VARIABLE)
        && serve.dev
        && !text.trim().is_empty()
    {
        return parse(&text).with_context(|| format!("{KEY_VARIABLE} in the environment")).map(Some);
    }
    let file = serve.mesh_psk_file.as_deref().filter(|path| !path.as_os_str().is_empty());
    file.map(key_of).transpose()
}

fn key_of(path: &Path) -> anyhow::Result<MeshKey> {
    let text = fs::read_to_string(path).with_context(|| {
        format!(
            "cannot read the mesh key in {} (-mesh-psk-file); make the file readable for this user, or name another",
            path.display()
        )
    })?;
    parse(&text).with_context(|| format!("mesh key file {} (-mesh-psk-file)", path.display()))
}

/// The key in `text`; the errors do not repeat it.
fn parse(text: &str) -> anyhow::Result<MeshKey> {
    let text = text.trim();
    let Ok(key) = text.parse::<MeshKey>() else {
        bail!("what is there is not a mesh key of 64 hex digits but {} bytes; {MAKE}", text.len());
    };
    // A key of zeros equals nothing, not even itself.
    ensure!(key.matches(&key), "a mesh key of zeros trusts nobody; {MAKE}");
    Ok(key)
}

/// The pins, by the host as it is in URLs.
fn pins(serve: &Serve) -> anyhow::Result<BTreeMap<String, Pin>> {
    let mut pins = BTreeMap::new();
    for text in serve.mesh_pin.iter().filter(|text| !text.is_empty()) {
        let (host, pin) = text
            .split_once('=')
            .with_context(|| format!("--mesh-pin {text:?} has no equals sign; write HOST=sha256-raw:HEX"))?;
        let hosts = &serve.mesh_with.0;
        let meant = mesh_with::parse(host).ok().and_then(|hosts| hosts.into_iter().next());
        let of = |wanted: &&MeshHost| {
            meant.as_ref().is_some_and(|meant| {
                wanted.authority() == meant.authority() || wanted.name.eq_ignore_ascii_case(host)
            })
        };
        let found: Vec<_> = hosts.iter().filter(of).collect();
        ensure!(
            !found.is_empty(),
            "--mesh-pin is for {host:?}, which is not a host of -mesh-with; write it as it is there, without the \
             part behind the slash"
        );
        let pin: Pin = pin.parse().map_err(|wrong| anyhow::anyhow!("--mesh-pin for {host}: {wrong}"))?;
        pins.extend(found.into_iter().map(|host| (host.authority(), pin)));
    }
    Ok(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_digits_and_what_is_wrong_is_not_repeated() {
        let key = "0f".repeat(32);
        assert!(
            parse(&format!(" {}\n", key.to_uppercase()))
                .expect("a key")
                .matches(&key.parse().expect("a key"))
        );
        for wrong in ["", "secret", &key[1..], &"0".repeat(64)] {
            let error = format!("{:#}", parse(wrong).expect_err("refused"));
            assert!(error.contains("openssl rand -hex 32"), "{error}");
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }
}
