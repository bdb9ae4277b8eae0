//! samtools and other programs over the proxy, each compared with itself on the local file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::support::genomics::{write_bam, write_vcf};
use crate::support::memory_store::TestS3;
use crate::support::object::Object;
use crate::support::proxy::{Driver, Proxy, proxy_over};
use crate::support::tools::{run, run_any};

both_drivers!(
    samtools_view_finds_regions,
    samtools_reads_the_whole_file,
    samtools_quickcheck_and_idxstats,
    bcftools_and_tabix_find_regions,
    clients_at_the_same_time_do_not_disturb_one_another,
    curl_gets_every_form_of_range,
    curl_resumes_and_sees_what_changed,
);

/// The files, made once for all tests of this run.
fn files() -> &'static Path {
    static FILES: OnceLock<TempDir> = OnceLock::new();
    let directory = FILES.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        write_bam(&directory.path().join("reads.bam"), 30_000).expect("a BAM");
        write_vcf(&directory.path().join("calls.vcf.gz"), 2_000).expect("a VCF");
        directory
    });
    directory.path()
}

/// A proxy over the files, and an empty directory to run clients in: htslib stores indexes there.
struct Lab {
    _s3: TestS3,
    proxy: Proxy,
    directory: TempDir,
}

impl Lab {
    fn open(driver: Driver) -> Lab {
        let s3 = TestS3::start();
        for name in ["reads.bam", "reads.bam.bai", "calls.vcf.gz", "calls.vcf.gz.tbi"] {
            let bytes = fs::read(files().join(name)).expect("a file made before");
            s3.put(&format!("run 7/{name}"), Object::new(bytes));
        }
        let proxy = proxy_over(driver, &s3);
        Lab { _s3: s3, proxy, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    fn url(&self, name: &str) -> String {
        self.proxy.url_of(&format!("/files/run%207/{name}"))
    }

    /// Runs `program` twice, once with `FILE` replaced by the local file and once by its URL, and
    /// asserts that both print the same, which is returned.
    #[track_caller]
    fn same(&self, file: &str, program: &str, arguments: &[&str]) -> Vec<u8> {
        let with = |name: &str| -> Vec<String> {
            arguments.iter().map(|argument| argument.replace("FILE", name)).collect()
        };
        let of_here = run_with(files(), program, &with(file));
        let of_there = run_with(self.directory.path(), program, &with(&self.url(file)));
        assert!(of_here == of_there, "{program} {arguments:?} differs over the proxy");
        of_there
    }
}

#[track_caller]
fn run_with(directory: &Path, program: &str, arguments: &[String]) -> Vec<u8> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(directory, program, &arguments)
}

fn samtools_view_finds_regions(driver: Driver) {
    let lab = Lab::open(driver);
    for region in
        ["chr1:1-20000", "chr1:5000000-5010000", "chr2:8990000-9000000", "chr3", "chrX:2990000-"]
    {
        let arguments = ["view", "--no-PG", "-h", "FILE", region];
        let records = lab.same("reads.bam", "samtools", &arguments);
        assert!(records.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"FLOWCELL")));
    }
    let arguments = ["view", "--no-PG", "-M", "FILE", "chr1:100-5000", "chrX:100-5000"];
    assert!(!lab.same("reads.bam", "samtools", &arguments).is_empty());
}

fn samtools_reads_the_whole_file(driver: Driver) {
    let lab = Lab::open(driver);
    let counted = lab.same("reads.bam", "samtools", &["view", "-c", "FILE"]);
    let counted = String::from_utf8_lossy(&counted);
    assert!(counted.trim().parse::<usize>().is_ok_and(|count| count > 25_000), "{counted}");
    lab.same("reads.bam", "samtools", &["view", "--no-PG", "FILE"]);
}

fn samtools_quickcheck_and_idxstats(driver: Driver) {
    let lab = Lab::open(driver);
    lab.same("reads.bam", "samtools", &["quickcheck", "-v", "FILE"]);
    lab.same("reads.bam", "samtools", &["idxstats", "FILE"]);
    let missing = ["quickcheck", &lab.url("missing.bam")];
    let (code, _, _) = run_any(lab.directory.path(), "samtools", &missing);
    assert_ne!(code, Some(0));
}

