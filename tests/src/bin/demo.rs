//! `cargo xtask demo`: sends packets over every path of a real relay. See `relay_tests::demo`.

use std::process::ExitCode;

use relay_tests::demo;

const USAGE: &str = "usage: demo [--keep]
  --keep  leave the lab running with traffic in it, until Ctrl-C, and print commands to look around";

fn main() -> ExitCode {
    let keep = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match demo::run(keep) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
