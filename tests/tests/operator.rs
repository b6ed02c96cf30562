//! An operator's questions to a daemon and their answers: lists that fit a screen, filters, totals, advice,
//! and an admin socket that answers whatever its other clients do.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand_core::OsRng;
use relay_common::{
    derp::{
        info::{AppName, ClientInfo},
        login,
    },
    key::{DiscoPrivate, NodePrivate},
};
use relay_tests::{
    admin::Refused,
    client::{Client, Greeted, Start, login::nonce},
    daemon::{Daemon, Setup, binary, run_relayd},
    process::until,
    topology::{CLIENT_PORTS, Lab},
};

/// Longer than a client of the admin socket may stay silent.
const CUT: Duration = Duration::from_secs(15);

#[test]
fn clients_have_units_protocol_and_app_and_are_found_by_each() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let mut plain = Client::connect(&daemon.dial(Start::Fast)?)?;
    let key = NodePrivate::generate(&mut OsRng);
    let mut named = Greeted::normal(&daemon.dial(Start::Normal)?)?;
    let info = ClientInfo { app_name: AppName::new("Probe-7")?, ..ClientInfo::stock() };
    let frame = login::client_info_frame(&key, &named.server, &info, nonce()).context("a good key")?;
    named.wire.write(&frame)?;
    named.wire.frame().context("ServerInfo")?;
    plain.send(&key.public(), &[7; 1500])?;
    daemon.wait("the packet to be sent", |status| status["counters"]["packets_sent"] == 1)?;

    let all = ask(&daemon, &["clients"])?;
    for part in
        ["tls1.3", "Probe-7", "1 pkts", "1.50 kB", "2 clients: 1 pkts in, 1.50 kB; 1 pkts out, 1.50 kB"]
    {
        assert!(all.contains(part), "no {part:?} in:\n{all}");
    }
    // The printed form of a key can be used as a filter.
    let printed = all.lines().nth(1).and_then(|line| line.split(' ').next()).context("a key")?;
    assert_eq!(ask(&daemon, &["clients", printed])?.lines().count(), 3, "heading, client, totals");
    let by_app = ask(&daemon, &["clients", "app:probe"])?;
    assert!(by_app.contains("1 client:") && by_app.contains(&key.public().to_string()[..20]), "{by_app}");
    assert!(ask(&daemon, &["clients", "192.0.2.1"])?.starts_with("0 clients"));
    let json = ask(&daemon, &["clients", "--json", &plain.key().to_string()])?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!(json[0]["key"], plain.key().to_string());
    assert_eq!((&json[0]["protocol"], &json[1]), (&"tls1.3".into(), &serde_json::Value::Null));
    Ok(())
}

#[test]
fn sessions_fit_a_screen_and_say_what_was_left_out() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    for _ in 0..25 {
        let pair = [(); 2].map(|()| DiscoPrivate::generate(&mut OsRng).public());
        daemon.admin().allocate(pair)?;
    }
    let shown = ask(&daemon, &["sessions"])?;
    assert_eq!(shown.lines().count(), 1 + 2 * 10 + 1, "{shown}");
    assert!(shown.contains("25 sessions") && shown.contains("15 not shown (--limit 0"), "{shown}");
    assert_eq!(ask(&daemon, &["sessions", "--limit", "0"])?.lines().count(), 1 + 2 * 25 + 1);
    let one = ask(&daemon, &["sessions", "7"])?;
    assert!(one.contains("\n  7  connecting") && one.contains("1 session,"), "{one}");
    let list = daemon.admin().get("/v1/sessions?limit=3")?;
    assert_eq!(list.as_array().map(Vec::len), Some(3));
    assert_eq!(daemon.admin().get("/v1/sessions")?.as_array().map(Vec::len), Some(25), "no limit: all");
    let key = list[2]["legs"][1]["client"].as_str().context("a key")?;
    assert_eq!(daemon.admin().get(&format!("/v1/sessions?filter={key}"))?[0]["vni"], list[2]["vni"]);
    let refused =
        daemon.admin().get("/v1/sessions?filter=vni:x").expect_err("no VNI").downcast::<Refused>()?;
    assert!(refused.status.as_u16() == 400 && refused.error.contains("discokey:"), "{refused}");
    Ok(())
}

#[test]
fn status_hides_what_is_zero_until_asked() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let _client = Client::connect(&daemon.dial(Start::Fast)?)?;
    let text = ask(&daemon, &["status"])?;
    assert!(text.contains("\nLOGINS\nlogins") && !text.contains("login_bad_box"), "{text}");
    assert!(text.contains("1 client on 1 of 1 worker, key nodekey:"), "{text}");
    let all = ask(&daemon, &["status", "--all"])?;
    assert!(all.contains("login_bad_box"), "{all}");
    let json: serde_json::Value = serde_json::from_str(&ask(&daemon, &["status", "--json"])?)?;
    assert_eq!(json["counters"]["login_bad_box"], 0, "JSON is complete");
    Ok(())
}

