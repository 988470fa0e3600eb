//! What a disk can do to a store: its power is cut, or it is full.
//!
//! These tests need root and loop mounts, which not every machine gives (`scripts/mounts` says so): they are ignored, and
//! `make test-all` runs them where it can, and says where it cannot.

mod disk;
mod disk_full;
mod power_cut;
