//! Rules of the source itself.

mod architecture;