#[test]
fn what_cannot_be_asked_is_said_with_the_remedy() -> Result<()> {
    let mut daemon = Daemon::start(Setup::loopback())?;
    let off = ask(&daemon, &["xdp", "off"]).expect_err("no XDP").to_string();
    assert!(off.contains("--xdp IFACE") && off.contains("--relay-server-port"), "{off}");
    let refused = daemon.admin().get("/v1/nothing").expect_err("no such path").downcast::<Refused>()?;
    assert!(refused.error.contains("/v1/sessions"), "{refused}");
    daemon.kill()?;
    let dead = ask(&daemon, &["status"]).expect_err("nobody there").to_string();
    assert!(dead.contains("killed") && dead.contains("start it again"), "{dead}");
    let file = ["status", "--admin-socket", "/proc/version"];
    let file = run_relayd(&file).expect_err("a file").to_string();
    assert!(file.contains("not a socket") && file.contains("--admin-socket"), "{file}");
    let absent = run_relayd(&["status", "--admin-socket", "/nonexistent/admin.sock"]).expect_err("absent");
    assert!(absent.to_string().contains("no relayd runs"), "{absent}");
    Ok(())
}

#[test]
fn who_asks_nothing_is_cut_and_holds_nobody_up() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let path = daemon.admin().path();
    // More connections than are served at once, so that the next question waits until the first of them is
    // closed.
    let idle = (0..40).map(|_| UnixStream::connect(path)).collect::<Result<Vec<_>, _>>()?;
    let mut half = UnixStream::connect(path)?;
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHost: rel")?;
    ask(&daemon, &["status"])?;
    for mut stream in idle.into_iter().chain([half]) {
        stream.set_read_timeout(Some(CUT))?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).context("cut, not held")?;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
    Ok(())
}

#[test]
fn the_socket_has_a_thread_of_its_own() -> Result<()> {
    let daemon = Daemon::start(Setup::loopback())?;
    let process = procfs::process::Process::new(daemon.pid().cast_signed())?;
    let names = process.tasks()?.map(|task| Ok(task?.stat()?.comm)).collect::<Result<Vec<_>>>()?;
    assert!(names.iter().any(|name| name == "relayd-admin"), "{names:?}");
    Ok(())
}

#[test]
fn of_daemons_that_start_together_one_gets_the_socket_and_keeps_it() -> Result<()> {
    const TOGETHER: usize = 8;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("admin.sock");
    let socket = path.to_string_lossy().into_owned();
    (0..10).try_for_each(|round| -> Result<()> {
        if !path.exists() {
            // The socket that a killed daemon leaves behind; later rounds find that of the earlier winner.
            drop(UnixListener::bind(&path)?);
        }
        let mut started = Group((0..TOGETHER).map(|_| start(&socket)).collect::<Result<_>>()?);
        let outcome = until("all but one to be refused", || Ok(started.running()? == 1));
        outcome.with_context(|| format!("round {round}"))?;
        // The others are refused as soon as it has the lock; it listens a moment later.
        let serves = || Ok(run_relayd(&["status", "--admin-socket", &socket]).is_ok());
        until("the winner to serve", serves).with_context(|| format!("round {round}"))?;
        ensure!(started.running()? == 1, "round {round}: the winner has ended");
        for said in started.refusals()? {
            ensure!(said.contains("--admin-socket") && said.contains("another relayd"), "{said}");
        }
        Ok(())
    })
}

#[test]
fn the_switch_says_what_is_now_the_case_and_inspect_fits_a_screen() -> Result<()> {
    let test = "the_switch_says_what_is_now_the_case_and_inspect_fits_a_screen";
    let Some(lab) = Lab::or_skip(test)? else { return Ok(()) };
    let daemon = Daemon::start(lab.setup_xdp())?;
    let clients = lab.bound_session(&daemon, CLIENT_PORTS)?;
    let off = ask(&daemon, &["xdp", "off"])?;
    assert!(off.contains("turned off") && off.contains("relayd xdp on"), "{off}");
    assert!(ask(&daemon, &["xdp", "on"])?.starts_with("XDP: forwarding; native mode on"), "on again");
    let (vni, local) = (clients[0].endpoint.vni.to_string(), clients[0].local()?.to_string());
    for filter in [&vni, &local] {
        let text = run_relayd(&["inspect", filter, "--bpf-dir", &daemon.bpf_dir().to_string_lossy()])?;
        assert!(text.contains(&local) && text.contains(&format!("process {}", daemon.pid())), "{text}");
        assert_eq!(text.lines().count(), 6, "path, daemon, count, heading, two legs:\n{text}");
    }
    Ok(())
}

/// Daemons that are killed when the value is dropped.
struct Group(Vec<Child>);

impl Group {
    fn running(&mut self) -> Result<usize> {
        self.0.iter_mut().try_fold(0, |running, child| Ok(running + usize::from(child.try_wait()?.is_none())))
    }

    /// The output of the daemons that have ended.
    fn refusals(&mut self) -> Result<Vec<String>> {
        let mut said = Vec::new();
        for child in &mut self.0 {
            if child.try_wait()?.is_some() {
                let mut text = String::new();
                child.stderr.take().context("a pipe")?.read_to_string(&mut text)?;
                said.push(text);
            }
        }
        Ok(said)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // Like kill -9, this leaves the socket behind for the next round.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn start(socket: &str) -> Result<Child> {
    let mut command = Command::new(binary()?);
    command.args(["-dev", "-a", "127.0.0.1:0", "-stun=false", "--admin-socket", socket]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?)
}

/// Runs a subcommand against the daemon's socket, with a time limit.
fn ask(daemon: &Daemon, args: &[&str]) -> Result<String> {
    let begun = Instant::now();
    let socket = daemon.admin().path().to_string_lossy().into_owned();
    let answer = run_relayd(&[args, &["--admin-socket", &socket]].concat());
    ensure!(begun.elapsed() < CUT, "relayd {} took {:?}", args.join(" "), begun.elapsed());
    answer
}
