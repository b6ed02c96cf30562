//! derper's command lines as operators use them, and relayd's errors for those that it does not accept.

use std::{ffi::OsString, fs, path::Path, process::Command};

use anyhow::{Context as _, Result};
use relay_tests::{
    bare::{Bare, address, dial, plain, refused},
    client::Client,
    daemon::{binary, run_relayd},
    skip,
};
use tempfile::tempdir;

/// Every derper flag that relayd lacks, with a value that has no effect.
const IDLE: &[&str] = &[
    "-accept-connection-burst=9223372036854775807",
    "-accept-connection-limit=+Inf",
    "-ace=false",
    "-acme-eab-key=",
    "-acme-eab-kid",
    "",
    "-acme-email=",
    "-acme-ip-certs=F",
    "-bootstrap-dns-names=",
    "-derp=true",
    "-derp",
    "-disallow-app-names=",
    "-home=",
    "-rate-config=",
    "-secrets-cache-dir=derper-secrets",
    "-secrets-path-prefix=prod/derp",
    "-secrets-url=",
    "-socket=",
    "-unpublished-bootstrap-dns-names=",
    "-verify-client-url=",
    "-verify-client-url-fail-open=true",
    "-verify-clients",
    "-verify-clients=false",
    "-version=false",
];

#[test]
fn flags_at_the_value_at_which_they_do_nothing_are_taken() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let mut args = plain(dir.path(), ip);
    args.extend(IDLE.iter().map(Into::into));
    let _daemon = Bare::logging(dir.path(), &args, "info")?;
    Client::pair(&dial(ip))?;
    Ok(())
}

#[test]
fn gos_spellings_are_taken_and_the_last_of_a_flag_counts() -> Result<()> {
    let (dir, ip) = (tempdir()?, address());
    let mut args = plain(dir.path(), ip);
    let more = [
        "-dev=T",
        "-dev=false",
        "-stun=t",
        "-stun=0",
        "-hostname=a",
        "-hostname",
        "b",
        "-http-port",
        "-2",
        "-stun-port=0xd96",
        "-tcp-write-timeout",
        "2000ms",
        "-certdir=",
    ];
    args.extend(more.map(Into::into));
    let daemon = Bare::logging(dir.path(), &args, "info")?;
    Client::pair(&dial(ip))?;
    assert!(daemon.stop()?);
    let log = fs::read_to_string(dir.path().join("log"))?;
    assert!(!log.contains("STUN"), "the last -stun is false: {log}");
    args.extend(["-stun=T", "-stun-port=0"].map(Into::into));
    assert!(Bare::logging(dir.path(), &args, "info")?.stop()?);
    let log = fs::read_to_string(dir.path().join("log"))?;
    assert!(log.contains("what=STUN"), "the last -stun is true: {log}");
    Ok(())
}

#[test]
fn the_listen_address_may_be_a_name() -> Result<()> {
    let dir = tempdir()?;
    let mut args = plain(dir.path(), address());
    args.push("-a=localhost:0".into());
    assert!(Bare::logging(dir.path(), &args, "info")?.stop()?);
    let log = fs::read_to_string(dir.path().join("log"))?;
    assert!(log.contains("listening addr=127.0.0.1:"), "{log}");
    Ok(())
}

