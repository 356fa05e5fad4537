//! Tidy, code generation, generated documents.
fn main() {}
