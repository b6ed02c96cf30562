//! The kernel gives the element that a program has looked up to another session while the program reads it:
//! forced thousands of times, at every place of the copy. No foreign value is used.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use bytemuck::{bytes_of, pod_read_unaligned};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use relay_common::{
    fastpath::{LegEntry, SessionEntry, Tag},
    forward::SessionCopy,
};
use relay_ebpf::lab::{PREALLOCATED_BIT, REUSE, ReuseFound, ReuseTry, SIGNAL_GO, SIGNAL_HELD, map};
use relay_tests::{
    bpf::{Objects, load_object, load_program, loaded_program},
    skip,
};

const TRIES: u64 = 3_000;
/// The places at which the copy can be held: before each of its readings.
const PLACES: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(5);
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// The looked-up session, and the one that gets its element.
const OWN: u32 = 1;
const FOREIGN: u32 = 2;

type Value = [u8; size_of::<SessionEntry>()];

/// A binding of a session; every byte of its legs names it.
fn entry(vni: u32, generation: u32) -> SessionEntry {
    let byte = (vni << 4 | generation & 0xf) as u8;
    let tag = Tag { vni, generation };
    let leg = LegEntry {
        remote_ip: [byte; 16],
        local_ip: [byte; 16],
        remote_port: [byte; 2],
        local_port: [byte; 2],
        next_hop: u32::from_ne_bytes([byte; 4]),
    };
    SessionEntry {
        head: tag,
        expires_ns: u64::from_ne_bytes([byte; 8]),
        stats_slot: u32::from_ne_bytes([byte; 4]),
        reserved: u32::from_ne_bytes([byte; 4]),
        legs: [leg; 2],
        tail: tag,
    }
}

fn value(entry: &SessionEntry) -> Value {
    bytes_of(entry).try_into().expect("its size")
}

/// The bytes between the tags.
fn body(entry: &SessionEntry) -> &[u8] {
    &bytes_of(entry)[8..size_of::<SessionEntry>() - 8]
}

/// The lab's maps, from the side of the test.
struct Maps {
    sessions: HashMap<MapData, u32, Value>,
    tries: Array<MapData, [u8; size_of::<ReuseTry>()]>,
    signals: Array<MapData, u64>,
    found: Array<MapData, [u8; size_of::<ReuseFound>()]>,
}

impl Maps {
    fn take(ebpf: &mut Ebpf, sessions: &str) -> Result<Self> {
        let mut take = |name: &str| ebpf.take_map(name).with_context(|| format!("no map {name}"));
        Ok(Self {
            sessions: take(sessions)?.try_into()?,
            tries: take(map::REUSE)?.try_into()?,
            signals: take(map::SIGNALS)?.try_into()?,
            found: take(map::FOUND)?.try_into()?,
        })
    }
}

/// What all tries together gave.
#[derive(Debug, Default)]
struct Tally {
    forced: u64,
    foreign: u64,
    torn: u64,
    accepted_foreign: u64,
    accepted_own: u64,
}

