//! The proxy between real HTTP clients and a real HTTP server, over pipes in memory and real TLS.
#![cfg(test)]

mod harness;
mod http;
mod identity;
mod intercept;
mod limits;
mod pool;
mod upgrade;
