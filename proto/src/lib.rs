//! Wire contracts: generated code and conversions.
