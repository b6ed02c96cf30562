//! Builds the stock programs once, into the target directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::interop::{find_go, go};

/// A program that one of our Go modules can build.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    name: &'static str,
    package: &'static str,
    /// The module, a directory beside this crate's sources.
    module: &'static str,
    flags: &'static [&'static str],
}

/// Probes the relays of a DERP map. Release 1.104.5.
pub const DERPPROBE: Program =
    Program { name: "derpprobe", package: "tailscale.com/cmd/derpprobe", module: "interop", flags: &[] };

/// Upstream's relay. Release 1.104.5.
pub const DERPER: Program =
    Program { name: "derper", package: "tailscale.com/cmd/derper", module: "interop", flags: &[] };

/// A node; if run as `tailscale`, its command line. Release 1.102.5.
pub const TAILSCALED: Program =
    Program { name: "tailscaled", package: "tailscale.com/cmd/tailscaled", module: "stock", flags: STOCK };

/// The control server of `tests/stock`.
pub(super) const CONTROL: Program = Program { name: "control", package: ".", module: "stock", flags: STOCK };

/// Flags for a fast build: building a node takes most of these tests' time, and no test here measures its
/// speed. The standard library keeps the judge's flags, so it is built once for both.
const STOCK: &[&str] = &[
    "-tags",
    TAGS,
    "-gcflags=tailscale.com/...=-N -l -dwarf=false",
    "-gcflags=gvisor.dev/gvisor/...=-N -l -dwarf=false",
    "-ldflags=-s -w",
];

/// Upstream's own build tags: one program for the node and its command line, without parts that do not use a
/// relay. The tailnet lock stays, because the control server does not build without it.
const TAGS: &str = "\
    ts_include_cli,ts_omit_acme,ts_omit_appconnectors,ts_omit_aws,ts_omit_bird,ts_omit_cachenetmap,\
    ts_omit_capture,ts_omit_clientupdate,ts_omit_cloud,ts_omit_completion,ts_omit_completion_scripts,\
    ts_omit_conn25,ts_omit_dbus,ts_omit_debugportmapper,ts_omit_desktop_sessions,ts_omit_doctor,\
    ts_omit_drive,ts_omit_flashappliance,ts_omit_hujsonconf,ts_omit_identityfederation,ts_omit_iptables,\
    ts_omit_kube,ts_omit_linkspeed,ts_omit_linuxdnsfight,ts_omit_netlog,ts_omit_networkmanager,\
    ts_omit_oauthkey,ts_omit_osrouter,ts_omit_outboundproxy,ts_omit_portlist,ts_omit_posture,\
    ts_omit_qrcodes,ts_omit_relayserver,ts_omit_remoteconfig,ts_omit_resolved,ts_omit_runtimemetrics,\
    ts_omit_sdnotify,ts_omit_serve,ts_omit_serviceclientprefs,ts_omit_ssh,ts_omit_synology,\
    ts_omit_syslog,ts_omit_systray,ts_omit_taildrop,ts_omit_tap,ts_omit_tpm,ts_omit_tundevstats,\
    ts_omit_wakeonlan,ts_omit_webclient";

impl Program {
    /// The program's path; it is built at the first call in this process. The inner error says why Go is
    /// missing.
    ///
    /// # Errors
    /// Go is there but cannot build the program.
    pub fn built(&self) -> Result<Result<PathBuf, String>> {
        static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
        // The lock is held while Go works, because two builds of one program would write the same file.
        let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = built.get(self.name) {
            return Ok(Ok(program.clone()));
        }
        if let Err(missing) = find_go() {
            return Ok(Err(missing));
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        // The judge has another directory, because it is built as the user, and a lab's programs are built as
        // root.
        let program = here.join("../target/stock").join(self.name);
        let verb = [&["build"], self.flags].concat();
        let made = go(&here.join(self.module), &verb, &program, self.package);
        made.map_err(anyhow::Error::msg).with_context(|| format!("`go build {}`", self.package))?;
        built.insert(self.name, program.clone());
        Ok(Ok(program))
    }
}
