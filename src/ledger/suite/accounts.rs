//! Locks, creation and lists of accounts.

use super::*;

pub(super) async fn wait_for_one_another<D: Database>(database: &D) {
    let (mut first, mut second) = (database.connect().await.unwrap(), database.connect().await.unwrap());
    // Once with a new account, once with an existing one.
    for round in 0..2 {
        let loaded = first.begin(&reads(&["both", "mine"], &[])).await.unwrap();
        let asked = reads(&["both", "yours"], &[key("both", &format!("job {round}"))]);
        let row = charge("both", &format!("job {round}"), 1);
        let mut committed = false;
        let seen = loop {
            let mut waits = Box::pin(second.begin(&asked));
            if !committed {
                match timeout(MOMENT, waits.as_mut()).await {
                    Err(_) => {}
                    // On a slow machine the lock's own time-out may come first.
                    Ok(Err(DbError::Again(_))) => continue,
                    Ok(began) => panic!("the account is locked: {began:?}"),
                }
                first.write(&Writes { rows: vec![row.clone()], ..Writes::default() }, loaded.now).await.unwrap();
                first.commit().await.unwrap();
                committed = true;
            }
            match waits.await {
                Err(DbError::Again(_)) => {}
                began => break began.unwrap(),
            }
        };
        assert_eq!(seen.rows, [row], "it reads what was committed while it waited");
        assert!(seen.now > loaded.now, "its time is that after the wait");
        second.commit().await.unwrap();
    }
}

/// The transaction that creates an account reports it, and no other does. If it does not use the account, it removes it.
pub(super) async fn are_created_once<D: Database>(database: &D) {
    let asked = reads(&["kept", "left", "nu\0l"], &[]);
    for skips_held in [false, true] {
        let asked = Reads { skips_held, ..asked.clone() };
        let unused = asked.tenants.clone();
        let loaded = transact(database, &asked, &Writes { unused, ..Writes::default() }).await.unwrap();
        assert_eq!(sorted(loaded.created), asked.tenants, "they are all new");
    }
    let writes = Writes { rows: vec![charge("kept", "job", 1)], unused: vec!["left".into()], ..Writes::default() };
    transact(database, &asked, &writes).await.unwrap();
    for (skips_held, created) in [(true, &["left"][..]), (false, &[])] {
        let asked = Reads { skips_held, ..asked.clone() };
        let loaded = transact(database, &asked, &Writes::default()).await.unwrap();
        assert_eq!(sorted(loaded.created), created.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>());
        assert_eq!(loaded.accounts.len(), 3);
    }
}

fn sorted(mut names: Vec<Arc<str>>) -> Vec<Arc<str>> {
    names.sort_unstable();
    names
}

pub(super) async fn are_told_page_by_page<D: Database>(database: &D) {
    let names: Vec<String> =
        (0..300).map(|at| format!("{at:03}")).chain(["Z".into(), "a".into(), "\u{e4}".into()]).collect();
    let asked = reads(&names.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let loaded = transact(database, &asked, &Writes::default()).await.unwrap();
    assert_eq!(loaded.accounts.len(), names.len());
    let mut found: Vec<Arc<str>> = Vec::new();
    loop {
        let page = database.tenants(found.last().map(|last| &**last), 100).await.unwrap();
        assert!(page.len() <= 100);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found, asked.tenants);
}
