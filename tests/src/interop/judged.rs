//! A relay to be judged on its own loopback ports, with every service that the judge can ask: DERP over TLS,
//! a second relay without TLS, the plain HTTP companion, STUN, and the UDP relay behind the admin socket.
//!
//! For the mesh cases the judge itself starts more relays, one for each: it is given the command.
//!
//! All other running cases share one relay. Only the cases hold it (a `static` would never be dropped), so
//! the last case that ends removes the processes and their files.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use super::go::{build_package, build_short_udp_relay};
use super::judge::Judge;
use crate::daemon::binary;
use crate::flags::Flags;
use crate::process::{Process, until};

/// Cases that upstream fails because relayd is stricter on purpose; see the case's own comment.
const STRICTER_THAN_UPSTREAM: &[&str] = &[
    "udp-strict-geneve",
    "udp-allocate-same-pair",
    "udp-challenge-from-address-asked",
    "mesh-link-untrusted-address",
];

/// Lifetimes of the sessions of a second UDP relay, for the cases about their end.
const SHORT_BIND: Duration = Duration::from_secs(2);
const SHORT_STEADY: Duration = Duration::from_secs(3);

const DERPER: &str = "tailscale.com/cmd/derper";

/// Attempts to start a relay: another process may take a port after it was chosen and before the relay binds
/// it.
const START_ATTEMPTS: usize = 3;

/// Which relay is judged.
#[derive(Clone, Debug)]
pub enum Server {
    /// relayd, by path.
    Relayd(PathBuf),
    /// Upstream's derper and its UDP relay, to test the judge. Selected with `JUDGE_SERVER=upstream`.
    Upstream,
}

impl Server {
    /// The server that the environment selects. The inner error says why there is no server to judge.
    ///
    /// # Errors
    /// `RELAYD_BIN` is not a file, or `JUDGE_SERVER` has an unknown value.
    pub fn chosen() -> anyhow::Result<Result<Server, String>> {
        match std::env::var("JUDGE_SERVER").as_deref() {
            Ok("upstream") => return Ok(Ok(Server::Upstream)),
            Ok("relayd") | Err(_) => {}
            Ok(other) => bail!("JUDGE_SERVER={other}: want relayd or upstream"),
        }
        match binary() {
            Ok(path) if path.is_file() => Ok(Ok(Server::Relayd(path))),
            Ok(path) => bail!("RELAYD_BIN: there is no {}", path.display()),
            Err(reason) => Ok(Err(format!("{reason:#}"))),
        }
    }
}

/// A running relay; dropping it ends the processes and removes the files.
#[derive(Debug)]
pub struct JudgedRelay {
    processes: Vec<Process>,
    dir: TempDir,
    flags: Vec<String>,
    must_fail: &'static [&'static str],
}