fn bcftools_and_tabix_find_regions(driver: Driver) {
    let lab = Lab::open(driver);
    for region in ["chr1:1-100000", "chr2:4000000-4200000", "chrX:2900000-3000000"] {
        let arguments = ["view", "--no-version", "-r", region, "FILE"];
        lab.same("calls.vcf.gz", "bcftools", &arguments);
        assert!(!lab.same("calls.vcf.gz", "tabix", &["FILE", region]).is_empty(), "{region}");
    }
    lab.same("calls.vcf.gz", "tabix", &["-H", "FILE"]);
    lab.same("calls.vcf.gz", "bcftools", &["view", "--no-version", "-H", "FILE"]);
}

fn clients_at_the_same_time_do_not_disturb_one_another(driver: Driver) {
    let lab = Lab::open(driver);
    // The scope propagates a panic of any thread.
    std::thread::scope(|scope| {
        for number in 0..6 {
            let lab = &lab;
            scope.spawn(move || {
                let (chromosome, start) = (1 + number % 3, 1 + number * 300_000);
                let region = format!("chr{chromosome}:{start}-{}", start + 600_000);
                lab.same("reads.bam", "samtools", &["view", "--no-PG", "FILE", &region]);
            });
        }
    });
}

fn curl_gets_every_form_of_range(driver: Driver) {
    let lab = Lab::open(driver);
    let local = fs::read(files().join("reads.bam")).expect("a file made before");
    let url = lab.url("reads.bam");
    let size = local.len();
    let rows = [
        ("0-0", 0..1),
        ("0-99", 0..100),
        ("1000-1999", 1000..2000),
        ("65536-", 65_536..size),
        ("-1", size - 1..size),
        ("-28", size - 28..size),
        ("-999999999", 0..size),
        ("0-", 0..size),
        ("100-999999999", 100..size),
    ];
    for (range, expected) in rows {
        let arguments = ["-sS", "--fail", "-w", "%{stderr}%{http_code}", "-r", range, &url];
        let (code, body, status) = run_any(lab.directory.path(), "curl", &arguments);
        assert_eq!((code, status.as_str()), (Some(0), "206"), "-r {range}");
        assert!(body == local[expected], "-r {range}: {} bytes", body.len());
    }
    let several = run(lab.directory.path(), "curl", &["-sS", "-r", "0-1,5-6", &url]);
    assert!(several == local, "several ranges get the whole object");
    let past = format!("{size}-");
    let arguments = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-r", &past, &url];
    assert_eq!(run(lab.directory.path(), "curl", &arguments), b"416");
    assert!(run(lab.directory.path(), "curl", &["-sS", &url]) == local);
    assert!(run(lab.directory.path(), "curl", &["-sS", "--http1.0", &url]) == local);
}

fn curl_resumes_and_sees_what_changed(driver: Driver) {
    let lab = Lab::open(driver);
    let local = fs::read(files().join("calls.vcf.gz")).expect("a file made before");
    let url = lab.url("calls.vcf.gz");
    let path: PathBuf = lab.directory.path().join("part");
    fs::write(&path, &local[..local.len() / 3]).expect("a part");
    run(lab.directory.path(), "curl", &["-sS", "-C", "-", "-o", "part", &url]);
    assert!(fs::read(&path).expect("the whole") == local);
    let arguments = ["-sS", "--etag-save", "tag", "-o", "whole", "-R", "-w", "%{http_code}", &url];
    assert_eq!(run(lab.directory.path(), "curl", &arguments), b"200");
    let again = ["-sS", "--etag-compare", "tag", "-o", "none", "-w", "%{http_code}", &url];
    assert_eq!(run(lab.directory.path(), "curl", &again), b"304");
    let dated = ["-sS", "-z", "whole", "-o", "none", "-w", "%{http_code}", &url];
    assert_eq!(run(lab.directory.path(), "curl", &dated), b"304");
}
