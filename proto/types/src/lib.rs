//! Ids, units, time, error codes and stored formats.
