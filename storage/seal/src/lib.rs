//! Sealing: batch encryption, salts, tags, fingerprints, wrapped keys.
