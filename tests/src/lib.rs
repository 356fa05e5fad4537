//! Contract suites, sandboxes, process clusters.
