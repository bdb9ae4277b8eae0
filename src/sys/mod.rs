//! The operating system behind safe functions; the only layer with `unsafe`.
#![allow(unsafe_code, reason = "system calls and borrowed descriptors, each with its proof")]

pub mod background;
pub mod cpu;
pub mod deadlines;
pub mod event_loop;
pub mod memory;
pub mod pipe;
pub mod process;
pub mod socket;
mod sockopt;
pub mod stalls;
pub mod stream;
