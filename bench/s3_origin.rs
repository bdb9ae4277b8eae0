//! A signature-checking S3 server over a directory of buckets, as an origin for the benchmark:
//!
//! ```text
//! bench-s3-origin ADDRESS DIRECTORY
//! ```
//!
//! It is the server of the tests with their access key, which it prints.

use std::error::Error;

#[path = "../tests/support/s3_server.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod s3_server;

use s3_server::{ACCESS_KEY, S3Server, SECRET_KEY};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err("usage: bench-s3-origin ADDRESS DIRECTORY".into());
    };
    let files = s3s_fs::FileSystem::new(directory).map_err(|error| format!("{error:?}"))?;
    let _server = S3Server::start_at(address.parse()?, files)?;
    println!("{ACCESS_KEY} {SECRET_KEY}");
    loop {
        std::thread::park();
    }
}
