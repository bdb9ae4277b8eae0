//! The `s3proxy` program; its code is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    s3proxy::main()
}
