//! Opening a file: errors with a way out, locks, removed files, and the connection of the writer.

use std::sync::{Arc, Mutex};

use super::*;

#[tokio::test]
async fn url_in_place_of_a_path_is_refused_with_a_way_out() {
    for (url, way_out) in [
        ("postgres://ann:canary@host/quota", "call Ledger::postgres(url)"),
        ("sqlite://quota.db", "pass what follows `sqlite:`"),
        ("file:quota.db", "pass the path alone"),
    ] {
        let error = SqliteDatabase::in_file(url.as_ref(), OpenOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), LedgerErrorKind::Address);
        assert!(error.reason().contains(way_out) && !error.reason().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn errors_of_opening_have_kinds_and_sources() {
    let directory = Directory::new();
    let file = directory.file();
    SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
    let error = of(SqliteConnectOptions::new().filename(&file).read_only(true)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Forbidden, "{error}");
    assert!(error.reason().contains("the file and its folder must be writable"), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("readonly"), "{error:?}");
    let error = of(options(&directory.file()).synchronous(SqliteSynchronous::Off)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Unsafe, "{error}");
}

#[tokio::test]
async fn locked_file_is_busy_after_the_open_timeout() {
    let directory = Directory::new();
    let file = directory.file();
    let mut other = options(&file).connect().await.unwrap();
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let mut brief = OpenOptions { timeout: Duration::from_millis(200), ..OpenOptions::default() };
    let error = loop {
        let opening = tokio::time::timeout(HUNG, SqliteDatabase::in_file(&file, brief));
        let error = opening.await.expect("it does not hang").unwrap_err();
        if error.kind() != LedgerErrorKind::Unreachable {
            break error;
        }
        brief.timeout *= 2; // on a slow machine connecting takes longer
    };
    assert_eq!(error.kind(), LedgerErrorKind::Busy, "{error}");
    other.execute("ROLLBACK").await.unwrap();
    SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
}

#[tokio::test]
async fn removed_or_replaced_file_acknowledges_nothing() {
    for replaced in [false, true] {
        let directory = Directory::new();
        let file = directory.file();
        let ledger = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
        let mut session = ledger.connect().await.unwrap();
        for (job, there) in [("kept", true), ("lost", false)] {
            if !there {
                std::fs::rename(&file, directory.0.join("moved.db")).unwrap();
                if replaced {
                    std::fs::write(&file, "").unwrap();
                }
            }
            let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
            session.write(&one(job), loaded.now).await.unwrap();
            match session.commit().await {
                Ok(()) => assert!(there, "acknowledged"),
                Err(DbError::Lost(why)) => assert!(!there && why.contains("removed or replaced"), "{why}"),
                Err(error) => panic!("{error:?}"),
            }
        }
        let Err(DbError::Refused(why)) = ledger.connect().await else { panic!("a new file is no ledger") };
        assert!(why.contains("restore it"), "{why}");
        assert_eq!(ledger.refusal().unwrap().reason(), &*why);
    }
}

/// The connection that was opened with the ledger has the file open from then on.
#[tokio::test]
async fn file_removed_before_the_first_use_acknowledges_nothing() {
    for replaced in [false, true] {
        let directory = Directory::new();
        let file = directory.file();
        let ledger = SqliteDatabase::in_file(&file, OpenOptions::default()).await.unwrap();
        std::fs::rename(&file, directory.0.join("moved.db")).unwrap();
        if replaced {
            std::fs::write(&file, "").unwrap();
        }
        let mut session = ledger.connect().await.unwrap();
        let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
        session.write(&one("job"), loaded.now).await.unwrap();
        assert!(matches!(session.commit().await, Err(DbError::Lost(_))), "replaced: {replaced}");
    }
}

#[tokio::test]
async fn writer_keeps_its_connection_while_the_pool_is_taken() {
    let directory = Directory::new();
    let pool = SqlitePoolOptions::new().max_connections(2).connect_lazy_with(options(&directory.file()));
    let ledger = SqliteDatabase::from_pool(pool.clone(), OpenOptions::default()).await.unwrap();
    let _taken = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
    let mut session = ledger.connect().await.unwrap();
    let loaded = session.begin(&reads(&["ann"], &[])).await.unwrap();
    session.write(&one("job"), loaded.now).await.unwrap();
    session.commit().await.unwrap();
}

#[tokio::test]
async fn lazy_ledger_opens_with_its_first_use() {
    let directory = Directory::new();
    let file = directory.file();
    let lazy = OpenOptions { lazy: true, ..OpenOptions::default() };
    let ledger = SqliteDatabase::in_file(&file, lazy).await.unwrap();
    assert!(!file.exists());
    assert_eq!(ledger.account("ann").await.unwrap().1, Stored::default());
    transact(&ledger, &reads(&["ann"], &[]), &one("job")).await.unwrap();
    let newer = SqliteDatabase::in_file(&file, lazy).await.unwrap();
    run(&file, "INSERT INTO quota_schema VALUES (7, 0)").await.unwrap();
    assert!(matches!(newer.connect().await, Err(DbError::Refused(_))));
    assert!(newer.refusal().unwrap().reason().contains("a newer version has migrated them"));
    run(&file, "DELETE FROM quota_schema WHERE version = 7").await.unwrap();
    newer.connect().await.unwrap();
    assert_eq!(newer.refusal(), None);
}

#[tokio::test]
async fn each_connection_is_checked_for_its_ledger() {
    let directory = Directory::new();
    let file = directory.file();
    let lazy = OpenOptions { lazy: true, ..OpenOptions::default() };
    for options in [OpenOptions::default(), lazy] {
        let ledger = SqliteDatabase::in_file(&file, options).await.unwrap();
        assert_eq!(ledger.ledger_id().is_some(), !options.lazy);
        let (seen, told) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (sees, tells) = (Arc::clone(&seen), Arc::clone(&told));
        ledger.on_refusal(Box::new(move |why| tells.lock().unwrap().push(why.to_string())));
        ledger.check_ledger(Box::new(move |id| {
            sees.lock().unwrap().push(id);
            match sees.lock().unwrap().len() {
                1 => Ok(()),
                _ => Err(LedgerError::new(LedgerErrorKind::Spool, "another")),
            }
        }));
        ledger.connect().await.unwrap();
        assert_eq!(ledger.refusal(), None);
        for _ in 0..2 {
            assert!(matches!(ledger.connect().await, Err(DbError::Refused(why)) if why.starts_with("another")));
        }
        assert_eq!(ledger.refusal().unwrap().kind(), LedgerErrorKind::Spool);
        assert_eq!((seen.lock().unwrap().len(), told.lock().unwrap().len()), (3, 1));
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|id| id == &seen[0]) && ledger.ledger_id().is_none());
    }
}
