//! Operator commands of the dtm binary.
