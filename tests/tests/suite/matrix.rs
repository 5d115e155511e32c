//! The failure matrix: what a session does when its recorder fails, before it starts and in the middle of it.
//!
//! Each test has a recorder of its own that goes wrong on command, and runs every kind of session at the same time: over
//! WebSocket and SPDY, with a terminal and without, under fail open, under fail closed, and under fail closed with
//! another recorder to turn to. What is claimed of each row stands in [`rows`], what holds for all of them in [`row`].

mod lab;
mod row;
mod rows;
mod session;
mod without;