fn pin_to(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Runs the program once for each request, on a CPU of its own; answers with the action.
fn runner(program: &Xdp, requests: &Receiver<()>, answers: &SyncSender<Result<u32>>) {
    let pinned = pin_to(1);
    while requests.recv().is_ok() {
        let frame = [0; 64];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::new() };
        let answer = match &pinned {
            Ok(()) => program.test_run(options).map(|result| result.return_value).map_err(Into::into),
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// One try: the program holds the element, the test gives it to another session, the program reads on.
fn force(maps: &mut Maps, number: u64, bit: u32, requests: &SyncSender<()>) -> Result<()> {
    let own = entry(OWN, 1);
    maps.sessions.insert(OWN, value(&own), 0)?;
    let place = u32::try_from(number % PLACES)? | bit;
    let wanted = ReuseTry { number, vni: OWN, place };
    maps.tries.set(0, <[u8; size_of::<ReuseTry>()]>::try_from(bytes_of(&wanted))?, 0)?;
    requests.send(())?;
    let until = Instant::now() + PATIENCE;
    while maps.signals.get(&SIGNAL_HELD, 0)? != number {
        ensure!(Instant::now() < until, "the program does not hold the element");
        std::hint::spin_loop();
    }
    if number.is_multiple_of(3) {
        // A rebind: the element is replaced, and the old one is used again.
        maps.sessions.insert(OWN, value(&entry(OWN, 2)), 0)?;
    } else {
        maps.sessions.remove(&OWN)?;
    }
    maps.sessions.insert(FOREIGN, value(&entry(FOREIGN, 1)), 0)?;
    if number.is_multiple_of(5) {
        // And once more: the same session again, in a later binding.
        maps.sessions.remove(&FOREIGN)?;
        maps.sessions.insert(OWN, value(&entry(OWN, 3)), 0)?;
    }
    maps.signals.set(SIGNAL_GO, number, 0)?;
    Ok(())
}

/// Judges what the program read, by the same comparison on the host.
fn note(tally: &mut Tally, found: &ReuseFound) {
    let own = entry(OWN, 1);
    let ReuseFound { tail_before, entry: read, head_after, .. } = *found;
    let copy = SessionCopy { tail_before, entry: read, head_after };
    let accepted = copy.is_of(OWN);
    assert_eq!(accepted, found.accepted == 1, "the program and the host compare alike");
    let other = body(&read).iter().filter(|byte| **byte != body(&own)[0]).count();
    let whole_later = body(&read) == body(&entry(OWN, read.head.generation)) && read.head.vni == OWN;
    tally.forced += 1;
    match (other > 0, accepted) {
        // All of it, tags and body, is one later binding of the looked-up session.
        (true, true) if whole_later => tally.accepted_own += 1,
        (true, _) => {
            tally.foreign += 1;
            tally.torn += u64::from(body(&read).iter().any(|byte| *byte != body(&read)[0]));
            tally.accepted_foreign += u64::from(accepted);
        }
        (false, true) => tally.accepted_own += 1,
        (false, false) => {}
    }
}

fn tries(objects: &Objects, sessions: &str, bit: u32) -> Result<Tally> {
    let mut ebpf = load_object(&objects.lab)?;
    load_program(&mut ebpf, REUSE)?;
    let mut maps = Maps::take(&mut ebpf, sessions)?;
    let program = loaded_program(&mut ebpf, REUSE)?;
    let ((requests, requested), (answers, answered)) = (sync_channel(1), sync_channel(1));
    thread::scope(|scope| {
        scope.spawn(|| runner(program, &{ requested }, &{ answers }));
        // Moved in, so that the runner ends with this closure, however it ends.
        let requests = requests;
        pin_to(0)?;
        let mut tally = Tally::default();
        for number in 1..=TRIES {
            force(&mut maps, number, bit, &requests)?;
            match answered.recv_timeout(PATIENCE).context("the program does not return")?? {
                XDP_PASS => {
                    let found: ReuseFound = pod_read_unaligned(&maps.found.get(&0, 0)?);
                    ensure!(found.number == number, "of another try");
                    note(&mut tally, &found);
                }
                // The test was too late: another process had its CPU.
                XDP_DROP => {}
                action => anyhow::bail!("the program returned {action}"),
            }
            for vni in [OWN, FOREIGN] {
                let _ = maps.sessions.remove(&vni);
            }
        }
        Ok(tally)
    })
}

#[test]
fn no_value_of_another_session_is_used_however_the_element_is_used_again() -> Result<()> {
    let test = "no_value_of_another_session_is_used_however_the_element_is_used_again";
    let objects = match Objects::find() {
        Ok(_) if thread::available_parallelism()?.get() < 2 => {
            skip(test, "needs two CPUs");
            return Ok(());
        }
        Ok(objects) => objects,
        Err(reason) => {
            skip(test, &reason);
            return Ok(());
        }
    };
    for (name, sessions, bit) in [
        ("allocated one by one", map::SESSIONS, 0),
        ("allocated beforehand", map::PREALLOCATED, PREALLOCATED_BIT),
    ] {
        let tally = tries(&objects, sessions, bit)?;
        let Tally { forced, foreign, torn, accepted_foreign, accepted_own } = tally;
        println!(
            "elements {name}: {TRIES} tries, {forced} forced; {foreign} copies of another session or binding, \
             {torn} of them torn. Without comparing, {foreign} are used; compared, {accepted_foreign}. \
             {accepted_own} own copies were used."
        );
        assert_eq!(accepted_foreign, 0, "elements {name}");
        assert!(foreign > 0, "elements {name}: nothing was forced, so nothing is shown");
    }
    Ok(())
}
