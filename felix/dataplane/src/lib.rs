//! Convert, drive, apply: our terms to kernel state.
