//! The command line and the exit codes.

#![expect(clippy::doc_markdown, reason = "these comments are the text of --help")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config;

/// The run ended without errors.
pub(crate) const EXIT_OK: u8 = 0;
/// The run failed, or `--check` found something that does not work.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The configuration has mistakes (`EX_CONFIG` of sysexits.h).
pub(crate) const EXIT_CONFIG: u8 = 78;

const AFTER_HELP: &str = "\
Example:
  Write config.yaml:
      bucket_name: my-bucket
      endpoint: http://minio.example.org:9000
      AWS_ACCESS_KEY_ID: ...
      AWS_SECRET_ACCESS_KEY: ...
  Then start the proxy, and read from another terminal:
      s3proxy
      samtools view http://127.0.0.1:5000/files/runs/a.bam chr1:1,000,000-1,010,000

config.example.yaml documents every key of the configuration. Each can also be set in the
environment (S3PROXY_LISTEN, S3PROXY_BUCKET_NAME, ...). Flags override the environment, the
environment overrides the file.

Exit codes:
  0   success
  1   the run failed, downloads were cut at the end of drain_timeout, or --check found a problem
  2   the command line is invalid
  78  the configuration has mistakes; each is printed on its own line";

/// `--help` lists the keys of the configuration too, `-h` does not.
fn long_help() -> String {
    format!("{AFTER_HELP}\n\nKeys of the configuration and their defaults:\n{}", config::summary())
}

/// Serves private S3 objects under plain URLs, read-only.
///
/// An object `runs/a.bam` of the configured bucket becomes
/// http://127.0.0.1:5000/files/runs/a.bam, with ranges, for samtools, IGV, JBrowse and other
/// programs that read over HTTP but cannot sign requests.
#[derive(Clone, Debug, Parser)]
#[command(name = "s3proxy", version, after_help = AFTER_HELP, after_long_help = long_help())]
pub(crate) struct Flags {
    #[command(subcommand)]
    command: Option<Command>,

    /// The configuration file [default: config.yaml]
    #[arg(short, long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Listen on this address instead of the configured ones; may be given several times
    ///
    /// An address and a port (127.0.0.1:5000, [::1]:5000; port 0 is any free one), or a Unix socket
    /// (unix:/run/s3proxy.sock).
    #[arg(long, value_name = "ADDR", global = true)]
    pub listen: Vec<String>,

    /// Worker threads: 'auto' is one per usable core
    #[arg(long, value_name = "N", global = true)]
    pub workers: Option<String>,

    /// Event loop: auto, io_uring or epoll
    #[arg(long, value_name = "DRIVER", global = true)]
    pub driver: Option<String>,

    /// Least severe level to log: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log_level: Option<String>,

    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE", global = true)]
    pub log_file: Option<String>,

    /// Short for --log-level debug
    #[arg(long, global = true, conflicts_with = "log_level")]
    pub debug: bool,

    /// Check the configuration and access to each bucket, print the results, and exit
    ///
    /// OBJECT is read as a test: a path or URL as a client requests it (/files/runs/a.bam),
    /// s3://BUCKET/KEY, or just the key if there is only one mount.
    #[arg(long, global = true, value_name = "OBJECT", num_args = 0..=1)]
    pub check: Option<Option<String>>,
}

/// A subcommand; the only one is the default.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT (the default)
    Serve,
}

impl Flags {
    /// Parses a command line, which starts with the program's name.
    ///
    /// # Errors
    /// From clap, also for `--help` and `--version`, whose exit code is 0.
    pub(crate) fn from_args<A>(args: impl IntoIterator<Item = A>) -> Result<Flags, clap::Error>
    where
        A: Into<std::ffi::OsString> + Clone,
    {
        let mut flags = Flags::try_parse_from(args)?;
        // In `s3proxy --check serve` the word is the subcommand, not an object.
        if flags.command.is_none() && matches!(&flags.check, Some(Some(word)) if word == "serve") {
            flags.check = Some(None);
        }
        Ok(flags)
    }

    /// The flags that override keys of the configuration.
    pub(crate) fn overrides(&self) -> config::Overrides {
        let debug = self.debug.then(|| "debug".to_owned());
        config::Overrides {
            listen: self.listen.clone(),
            workers: self.workers.clone(),
            driver: self.driver.clone(),
            log_level: self.log_level.clone().or(debug),
            log_file: self.log_file.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    /// clap's own exit code for usage errors.
    const EXIT_USAGE: u8 = 2;

    fn flags(line: &str) -> Flags {
        Flags::from_args(line.split(' ')).unwrap()
    }

    fn refused(line: &str) -> clap::Error {
        Flags::from_args(line.split(' ')).unwrap_err()
    }

    #[test]
    fn the_definition_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn serve_is_optional_and_flags_may_precede_or_follow_it() {
        for line in ["s3proxy -c x.yaml --check", "s3proxy serve -c x.yaml --check"] {
            assert_eq!(flags(line).config, Some(PathBuf::from("x.yaml")));
            assert_eq!(flags(line).check, Some(None));
        }
        assert_eq!(flags("s3proxy --check serve").check, Some(None));
        assert_eq!(flags("s3proxy --check -c x.yaml").check, Some(None));
        assert_eq!(flags("s3proxy serve --check a.bam").check, Some(Some("a.bam".to_owned())));
        assert_eq!(flags("s3proxy").check, None);
        assert_eq!(flags("s3proxy --config x.yaml serve").config, Some(PathBuf::from("x.yaml")));
        assert_eq!(flags("s3proxy").overrides(), config::Overrides::default());
    }

    #[test]
    fn flags_become_overrides_as_typed() {
        let line = "s3proxy --listen 127.0.0.1:0 --listen unix:/s --workers 2 --driver epoll \
                    --log-level warn --log-file /l";
        assert_eq!(
            flags(line).overrides(),
            config::Overrides {
                listen: vec!["127.0.0.1:0".to_owned(), "unix:/s".to_owned()],
                workers: Some("2".to_owned()),
                driver: Some("epoll".to_owned()),
                log_level: Some("warn".to_owned()),
                log_file: Some("/l".to_owned()),
            }
        );
        assert_eq!(flags("s3proxy --debug").overrides().log_level.as_deref(), Some("debug"));
    }

    #[test]
    fn an_invalid_command_line_exits_with_2() {
        for line in ["s3proxy --lisen x", "s3proxy sing", "s3proxy --debug --log-level info"] {
            assert_eq!(refused(line).exit_code(), i32::from(EXIT_USAGE), "{line}");
        }
    }

    #[test]
    fn help_has_an_example_and_the_exit_codes() {
        let help = refused("s3proxy --help");
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        let help = help.to_string();
        for part in ["--listen <ADDR>", "samtools view http://", "config.example.yaml"] {
            assert!(help.contains(part), "{part}");
        }
        for code in [EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG] {
            assert!(help.contains(&format!("\n  {code} ")), "{code}");
        }
        assert_eq!(refused("s3proxy --version").to_string(), "s3proxy 0.1.0\n");
    }
}
