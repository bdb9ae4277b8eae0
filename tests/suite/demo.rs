//! `cargo run --example demo`, the first command in README.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::tools::run;

/// The example as `cargo test` builds it, beside the program.
fn demo() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_s3proxy"));
    let path: PathBuf = program.with_file_name("examples").join("demo");
    assert!(path.exists(), "the example is not built; ./tests/run builds it");
    Command::new(path)
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_proves_itself_and_what_it_prints_can_be_pasted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let mut command = demo();
    command.args(["--port", "0", "--directory"]).arg(&data).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("the demo starts"));
    let stdout = child.0.stdout.take().expect("standard output is piped");
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let mut said = Vec::new();
    for line in lines.by_ref() {
        said.push(line);
        if said.last().is_some_and(|line| line.contains("Ctrl-C")) {
            break;
        }
    }
    let text = said.join("\n");
    assert!(text.contains("the same as in the file"), "{text}");
    assert!(text.contains("unsigned: 403"), "{text}");
    assert!(data.join("config.yaml").exists() && text.contains("config.yaml"), "{text}");

    let pasted = said.iter().find(|line| line.trim().starts_with("samtools view"));
    let pasted = pasted.unwrap_or_else(|| panic!("no command to paste: {text}"));
    let arguments: Vec<_> = pasted.split_whitespace().skip(1).collect();
    let over_the_proxy = run(directory.path(), "samtools", &arguments);
    let local = data.join("s3/genomics-lab/runs/demo.bam");
    let local = local.to_str().expect("a path in UTF-8");
    let region = arguments.last().expect("a region");
    assert!(over_the_proxy == run(directory.path(), "samtools", &["view", local, region]));
    assert!(!over_the_proxy.is_empty());
    let size = std::fs::metadata(local).expect("the large file").len();
    assert!((15_000_000..25_000_000).contains(&size), "{size} bytes are not about 20 MB");

    let url = pasted.split_whitespace().find_map(|word| word.strip_suffix("/runs/demo.bam"));
    let url = url.unwrap_or_else(|| panic!("no URL to paste: {text}"));
    for path in ["", "/", "/runs", "/runs/", "/runs/.", "/..", "/runs/demo.bam/", "/runs/no.bam"] {
        for method in ["GET", "HEAD"] {
            let target = format!("{url}{path}");
            let arguments = ["-sS", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}"];
            let head: &[&str] = if method == "HEAD" { &["-I"] } else { &[] };
            let status = run(directory.path(), "curl", &[&arguments, head, &[&target]].concat());
            assert_eq!(status.trim_ascii(), b"404", "{method} {target}");
        }
    }

    kill_process(Pid::from_child(&child.0), Signal::INT).expect("a running demo");
    assert_eq!(child.0.wait().expect("a child of ours").code(), Some(0));
}

#[test]
fn a_busy_port_is_one_line_with_a_hint() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a bound socket").port().to_string();
    let output = demo().args(["--port", &port]).output().expect("the demo runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains(&port) && stderr.contains("--port"), "{stderr}");
}
