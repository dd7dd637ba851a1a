//! Settings in files (feature `serde`): rates, periods, plans and rules of circuits, in any format of serde.
//!
//! Values are checked as their constructors check them, so that a wrong file is an error with the value and the rule.
//! An unknown member is an error too: a misspelled one would be ignored silently.

mod plan;
mod text;
mod trip;
