//! The `s3proxy` program; all of it is in the library's `cli`.

fn main() {}
