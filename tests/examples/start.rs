//! Help, errors of arguments and variables, and the port before any file.

use std::{net::TcpListener, process::Output};

use crate::{
    program::{SERVERS, command, run},
    support::directory::Directory,
};

/// Returns the text on stderr of a program that failed by an error, and printed nothing else.
fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_is_the_head_comment() {
    for example in SERVERS {
        let source = ["examples/NAME.rs", "examples/NAME/main.rs"]
            .map(|path| format!("{}/{}", env!("CARGO_MANIFEST_DIR"), path.replace("NAME", example)));
        let source = source.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap();
        let first = source.lines().next().unwrap().strip_prefix("//! ").unwrap();
        for option in ["--help", "-h"] {
            let output = run(example, &[option], &[("PORT", "no port")]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{example}");
            assert_eq!(text.lines().next(), Some(first));
            assert!(text.contains(&format!("cargo run --example {example}")), "{text}");
            assert!(!text.contains("//!") && !text.contains("```") && !text.contains("use "), "{text}");
        }
    }
}

#[test]
fn unknown_argument_is_an_error_that_names_it() {
    for example in SERVERS {
        for arguments in [&["--sevre"][..], &["--serve", "again"], &[""]] {
            let error = error(&run(example, arguments, &[]));
            assert!(error.starts_with("Error: the arguments may be ") && error.contains("got \""), "{error}");
        }
    }
}

#[test]
fn wrong_variable_is_an_error_that_names_it() {
    let both = ("DATABASE_URL", "postgres://127.0.0.1/quota");
    let cases: &[(&str, (&str, &str), &str)] = &[
        ("quickstart", ("PORT", "65536"), "PORT must be from 0 to 65535, got \"65536\""),
        ("grpc", ("PORT", "http"), "PORT must be from 0 to 65535, got \"http\""),
        ("scan_api", ("PORT", ""), "PORT must not be empty"),
        ("scan_api", ("MAX_CONCURRENT", "0"), "MAX_CONCURRENT must be a whole number from 1 to 2^53 - 1, got \"0\""),
        ("scan_api", ("MAX_CONCURRENT", "9007199254740992"), "MAX_CONCURRENT must be a whole number from 1"),
        ("scan_api", ("DAILY_BYTES", "50GiB"), "DAILY_BYTES must be a whole number from 1 to 2^53 - 1, got \"50GiB\""),
        ("billing", ("LIMIT", "-1"), "LIMIT must be a whole number from 1 to 2^53 - 1, got \"-1\""),
        ("billing", ("ADMIN_TOKEN", ""), "ADMIN_TOKEN must not be empty"),
        ("webhook", ("TOLLGATE_SECRET", "abc"), "TOLLGATE_SECRET: secret must be 32 hexadecimal digits or base64"),
        ("webhook", ("LEASE_MS", "0"), "LEASE_MS must be a whole number of milliseconds from 1, got \"0\""),
        ("webhook", ("PORT", "0"), "a database needs TOLLGATE_SECRET, the same for all its processes"),
        ("webhook", both, "set DB or DATABASE_URL, not both"),
        ("billing", both, "set DB for a file or DATABASE_URL for a server, not both"),
    ];
    let directory = Directory::new();
    let file = directory.0.join("quota.db");
    for (example, (name, value), wanted) in cases {
        let error = error(&run(example, &[], &[("DB", file.to_str().unwrap()), (name, value)]));
        assert!(error.starts_with(&format!("Error: {wanted}")), "{name}={value}: {error}");
        assert!(!file.exists(), "{name}={value} left a file");
    }
}

#[test]
fn taken_port_is_an_error_before_any_file_is_made() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for example in SERVERS {
        let directory = Directory::new();
        let output = command(example, &[("PORT", &port)]).current_dir(&directory.0).output().unwrap();
        let error = error(&output);
        assert!(error.starts_with(&format!("Error: cannot listen on 127.0.0.1:{port}: ")), "{error}");
        assert!(error.contains("choose another with PORT="), "{error}");
        assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 0, "{example} made a file");
    }
}
