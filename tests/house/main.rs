//! Rules of the source itself: edges between modules, examples, names, prose and size.

mod architecture;
mod examples;
mod files;
mod names;
mod prose;
mod public_api;
mod size;
