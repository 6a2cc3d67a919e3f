//! `caracal`: one binary, five roles.
fn main() {}
