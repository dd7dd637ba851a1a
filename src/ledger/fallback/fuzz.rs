//! Fuzz target of the records of a spool.

use super::{
    spool_format::{HEADER, frame, recover},
    spool_record::{decode, encode},
};
use engine::{Fuzz, fuzz, summary};

#[path = "../../../tests/fuzz/engine.rs"]
mod engine;

/// A charge of 7 tokens by `acme`, and a settlement of it.
const RECORDS: Fuzz = Fuzz {
    corpus: &[
        b"tollgate spool 2",
        b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0acme\x01\0\0\0a\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x04\0\0\0paid\x50\x01\0\0\0\
          \x01\0\0\0l\x06\0\0\0tokens\x04\0\0\0hour\x64\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\
          \0\x01\0\0\0\x06\0\0\0tokens\x07\0\0\0\0\0\0\0\0\0\xa5",
        b"\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04\0\0\0acme\x01\0\0\0a\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x04\0\0\0paid\x50\0\0\0\0\
          \x01\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xa5",
    ],
    words: &[
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\x01\0\0\0",
        b"\x06\0\0\0tokens",
        b"\xa5",
        b"\x7f\xff\xff\xff",
        b"\0",
        b"\x01",
    ],
};

/// Reads bytes as a file and as the body of a record. A body that is read has that one encoding, and a file of it is
/// read back.
fn record(bytes: &[u8]) -> u64 {
    let read = recover(bytes).map(|read| read.commands.len());
    let Some((ledger, command)) = decode(bytes) else { return summary((read.is_ok(), bytes.len().min(200))) };
    let body = encode(ledger, &command).expect("a command of a spool");
    let mut file = HEADER.to_vec();
    frame(0, &body, &mut file);
    let again = recover(&file).expect("its own file");
    let [command] = &again.commands[..] else { panic!("one record") };
    assert_eq!(
        (again.ledger, encode(ledger, command)),
        (Some(ledger).filter(|id| *id != 0), Some(body)),
        "another encoding"
    );
    assert_eq!(again.end, file.len());
    summary(("a record", bytes.len()))
}
fuzz!(spool_records, 20_000, RECORDS, record);

#[test]
fn corpus_has_records() {
    let read: Vec<_> = RECORDS.corpus.iter().map(|bytes| decode(bytes).is_some()).collect();
    assert_eq!(read, [false, true, true]);
}
