//! igv.js in Chromium with its cache: a replaced object is requested again when the page is
//! reloaded.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::genomics::write_bam;
use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Driver, proxy_over};
use crate::support::tools::run;

both_drivers!(
    #[ignore = "needs Chromium and the packages of tests/browser, which ./tests/run installs"]
    a_replaced_bam_is_read_anew_when_the_page_is_reloaded,
);

const LOCUS: &str = "chr1:1000000-1010000";

/// A page with igv.js in it.
struct Page {
    browser: Child,
    reload: Option<ChildStdin>,
    shown: BufReader<ChildStdout>,
}

impl Page {
    fn open(profile: &std::path::Path, url: &str) -> Page {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/igv.mjs");
        let mut browser = Command::new("node")
            .args([script, &profile.display().to_string(), url, LOCUS])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let reload = browser.stdin.take();
        let shown = BufReader::new(browser.stdout.take().expect("standard output is piped"));
        Page { browser, reload, shown }
    }

    /// How many reads are shown, and the name of the first.
    fn shown(&mut self) -> String {
        let mut line = String::new();
        self.shown.read_line(&mut line).expect("a line of text");
        line.trim_end().to_owned()
    }

    fn reload(&mut self) {
        let reload = self.reload.as_mut().expect("not closed yet");
        reload.write_all(b"\n").expect("the browser runs");
    }
}

/// The script closes the browser when its input ends.
impl Drop for Page {
    fn drop(&mut self) {
        self.reload = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.browser.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // It has exited already, unless the browser hangs.
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

fn a_replaced_bam_is_read_anew_when_the_page_is_reloaded(driver: Driver) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let s3 = TestS3::start();
    // The store's objects are years old, so that a browser may invent a lifetime of months.
    let store = |reads: usize| {
        let path = directory.path().join("reads.bam");
        write_bam(&path, reads).expect("a BAM");
        let listed = run(directory.path(), "samtools", &["view", "reads.bam", LOCUS]);
        let listed = String::from_utf8(listed).expect("text");
        let name = listed.split('\t').next().unwrap_or_default();
        for name in ["reads.bam", "reads.bam.bai"] {
            let bytes = fs::read(directory.path().join(name)).expect("a file made before");
            s3.put(name, Object::new(bytes));
        }
        format!("{} {name}", listed.lines().count())
    };
    let first = store(10_000);
    let proxy = proxy_over(driver, &s3);
    let profile = directory.path().join("profile");
    let mut page = Page::open(&profile, &proxy.url_of("/files/reads.bam"));
    assert_eq!(page.shown(), first);
    let replaced = store(20_000);
    assert_ne!(replaced, first);
    s3.server.forget();
    page.reload();
    assert_eq!(page.shown(), replaced);
    let whole = s3.server.requests().into_iter().filter(|seen| {
        let is_bam = seen.target.ends_with("/reads.bam") && seen.method == "GET";
        is_bam && seen.field(hyper::header::RANGE).is_none()
    });
    assert_eq!(whole.count(), 0, "the whole BAM was requested");
}
