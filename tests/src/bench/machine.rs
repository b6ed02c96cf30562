//! Facts about the machine, which a reader needs to judge a figure.

use std::fs;
use std::process::Command;
use std::thread;

use procfs::{CpuInfo, Current as _, LoadAverage, Meminfo};

/// The report's facts about the machine: name and value.
pub fn facts() -> Vec<(&'static str, String)> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = CpuInfo::current().ok();
    let processor = processor.and_then(|info| info.model_name(0).map(str::to_owned)).unwrap_or_default();
    let memory = Meminfo::current().map(|memory| format!("{} kB", memory.mem_total / 1024));
    let mut facts = vec![
        ("processor", processor),
        ("cores", cores.to_string()),
        ("memory", memory.unwrap_or_default()),
        ("kernel", fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()),
        ("rustc", output("rustc", &["--version"])),
        ("go", output("go", &["version"])),
    ];
    facts.retain(|(_, value)| !value.is_empty());
    facts
}

/// Load average of the last minute at the start of the run; it shows other work on the machine.
pub fn load_average() -> Option<f64> {
    LoadAverage::current().ok().map(|load| (f64::from(load.one) * 100.0).round() / 100.0)
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
