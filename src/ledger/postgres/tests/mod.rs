//! Tests that need a server.

mod on_a_server;
