//! The `s3proxy` program; all of it is in the library's `cli`.

fn main() -> std::process::ExitCode {
    s3proxy::main()
}
