//! Rules of the source itself: edges between modules, names, prose and size.

mod architecture;
mod files;
mod names;
mod prose;
mod public_api;
mod size;
