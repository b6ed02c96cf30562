//! Starts a `relayd` for a test, waits for it, asks it, and ends it when the value is dropped.
//!
//! Each daemon has a directory for its keys and sockets. Without a network namespace it listens on its own
//! loopback address, so that tests can run at the same time on fixed ports.

use std::{
    env,
    ffi::OsString,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    admin::Admin,
    client::{Dial, Start, Transport, tls::Pinned},
    flags::Flags,
    process::{PATIENCE, Process, inside, until},
};

/// TCP port of DERP.
pub const DERP_PORT: u16 = 8443;
/// TCP port of the plain companion.
pub const COMPANION_PORT: u16 = 8080;
/// UDP port of STUN.
pub const STUN_PORT: u16 = 3478;
/// UDP port of the relay if the daemon has its own host.
const LAB_UDP_PORT: u16 = 7777;
/// Directory of the BPF file system in which a lab's daemons pin maps.
const BPF_ROOT: &str = "/sys/fs/bpf";

/// The settings of a daemon.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Name of the network namespace; `None`: that of the calling process.
    pub netns: Option<String>,
    /// The address on which it listens, and for which its certificate is.
    pub ip: IpAddr,
    /// Use plain TCP instead of TLS.
    pub plain: bool,
    /// Interface for the XDP program.
    pub xdp: Option<String>,
    /// A program with its arguments that sets up conditions and then starts the daemon.
    pub under: Vec<OsString>,
    /// More arguments.
    pub args: Vec<OsString>,
    /// A directory with the certificate and its key, which are copied; `None`: the daemon makes one.
    pub certificate: Option<PathBuf>,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    // Dropped before the directory of its files.
    process: Process,
    setup: Setup,
    dir: TempDir,
    bpf_dir: PathBuf,
    admin: Admin,
}

impl Setup {
    /// A daemon on a loopback address that no other test uses, with any port for the UDP relay.
    pub fn loopback() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, high, low, NEXT.fetch_add(1, Ordering::Relaxed).max(1));
        let args = [
            "--relay-server-port".into(),
            "0".into(),
            // The daemon never advertises a loopback address by itself. Its port is known only once it is
            // bound, and clients ask for it.
            "--relay-server-static-endpoints".into(),
            format!("{ip}:1").into(),
        ];
        let (xdp, under, certificate) = (None, Vec::new(), None);
        Self { netns: None, ip: ip.into(), plain: false, xdp, under, args: args.into(), certificate }
    }

    /// A daemon in a network namespace where it does not share its ports.
    pub fn in_netns(name: &str, ip: IpAddr) -> Self {
        let args = ["--relay-server-port".into(), LAB_UDP_PORT.to_string().into()];
        Self {
            netns: Some(name.to_owned()),
            ip,
            plain: false,
            xdp: None,
            under: Vec::new(),
            args: args.into(),
            certificate: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(Into::into));
        self
    }

    /// Starts the daemon through another program, which gets the daemon's path and arguments after its own.
    #[must_use]
    pub fn under(mut self, program: &[&str]) -> Self {
        self.under = program.iter().map(Into::into).collect();
        self
    }

    /// Uses plain TCP instead of TLS.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// Runs the XDP program on this interface in native mode.
    #[must_use]
    pub fn xdp(mut self, interface: &str) -> Self {
        self.xdp = Some(interface.to_owned());
        self
    }
}

