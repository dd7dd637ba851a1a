//! Keys and bookmarks of another store are unknown here.

use super::*;
use crate::quota::store::Bookmark;

#[test]
fn after_another_stores_bookmark_there_is_nobody() {
    let scene = Scene::new(10);
    scene.admit(1, ("requests", 1)).unwrap();
    let plan = Arc::clone(&scene.plan);
    let page = |from: Option<&Bookmark>| {
        let plan = Arc::clone(&plan);
        at_once(scene.accounts.page(from, 10, Arc::new(move |_| Arc::clone(&plan)), scene.now)).unwrap()
    };
    assert_eq!(page(None).0.len(), 1);
    let (clients, next) = page(Some(&Bookmark::After("alice".into())));
    assert!(clients.is_empty() && next.is_none());
}
