//! The faults of a region's life, one after the other under the same load, and the window of each.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Region, SIZE,
    account::{self, Figures, Pair, Window},
    load::{Load, Records, pairs},
    records::Nanos,
};

/// The relay that has the faults.
pub const VICTIM: usize = 0;
/// Time before a fault, in its window.
const LEAD: Duration = Duration::from_millis(500);
/// Every pair must talk for this long before a window ends: longer than derper's timers for writing to a
/// relay and for dialling it again, which are 5 s.
const STEADY: Duration = Duration::from_secs(6);
/// Maximum time until every pair talks.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing, for this long.
    None(Duration),
    /// No path to the other relays for this long.
    Cut(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Duration),
    /// SIGKILL, and a start after this time.
    Kill(Duration),
}

/// The restart of one relay of a rolling restart.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// The relay.
    pub relay: usize,
    /// How long it took to end.
    pub stopping: Duration,
    /// It ends and is started again at once, and its clients go to other relays. The window's fault is over
    /// when the old process has ended.
    pub away: Window,
    /// Its clients come home. The window's fault is over when it begins.
    pub home: Window,
}

/// A region under load.
#[derive(Debug)]
pub struct Trial {
    load: Load,
    region: Region,
    started: Nanos,
}

/// What the clients of a finished trial saw.
#[derive(Debug)]
pub struct Finished {
    records: Records,
    started: Nanos,
}

impl Trial {
    /// Starts all relays of the region at once, and waits until every pair talks.
    pub fn start(mut region: Region) -> Result<Self> {
        let load = Load::start(&mut region)?;
        let started = load.now();
        region.start_all()?;
        // A relay that cannot start is an error at once.
        (0..SIZE).try_for_each(|index| region.wait_until_listening(index))?;
        let trial = Self { region, load, started };
        let whole = trial.load.wait_whole(STEADY, PATIENCE);
        ensure!(whole, "not every pair talks after {PATIENCE:?}; {}", trial.region.logs());
        Ok(trial)
    }

    /// Lets a fault happen to relay [`VICTIM`], and waits until every pair talks again.
    pub fn fault(&mut self, fault: Fault) -> Result<Window> {
        let Self { region, load, .. } = self;
        let from = load.now();
        thread::sleep(LEAD);
        let fault_from = load.now();
        match fault {
            Fault::None(time) => {
                thread::sleep(time);
                let to = load.now();
                return Ok(Window { from, fault_from: to, fault_to: to, to, whole: true });
            }
            Fault::Cut(time) => {
                region.cut(VICTIM)?;
                thread::sleep(time);
                region.restore(VICTIM)?;
            }
            Fault::Freeze(time) => {
                region.relay(VICTIM).freeze()?;
                thread::sleep(time);
                region.relay(VICTIM).thaw()?;
            }
            Fault::Kill(time) => {
                region.relay(VICTIM).kill()?;
                thread::sleep(time);
                region.relay(VICTIM).start()?;
            }
        }
        let fault_to = load.now();
        Ok(self.until_whole([from, fault_from, fault_to]))
    }

    /// Restarts the relays, one after the other. Clients move to the next relay, and come back when every
    /// pair talks.
    pub fn rolling_restart(&mut self) -> Result<Vec<Restart>> {
        (0..SIZE)
            .map(|relay| self.restart(relay).with_context(|| format!("restarting relay {}", relay + 1)))
            .collect()
    }

    fn restart(&mut self, relay: usize) -> Result<Restart> {
        let Self { region, load, .. } = self;
        load.roam(true);
        let from = load.now();
        thread::sleep(LEAD);
        let fault_from = load.now();
        let stopping = region.relay(relay).stop()?;
        let fault_to = load.now();
        region.relay(relay).start()?;
        region.wait_until_listening(relay)?;
        let away = self.until_whole([from, fault_from, fault_to]);
        let home_from = self.load.now();
        self.load.roam(false);
        let home = self.until_whole([home_from; 3]);
        Ok(Restart { relay, stopping, away, home })
    }

    /// The window that ends when every pair has talked for a while.
    fn until_whole(&self, [from, fault_from, fault_to]: [Nanos; 3]) -> Window {
        let whole = self.load.wait_whole(STEADY, PATIENCE);
        Window { from, fault_from, fault_to, to: self.load.now(), whole }
    }

    /// Ends the clients, and then the relays.
    pub fn finish(self) -> Result<Finished> {
        let Self { mut region, load, started } = self;
        let records = load.stop().with_context(|| region.logs())?;
        // It fails if a relay has ended by itself.
        for relay in 0..SIZE {
            region.relay(relay).stop().with_context(|| format!("relay {}", relay + 1))?;
        }
        Ok(Finished { records, started })
    }
}

impl Finished {
    /// Time from the start of the relays until every pair had talked.
    pub fn start_up(&self) -> Option<Duration> {
        let first = |pair| account::first_arrival(&self.records.0, pair);
        let last = pairs().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some(Duration::from_nanos(last.saturating_sub(self.started)))
    }

    /// The figures of the pairs for which `wanted` is true, in one window.
    pub fn figures(&self, window: &Window, wanted: impl Fn(&Pair) -> bool) -> Figures {
        let each = pairs().filter(wanted).map(|pair| account::figures(&self.records.0, pair, window));
        each.fold(Figures::default(), Figures::and)
    }
}