impl Daemon {
    /// Starts a daemon in a new directory, and waits until it answers.
    pub fn start(setup: Setup) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("relayd-").tempdir()?;
        let bpf_dir = Path::new(BPF_ROOT).join(dir.path().file_name().unwrap_or_default());
        let admin = Admin::new(dir.path().join("admin.sock"));
        let process = start(&setup, dir.path(), &bpf_dir, &admin)?;
        let mut daemon = Self { process, setup, dir, bpf_dir, admin };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts the daemon again with the same files, after [`Self::kill`] or [`Self::stop`].
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "the daemon still runs");
        self.process = start(&self.setup, self.dir.path(), &self.bpf_dir, &self.admin)?;
        self.wait_until_ready()
    }

    /// The daemon's admin socket.
    pub fn admin(&self) -> &Admin {
        &self.admin
    }

    /// The directory where its maps are pinned.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf_dir
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The address on which it was told to listen.
    pub fn ip(&self) -> IpAddr {
        self.setup.ip
    }

    /// How to connect to its DERP listener: plain if it was started so, else with TLS 1.3.
    pub fn dial(&self, start: Start) -> Result<Dial> {
        let transport = if self.setup.plain { Transport::Plain } else { Transport::Tls13(self.pinned()?) };
        Ok(Dial { addr: SocketAddr::new(self.setup.ip, DERP_PORT), transport, start })
    }

    /// Its certificate.
    pub fn pinned(&self) -> Result<Pinned> {
        Pinned::load(&self.dir.path().join(format!("{}.crt", self.setup.ip)))
    }

    /// The address on which its UDP relay listens.
    pub fn udp(&self) -> Result<SocketAddr> {
        let status = self.admin.status()?;
        let port = status["udp"]["port"].as_u64().context("no UDP relay")?;
        Ok(SocketAddr::new(self.setup.ip, u16::try_from(port)?))
    }

    /// One of its counters, by label.
    pub fn counter(&self, label: &str) -> Result<u64> {
        let status = self.admin.status()?;
        status["counters"][label].as_u64().with_context(|| format!("no counter {label}"))
    }

    /// Packets that the XDP program counted under this reason.
    pub fn reason(&self, label: &str) -> Result<u64> {
        let status = self.admin.status()?;
        let count = status["xdp"]["reasons"][label]["packets"].as_u64();
        count.with_context(|| format!("no reason {label} in {}", status["xdp"]))
    }

    /// The status of one session, if there is one.
    pub fn session(&self, vni: u32) -> Result<Option<Value>> {
        let sessions = self.admin.get("/v1/sessions")?;
        let sessions = sessions.as_array().context("sessions are a list")?;
        Ok(sessions.iter().find(|session| session["vni"] == vni).cloned())
    }

    /// Whether it was started with XDP.
    pub fn has_xdp(&self) -> bool {
        self.setup.xdp.is_some()
    }

    /// Turns the program's forwarding `on` or `off`, as an operator does.
    pub fn switch_xdp(&self, state: &str) -> Result<()> {
        run_relayd(&["xdp", state, "--admin-socket", &self.admin().path().to_string_lossy()]).map(|_| ())
    }

    /// Waits until the kernel forwards the packets of a session.
    pub fn wait_installed(&self, vni: u32) -> Result<()> {
        until("the session to be installed in the kernel", || {
            Ok(self.session(vni)?.is_some_and(|session| session["installed"] == true))
        })
    }

    /// Waits until `condition` is true for the daemon's status.
    pub fn wait(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut status = Value::Null;
        until(what, || {
            status = self.admin.status()?;
            Ok(condition(&status))
        })
        .with_context(|| format!("last status: {status}"))?;
        Ok(status)
    }

    /// Runs a subcommand of the same binary to its end; returns its standard output.
    pub fn ask(&self, args: &[&str]) -> Result<String> {
        run_relayd(args)
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks the daemon to stop, waits, and returns its exit status.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.process.stop()
    }

    /// Kills the daemon, as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let admin = &self.admin;
        let ready = self.process.wait("relayd to answer", PATIENCE, |_| Ok(admin.status().ok()));
        ready.map(drop).with_context(|| self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The daemon is asked first, so that it removes its pins itself.
        if matches!(self.process.ended(), Ok(None)) && self.stop().is_err() {
            let _ = self.process.kill();
        }
        let pins = fs::read_dir(&self.bpf_dir).into_iter().flatten().flatten();
        pins.for_each(|pin| drop(fs::remove_file(pin.path())));
        let _ = fs::remove_dir(&self.bpf_dir);
    }
}

/// Runs `relayd` with `args` to its end; returns its standard output.
pub fn run_relayd(args: &[&str]) -> Result<String> {
    let output = Command::new(binary()?).args(args).output().context("cannot run relayd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "relayd {}: {}\n{text}{}",
        args.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}

/// The daemon under test: `RELAYD_BIN`, or cargo's last build.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("RELAYD_BIN") {
        return Ok(path.into());
    }
    // A test program lies in target/<profile>/deps, the demo in target/<profile>.
    let program = env::current_exe()?;
    let near = program.ancestors().skip(1).take(2).map(|dir| dir.join("relayd")).find(|path| path.exists());
    near.context("no relayd beside this program: build it with `cargo build`, or set RELAYD_BIN")
}

/// The arguments of a daemon with these shared flags and its admin socket in `dir`.
pub(crate) fn arguments(flags: &Flags, admin: &Path) -> Vec<OsString> {
    [flags.words(), vec!["--admin-socket".into(), admin.into()]].concat()
}

fn start(setup: &Setup, dir: &Path, bpf_dir: &Path, admin: &Admin) -> Result<Process> {
    let words = [setup.under.as_slice(), &[binary()?.into_os_string()]].concat();
    let mut command = match &setup.netns {
        Some(name) => inside(name, Path::new(&words[0])),
        None => Command::new(&words[0]),
    };
    command.args(&words[1..]);
    for ending in ["crt", "key"] {
        let name = format!("{}.{ending}", setup.ip);
        if let Some(from) = &setup.certificate
            && !dir.join(&name).exists()
        {
            fs::copy(from.join(&name), dir.join(&name)).with_context(|| format!("copying {name}"))?;
        }
    }
    let addr = SocketAddr::new(setup.ip, DERP_PORT).to_string();
    let flags = match setup.plain {
        true => Flags::plain(addr, dir),
        false => Flags::tls(addr, dir, &setup.ip.to_string()),
    };
    command.args(arguments(&flags.http(COMPANION_PORT).stun(STUN_PORT), admin.path()));
    if let Some(interface) = &setup.xdp {
        command.args(["--xdp", interface, "--bpf-dir"]).arg(bpf_dir);
    }
    command.args(&setup.args);
    Process::start(command, &dir.join("log"))
}
