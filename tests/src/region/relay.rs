//! One relay of a region, of either kind, with the same flags, and what happens to relays: they stop, die and
//! freeze.

use std::{
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::net::{Net, SIZE};
use crate::{
    admin::Admin,
    client::{Dial, Start, Transport, tls::Pinned},
    daemon,
    flags::Flags,
    lab::Netns,
    process::{PATIENCE, Process, inside, stdout, until},
    stock::DERPER,
};

/// The port of all relays.
const PORT: u16 = 443;
/// How long an attempt to connect may take; on this network every answer comes at once.
const CONNECT: Duration = Duration::from_secs(1);

/// Which program a relay runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Relayd,
    /// Upstream's.
    Derper,
}

/// A program to run as a relay.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its kind, which decides the flags that only one kind knows.
    pub kind: Kind,
    /// The executable file.
    pub path: PathBuf,
    /// Further arguments.
    pub args: Vec<String>,
}

impl Kind {
    /// The program that tests use for this kind. The inner error says why there is none.
    pub fn program(self) -> Result<Result<Program, String>> {
        let path = match self {
            Self::Derper => DERPER.built()?,
            Self::Relayd => daemon::binary().map_err(|reason| format!("{reason:#}")),
        };
        Ok(path.map(|path| Program { kind: self, path, args: Vec::new() }))
    }
}

/// The files that a relay shares with the others of its region.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The mesh key.
    pub(super) mesh_key: PathBuf,
    /// The authority's certificate.
    pub(super) authority: PathBuf,
}

/// A relay, running or not.
#[derive(Debug)]
pub struct Relay {
    // Dropped before the region removes its host and its files.
    process: Option<Process>,
    program: Program,
    name: String,
    address: Ipv4Addr,
    /// Where its own host reaches it, as loopback.
    own_address: Ipv4Addr,
    netns: String,
    words: Vec<OsString>,
    env: Vec<(String, String)>,
    admin: Admin,
    authority: PathBuf,
    log: PathBuf,
    pinned: Pinned,
}

impl Relay {
    /// Relay `index` of a region, which does not run yet. Its certificate is in `dir` already, where its key
    /// and its log will be.
    pub(super) fn new(
        index: usize,
        program: Program,
        net: &Net,
        dir: &Path,
        shared: &Shared,
    ) -> Result<Self> {
        let name = name(index);
        let listens_at = net.listens_at(index).map_or_else(String::new, |address| address.to_string());
        let mut words = Flags::tls(format!("{listens_at}:{PORT}"), dir, &name).words();
        let others = (0..SIZE).filter(|other| *other != index);
        let others: Vec<_> =
            others.map(|other| format!("{}/{}", self::name(other), net.mesh_side(other))).collect();
        words.extend(["-mesh-psk-file".into(), shared.mesh_key.clone().into_os_string()]);
        words.extend(["-mesh-with".into(), others.join(",").into()]);
        let admin = dir.join("admin.sock");
        if program.kind == Kind::Relayd {
            words.extend(["--admin-socket".into(), admin.clone().into_os_string()]);
        }
        words.extend(program.args.iter().map(Into::into));
        let pinned = Pinned::load(&dir.join(format!("{name}.crt")))?.by_name(&name)?;
        Ok(Self {
            process: None,
            program,
            name,
            address: net.client_side(index),
            own_address: net.listens_at(index).unwrap_or(Ipv4Addr::LOCALHOST),
            netns: net.relay(index).name().to_owned(),
            words,
            env: Vec::new(),
            admin: Admin::new(admin),
            authority: shared.authority.clone(),
            log: dir.join("log"),
            pinned,
        })
    }

    /// Which program it runs.
    pub fn kind(&self) -> Kind {
        self.program.kind
    }

    /// Its name, in its certificate too.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sets a variable of its environment, from its next start on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Its process.
    pub fn pid(&mut self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    /// Its admin socket, if it is relayd.
    pub fn admin(&self) -> Option<&Admin> {
        (self.program.kind == Kind::Relayd).then_some(&self.admin)
    }

    /// The metrics page that derper shows to its own host.
    pub fn varz(&self) -> Result<String> {
        let Self { name, own_address, netns, .. } = self;
        let mut command = inside(netns, Path::new("curl"));
        command.args(["-sSk", "--max-time", "10", "--resolve", &format!("{name}:{PORT}:{own_address}")]);
        stdout(command.arg(format!("https://{name}/debug/varz")))
    }

    /// How clients connect to it.
    pub fn dial(&self) -> Dial {
        let addr = SocketAddr::new(self.address.into(), PORT);
        Dial { addr, transport: Transport::Tls13(self.pinned.clone()), start: Start::Normal }
    }

    /// Starts it with the key that it had before, and does not wait.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.name);
        let mut command: Command = inside(&self.netns, &self.program.path);
        command.args(&self.words).env("SSL_CERT_FILE", &self.authority).env("RELAYD_LOG", "info");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(command, &self.log)?);
        Ok(())
    }

    /// Waits until it listens. `clients` is the host from which clients connect.
    pub(super) fn wait_until_listening(&mut self, clients: &Netns) -> Result<()> {
        let addr = SocketAddr::new(self.address.into(), PORT);
        self.running()?.wait("the relay to listen", PATIENCE, |_| {
            Ok(clients.enter(|| TcpStream::connect_timeout(&addr, CONNECT).is_ok())?.then_some(()))
        })
    }

    /// Asks it to stop, as an operator does; returns how long that took.
    pub fn stop(&mut self) -> Result<Duration> {
        let asked = Instant::now();
        self.running()?.stop()?;
        self.process = None;
        Ok(asked.elapsed())
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.running()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Stops its threads, as a machine does that is suspended or overloaded; its kernel still answers.
    pub fn freeze(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGSTOP)?;
        let stat = format!("/proc/{}/stat", self.running()?.pid());
        until("the relay to freeze", || {
            let text = fs::read_to_string(&stat).with_context(|| stat.clone())?;
            Ok(text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
        })
    }

    /// Lets it continue.
    pub fn thaw(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }

    fn running(&mut self) -> Result<&mut Process> {
        let Self { process, name, .. } = self;
        process.as_mut().with_context(|| format!("{name} does not run"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // A frozen process would not end before the patience with it does.
        if let Some(process) = &mut self.process {
            // It fails only if the process has ended.
            let _ = process.signal(Signal::SIGCONT);
        }
    }
}

/// The name of a relay, in its certificate and in the others' `-mesh-with`.
pub(super) fn name(index: usize) -> String {
    format!("derp{}.lab", index + 1)
}