impl JudgedRelay {
    /// The relay that all running cases share; it is started if no case runs.
    pub(super) fn shared(server: &Server, judge: &Judge) -> anyhow::Result<Arc<JudgedRelay>> {
        static SHARED: Mutex<Result<Weak<JudgedRelay>, String>> = Mutex::new(Ok(Weak::new()));
        // A poisoned lock means that a start panicked; the next case may try again.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match &*shared {
            Ok(running) => {
                if let Some(relay) = running.upgrade() {
                    return Ok(relay);
                }
            }
            // If the relay did not start for one case, it would not start for forty more.
            Err(reason) => bail!("{reason}"),
        }
        match JudgedRelay::start(server, judge) {
            Ok(relay) => {
                let relay = Arc::new(relay);
                *shared = Ok(Arc::downgrade(&relay));
                Ok(relay)
            }
            Err(error) => {
                *shared = Err(format!("{error:#}"));
                Err(error)
            }
        }
    }

    fn start(server: &Server, judge: &Judge) -> anyhow::Result<JudgedRelay> {
        let mut attempt = 1;
        loop {
            let error = match JudgedRelay::try_start(server, judge) {
                Ok(relay) => return Ok(relay),
                Err(error) => error,
            };
            if attempt == START_ATTEMPTS {
                return Err(error.context(format!("{attempt} attempts")));
            }
            attempt += 1;
        }
    }

    fn try_start(server: &Server, judge: &Judge) -> anyhow::Result<JudgedRelay> {
        let ports = Ports::free()?;
        // The path is short, as a socket's path must be.
        let dir = tempfile::Builder::new().prefix("relayd-").tempdir()?;
        let socket = dir.path().join("admin.sock");
        let short_socket = dir.path().join("short.sock");
        let flags = [
            ("-url", format!("https://127.0.0.1:{}/derp", ports.tls)),
            ("-plain-url", format!("http://127.0.0.1:{}/derp", ports.plain)),
            ("-http-url", format!("http://127.0.0.1:{}", ports.http)),
            ("-stun-addr", format!("127.0.0.1:{}", ports.stun)),
            ("-admin-socket", socket.display().to_string()),
            ("-short-socket", short_socket.display().to_string()),
            ("-short-bind", format!("{}ms", SHORT_BIND.as_millis())),
            ("-short-steady", format!("{}ms", SHORT_STEADY.as_millis())),
        ];
        let mut flags: Vec<String> =
            flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let words = match server {
            Server::Relayd(program) => {
                vec![program.clone(), "--admin-socket".into(), "{dir}/admin.sock".into()]
            }
            Server::Upstream => vec![build_package(DERPER)?],
        };
        flags.extend(words.iter().flat_map(|word| ["-server".to_owned(), word.display().to_string()]));
        let must_fail = match server {
            Server::Relayd(_) => {
                // What relayd does differently from upstream, on purpose.
                flags.extend(["-newest-claim", "-latest-news", "-several-handshakes"].map(str::to_owned));
                &[]
            }
            Server::Upstream => STRICTER_THAN_UPSTREAM,
        };
        // From here on, dropping the relay cleans up everything that was started.
        let mut relay = JudgedRelay { processes: Vec::new(), dir, flags, must_fail };
        match server {
            Server::Relayd(program) => {
                let mut relayd = relay.tls(program, &ports);
                relayd.arg("--admin-socket").arg(&socket);
                relayd.args(["--relay-server-port", &ports.relay.to_string()]);
                relayd.args(["--relay-server-static-endpoints", &endpoints(ports.relay, ports.has_ipv6)]);
                relay.run(relayd)?;
                let mut plain = relay.plain(program, &ports);
                plain.arg("--admin-socket").arg(&short_socket);
                plain.args(["--relay-server-port", &ports.short.to_string()]);
                plain.args(["--relay-server-static-endpoints", &endpoints(ports.short, ports.has_ipv6)]);
                plain.arg(format!("--relay-bind-lifetime={}ms", SHORT_BIND.as_millis()));
                plain.arg(format!("--relay-steady-lifetime={}ms", SHORT_STEADY.as_millis()));
                relay.run(plain)?;
            }
            Server::Upstream => {
                let derper = build_package(DERPER)?;
                let mut tls = relay.tls(&derper, &ports);
                // Upstream's queue of 32 packets per client is smaller than the judge's window.
                tls.env("TS_DEBUG_DERP_PER_CLIENT_SEND_QUEUE_DEPTH", "256");
                relay.run(tls)?;
                relay.run(relay.plain(&derper, &ports))?;
                let programs =
                    [build_package("./udprelay")?, build_short_udp_relay(SHORT_BIND, SHORT_STEADY)?];
                let places = [(&socket, ports.relay), (&short_socket, ports.short)];
                for (program, (socket, port)) in programs.iter().zip(places) {
                    let mut udp = Command::new(program);
                    udp.arg("-admin-socket").arg(socket);
                    udp.args(["-endpoints", &endpoints(port, ports.has_ipv6)]);
                    relay.run(udp)?;
                }
            }
        }
        let answered = relay.await_services(judge);
        answered.with_context(|| format!("the relay's log ends:\n{}", relay.log_tail()))?;
        Ok(relay)
    }

    /// Returns once every service answers; fails at once if a process of the relay has ended.
    fn await_services(&mut self, judge: &Judge) -> anyhow::Result<()> {
        let mut awaiting = Process::start(judge.awaiting(&self.flags), &self.dir.path().join("await.log"))?;
        let mut all_answer = false;
        until("every service to answer", || {
            if let Some(status) = awaiting.ended()? {
                all_answer = status.success();
                return Ok(true);
            }
            for process in &mut self.processes {
                if let Some(status) = process.ended()? {
                    bail!("a process of the relay ended as it started: {status}");
                }
            }
            Ok(false)
        })?;
        ensure!(all_answer, "{}", awaiting.log());
        Ok(())
    }

    /// The relay with TLS and a self-signed certificate.
    fn tls(&self, program: &Path, ports: &Ports) -> Command {
        let flags = Flags::tls(format!("127.0.0.1:{}", ports.tls), self.dir.path(), "127.0.0.1");
        Self::relay(program, &flags.http(ports.http).stun(ports.stun))
    }

    /// The relay without TLS: derper uses no TLS on another port than 443 without manual certificates.
    fn plain(&self, program: &Path, ports: &Ports) -> Command {
        let key = self.dir.path().join("plain.key");
        let flags = Flags { key, ..Flags::plain(format!("127.0.0.1:{}", ports.plain), self.dir.path()) };
        Self::relay(program, &flags)
    }

    fn relay(program: &Path, flags: &Flags) -> Command {
        let mut command = Command::new(program);
        command.args(flags.words());
        command
    }

    fn run(&mut self, command: Command) -> anyhow::Result<()> {
        self.processes.push(Process::start(command, &self.dir.path().join("log"))?);
        Ok(())
    }

    /// The judge's flags that name this relay's services.
    pub(super) fn flags(&self) -> &[String] {
        &self.flags
    }

    /// Whether this case must fail here, to show that it can.
    pub(super) fn must_fail(&self, case: &str) -> bool {
        self.must_fail.contains(&case)
    }

    /// The last log lines of the relay's processes, which share one file.
    pub(super) fn log_tail(&self) -> String {
        self.processes.first().map(Process::log_tail).unwrap_or_default()
    }
}

/// Ports that were free a moment ago.
struct Ports {
    tls: u16,
    plain: u16,
    http: u16,
    stun: u16,
    relay: u16,
    short: u16,
    has_ipv6: bool,
}

impl Ports {
    fn free() -> anyhow::Result<Ports> {
        // All are held until all are chosen, so that they differ.
        let tcp = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let [tls, plain, http] = tcp.map(|listener| listener.context("no free TCP port"));
        let stun = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free UDP port")?;
        let [relay, short] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let (relay, short) = (relay.context("no free UDP port")?, short.context("no free UDP port")?);
        let (tls, plain, http) = (tls?, plain?, http?);
        Ok(Ports {
            tls: tls.local_addr()?.port(),
            plain: plain.local_addr()?.port(),
            http: http.local_addr()?.port(),
            stun: stun.local_addr()?.port(),
            relay: relay.local_addr()?.port(),
            short: short.local_addr()?.port(),
            has_ipv6: UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok(),
        })
    }
}

/// What a UDP relay is told to advertise: it never advertises loopback by itself.
fn endpoints(port: u16, has_ipv6: bool) -> String {
    if has_ipv6 { format!("127.0.0.1:{port},[::1]:{port}") } else { format!("127.0.0.1:{port}") }
}