#[test]
fn every_keepalive_time_of_derpers_is_taken() -> Result<()> {
    for time in ["0", "-1s", "1ms", "24h", "32767s"] {
        let (dir, ip) = (tempdir()?, address());
        let mut args = plain(dir.path(), ip);
        args.extend(["-tcp-keepalive-time", time].map(Into::into));
        let _daemon = Bare::logging(dir.path(), &args, "info").with_context(|| time.to_owned())?;
        Client::pair(&dial(ip)).with_context(|| time.to_owned())?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_taken_is_refused_with_flag_and_remedy() -> Result<()> {
    let cases: &[(&[&str], &[&str])] = &[
        (&["-stun", "false"], &["-stun=false"]),
        (&["-verify-clients"], &["-verify-clients", "leave it out"]),
        (&["-secrets-url", "https://a"], &["-secrets-url", "-mesh-psk-file"]),
        (&["-ace"], &["-ace", "leave it out"]),
        (&["-dev", "-mesh-with", "a/b/c"], &["-mesh-with", "a/b/c", "HOST/ADDRESS"]),
        (&["-dev", "-mesh-with", "a"], &["-mesh-with needs", "-mesh-psk-file", "openssl rand -hex 32"]),
        (&["-dev", "-mesh-psk-file", "/nowhere"], &["/nowhere", "-mesh-psk-file", "readable"]),
        (&["-dev", "-mesh-psk-file", "/dev/null"], &["/dev/null", "64 hex digits", "openssl rand -hex 32"]),
        (&["-dev", "--mesh-pin", "a=sha256-raw:00"], &["--mesh-pin", "\"a\"", "-mesh-with"]),
        (&["-http-port", "70000"], &["-http-port", "-1 turns it off"]),
        (&["--busy-pause", "2ms"], &["--busy-pause", "1ms at most"]),
        (&["-tcp-user-timeout", "600h"], &["-tcp-user-timeout", "0s"]),
        (&["-a", "::1:443"], &["-a ", "[IPV6]:PORT"]),
        (
            &["-a", "192.0.2.250:1024", "-dev", "-c", ""],
            &["192.0.2.250:1024 (-a)", "is it an address of this machine"],
        ),
        (&["-certdri", "/x"], &["-certdri", "'-certdir'"]),
        (&["-dev", "status"], &["relayd status"]),
    ];
    for (args, words) in cases {
        let said = refused(args, None).with_context(|| format!("{args:?}"))?;
        for word in *words {
            assert!(said.contains(word), "{args:?}: {said}");
        }
        for wrong in ["--a ", "--c ", "--stun", "--certdir", "--http-port"] {
            assert!(!said.contains(wrong), "{args:?}: {said}");
        }
    }
    Ok(())
}

#[test]
fn help_and_version_are_answers() -> Result<()> {
    for args in [["help"].as_slice(), &["-h"], &["--help"], &["-help"]] {
        let help = run_relayd(args)?;
        assert!(help.contains(" -a <ADDR>") && help.contains("--xdp <IFACE>"), "{help}");
        assert!(!help.contains("--a <") && !help.contains("--c <"), "{help}");
    }
    assert!(run_relayd(&["help", "status"])?.contains("--json"));
    for args in [["-version"], ["--version"], ["-V"]] {
        let version = run_relayd(&args)?;
        let commit = version.split("commit ").nth(1).context("no commit")?;
        let commit: String = commit.chars().take_while(char::is_ascii_alphanumeric).collect();
        let is_hex = commit.len() == 12 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(is_hex || commit == "unknown", "{version}");
    }
    Ok(())
}

#[test]
fn a_command_line_that_is_refused_leaves_nothing_behind() -> Result<()> {
    let cases: &[&[&str]] = &[
        &["-dev", "-a", "nonsense"],
        &["-dev", "-a", "192.0.2.250:1024"],
        &["-dev", "-a", "127.0.0.1:0", "--relay-server-port", "0", "--xdp", "no-such-if0"],
        &["-a", "127.0.0.1:0", "-certmode", "manual", "-hostname", "relay.example"],
        &["-a", "127.0.0.1:443", "-certmode", "letsencrypt"],
        &["-dev", "-http-port", "70000"],
    ];
    for more in cases {
        let dir = tempdir()?;
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut args: Vec<_> = more.iter().map(|arg| arg.to_string()).collect();
        args.extend(["-stun=false".to_owned(), "-certdir".to_owned(), dir.path().display().to_string()]);
        args.extend(["-c".to_owned(), path("derper.key"), "--admin-socket".to_owned(), path("admin.sock")]);
        refused(&args, None).with_context(|| format!("{more:?}"))?;
        assert_eq!(names(dir.path())?, [""; 0], "{more:?}");
    }
    Ok(())
}

/// Makes a full file system with one file that fills it, and lists what a daemon leaves there.
const FULL_DISK: &str = r#"
mount -t tmpfs -o size=16k tmpfs "$1" || exit 77
head -c 1000000 /dev/zero > "$1/full" 2>/dev/null
"$2" -dev -a "$3" -stun=false -c "$1/derper.key" --admin-socket "$1/admin.sock"
echo "status $?"
ls -A "$1"
"#;

#[test]
fn a_full_disk_is_named_and_nothing_is_left_on_it() -> Result<()> {
    const NAME: &str = "a_full_disk_is_named_and_nothing_is_left_on_it";
    let dir = tempdir()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "timeout", "-s", "KILL", "30", "sh", "-c", FULL_DISK, "sh"]);
    command.arg(dir.path()).arg(binary()?).arg(format!("{}:0", address()));
    let output = match command.output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(NAME, &format!("no mount namespace with a tmpfs: {said}"));
            return Ok(());
        }
        Err(error) => {
            skip(NAME, &format!("no unshare: {error}"));
            return Ok(());
        }
    };
    let (out, said) =
        (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!(out, "status 1\nfull\n", "{said}");
    assert!(said.contains("derper.key (-c)") && said.contains("No space left"), "{said}");
    assert!(said.contains("free space"), "{said}");
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[test]
fn a_mark_that_may_not_be_set_is_refused_with_its_flag_and_the_right_it_needs() -> Result<()> {
    let test = "a_mark_that_may_not_be_set_is_refused_with_its_flag_and_the_right_it_needs";
    let dir = tempdir()?;
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin,-net_raw"]).arg(binary()?).args(["-dev", "-a=127.0.0.1:0"]);
    command.args(["-stun=false", "--relay-server-port=0", "--relay-server-mark=0x80000", "--admin-socket"]);
    let Ok(output) = command.arg(dir.path().join("admin.sock")).output() else {
        skip(test, "no setpriv here");
        return Ok(());
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("setpriv:") {
        skip(test, &said);
        return Ok(());
    }
    assert!(!output.status.success(), "{said}");
    for word in ["--relay-server-mark", "0x80000", "CAP_NET_ADMIN"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    Ok(())
}
