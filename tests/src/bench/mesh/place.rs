//! A region under load: three relays of one program that know each other, and load processes beside them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::bench::load::{Door, Outcome, Plan};
use crate::bench::server::DERPER_QUEUE;
use crate::bench::usage;
use crate::client::{Client, Message};
use crate::region::{Program, Region, SIZE};

/// Time until packets pass from every relay to every other one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time for one packet of these.
const TRY: Duration = Duration::from_millis(100);
/// The packet that shows that a link is up.
const GREETING: &[u8] = b"is anybody there?";

/// The running region.
pub(super) struct Place {
    pub(super) region: Region,
}

/// Where the relays are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hosts {
    One,
    Own,
}

impl Place {
    /// Starts three relays of this program, and waits until packets pass between all of them.
    pub(super) fn start(program: &Program, hosts: Hosts) -> Result<Self> {
        let programs = [program; SIZE];
        let mut region = match hosts {
            Hosts::One => Region::on_one_host(programs)?,
            Hosts::Own => Region::new(programs)?,
        };
        for index in 0..SIZE {
            region.relay(index).env("RELAYD_LOG", "warn");
            region.relay(index).env(DERPER_QUEUE.0, DERPER_QUEUE.1);
        }
        region.start_all()?;
        (0..SIZE).try_for_each(|index| region.wait_until_listening(index))?;
        let mut place = Self { region };
        place.wait_until_linked().with_context(|| place.region.logs())?;
        Ok(place)
    }

    fn wait_until_linked(&mut self) -> Result<()> {
        let doors = [0, 1, 2].map(|index| self.region.relay(index).dial());
        self.region.clients().enter(|| {
            let mut clients = doors.iter().map(Client::connect).collect::<Result<Vec<_>>>()?;
            let end = Instant::now() + PATIENCE;
            let pairs = (0..SIZE).flat_map(|from| (0..SIZE).map(move |to| (from, to)));
            for (from, to) in pairs.filter(|(from, to)| from != to) {
                let key = clients[to].key();
                loop {
                    ensure!(Instant::now() < end, "no packet from relay {} to {}", from + 1, to + 1);
                    clients[from].send(&key, GREETING)?;
                    if let Some(Message::Packet { .. }) = clients[to].recv_within(TRY)? {
                        break;
                    }
                }
            }
            Ok(())
        })?
    }

    /// The CPU time so far of each relay.
    pub(super) fn cpu(&mut self) -> Result<[Duration; SIZE]> {
        let mut all = [Duration::ZERO; SIZE];
        for (index, cpu) in all.iter_mut().enumerate() {
            *cpu = usage::cpu(self.region.relay(index).pid()?)?;
        }
        Ok(all)
    }

    /// Puts relay 1 under load as planned, to its end.
    pub(super) fn load(&mut self, plan: &Plan) -> Result<Outcome> {
        self.load_to(plan, None)
    }

    /// The same, with the receivers at another relay.
    pub(super) fn load_to(&mut self, plan: &Plan, receivers: Option<usize>) -> Result<Outcome> {
        let mut running = self.start_load(plan, receivers)?;
        let outcome = running.outcome().with_context(|| self.region.logs())?;
        running.finish()?;
        Ok(outcome)
    }

    /// Starts a load at relay 1.
    pub(super) fn start_load(&mut self, plan: &Plan, receivers: Option<usize>) -> Result<Running> {
        let beside = [1, 2].map(|index| self.region.relay(index).pid());
        let [second, third] = beside;
        let mut door = |index: usize| -> Door {
            let relay = self.region.relay(index);
            Door { name: relay.name().to_owned(), addr: relay.dial().addr }
        };
        let (Door { name, addr }, to) = (door(0), receivers.map(door));
        let plan = Plan {
            addr,
            name: Some(name),
            to,
            pid: self.region.relay(0).pid()?,
            beside: vec![second?, third?],
            ..plan.clone()
        };
        let spawn = || {
            // The running program itself, even if its file was replaced.
            Command::new("/proc/self/exe")
                .arg("load")
                .args(plan.args())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        };
        let mut child = self.region.clients().enter(spawn)?.context("starting the load")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no output")?);
        let stderr = child.stderr.take().context("no error output")?;
        Ok(Running { child, stdin, stdout, stderr })
    }
}

/// A load process. It ends by itself after a bounded time.
pub(super) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Running {
    /// Waits for its results; those of its clients that stay are still there then.
    pub(super) fn outcome(&mut self) -> Result<Outcome> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.is_empty() {
            let mut said = String::new();
            self.stderr.read_to_string(&mut said)?;
            bail!("the load failed: {}", said.trim());
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Lets the clients leave that stayed, and waits for the end.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the load ended: {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
