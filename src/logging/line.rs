//! The format of log lines: `2026-11-24T03:30:56Z WARN message`.

use std::fmt::{self, Write};

use log::Level;

use crate::clock::{self, Iso8601};
use crate::logging::LINE_BYTES;

/// Formats a message as a line of at most [`LINE_BYTES`], line end included.
pub(super) fn format(level: Level, message: fmt::Arguments<'_>) -> String {
    let mut line = Line::default();
    // Fails only if the line is full; the rest of the message is then discarded.
    let _ = write!(line.text, "{} {level} ", Iso8601(clock::unix_seconds()));
    let _ = line.write_fmt(message);
    let mut text = line.text;
    text.push('\n');
    text
}

/// A line while it is written. Characters that would end it or confuse a terminal are escaped.
#[derive(Default)]
struct Line {
    text: String,
}

/// Written in place of the rest of a line that is too long.
const CUT: &str = " ...";

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            // Room for the longest escape, `\u{10ffff}`, and for the end.
            if self.text.len() + 10 + CUT.len() >= LINE_BYTES {
                self.text.push_str(CUT);
                return Err(fmt::Error);
            }
            if is_unprintable(c) {
                write!(self.text, "{}", c.escape_default())?;
            } else {
                self.text.push(c);
            }
        }
        Ok(())
    }
}

/// Whether a character is a control character, a line separator, or changes the direction of text
/// (UAX #9).
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        let line = format(Level::Warn, format_args!("{text}"));
        line.split_once(" WARN ").unwrap().1.to_owned()
    }

    #[test]
    fn a_message_is_one_line_without_control_characters() {
        assert_eq!(message("größe 5 µs"), "größe 5 µs\n");
        assert_eq!(message("a\nb\x1b[31m\u{7f}\u{9b}"), "a\\nb\\u{1b}[31m\\u{7f}\\u{9b}\n");
        assert_eq!(message("a\u{202e}b\u{2066}\u{2028}"), "a\\u{202e}b\\u{2066}\\u{2028}\n");
    }

    #[test]
    fn a_long_message_is_cut() {
        for text in ["k".repeat(10_000), "\u{202e}".repeat(2_000), "é".repeat(5_000)] {
            let line = format(Level::Warn, format_args!("{text}{text}"));
            assert!((LINE_BYTES - 20..=LINE_BYTES).contains(&line.len()), "{}", line.len());
            assert!(line.ends_with(" ...\n"));
        }
    }
}
