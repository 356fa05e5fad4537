//! Data sets: definitions, validation, masking, canonical form.
