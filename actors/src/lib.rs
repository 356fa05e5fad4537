//! Supervised actors: one per source connection.
