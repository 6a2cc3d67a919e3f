//! Where the commands write to. A reader that has gone away, as `head` does, is no error.

use std::io::Write as _;

/// Text for standard output, as it is.
pub(in crate::ctl) fn out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// A line for standard output.
pub(in crate::ctl) fn line(text: impl AsRef<str>) {
    out(&format!("{}\n", text.as_ref()));
}

/// A line for standard error.
pub(in crate::ctl) fn complain(text: impl AsRef<str>) {
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "{}", text.as_ref());
}
