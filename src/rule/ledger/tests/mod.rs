//! Batches and the writer.
