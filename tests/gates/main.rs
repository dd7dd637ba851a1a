//! One gate for several layers: the same as nested gates.

mod differential;
mod identity;
mod layer;
mod layers;
mod member;
mod script;
mod scripted;
mod slow_identity;
mod stack;
#[path = "../support/mod.rs"]
mod support;
