//! The examples as programs: help, wrong arguments and variables, files, stop signals and kills.
#![cfg(unix)]

mod program;
mod scrape;
mod start;
mod stop;
mod webhook;

#[path = "../support/mod.rs"]
mod support;
