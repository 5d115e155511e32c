//! Promises that hold against an attacker, one file each.

mod absurd_times;
mod exhaustion;
