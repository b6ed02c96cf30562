//! Facts about the machine, which a reader needs to judge a figure.

use std::fs;
use std::process::Command;
use std::thread;

/// The report's facts about the machine: name and value.
pub fn facts() -> Vec<(&'static str, String)> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let mut facts = vec![
        ("processor", field("/proc/cpuinfo", "model name")),
        ("cores", cores.to_string()),
        ("memory", field("/proc/meminfo", "MemTotal")),
        ("kernel", line("/proc/sys/kernel/osrelease")),
        ("rustc", output("rustc", &["--version"])),
        ("go", output("go", &["version"])),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// Load average of the last minute at the start of the run; it shows other work on the machine.
pub fn load_average() -> Option<f64> {
    line("/proc/loadavg").split(' ').next()?.parse().ok()
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
    value.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
