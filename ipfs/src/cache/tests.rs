use super::*;
use crate::import::raw_cid;
use std::time::Duration;
use tempfile::TempDir;

fn cache(limit_bytes: u64) -> (TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), limit_bytes).unwrap();
    (folder, cache)
}

fn put(cache: &Cache, content: &[u8]) -> (Cid, Content) {
    let cid = raw_cid(content);
    let mut draft = cache.draft().unwrap();
    draft.write(content).unwrap();
    (cid.clone(), cache.insert(&cid, draft).unwrap())
}

/// Files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    list(folder)
        .unwrap()
        .into_iter()
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Sets when a file was used last, so that the order does not depend on the clock's resolution.
fn used_ago(content: &Content, seconds: u64) {
    let file = File::open(content.path()).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[tokio::test]
async fn content_is_found_again_also_by_a_later_process() {
    let (folder, cache) = cache(1 << 20);
    let (cid, content) = put(&cache, b"hello");
    assert_eq!(content.bytes().await.unwrap(), b"hello");
    drop((content, cache));
    let cache = Cache::open(folder.path(), 1 << 20).unwrap();
    let content = cache.lookup(&cid).unwrap().unwrap();
    assert_eq!(content.size_bytes(), 5);
    assert_eq!(hex::encode(content.sha256()), hex::encode(Sha256::digest(b"hello")));
    assert_eq!(fs::read(content.path()).unwrap(), b"hello");
    assert!(cache.lookup(&raw_cid(b"other")).unwrap().is_none());
}

#[tokio::test]
async fn a_corrupt_file_is_removed_and_never_given_out() {
    let (folder, cache) = cache(1 << 20);
    let (cid, content) = put(&cache, b"hello");
    let path = content.path().to_owned();
    // Root ignores the read-only mode.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "hellO").unwrap();
    assert!(cache.lookup(&cid).unwrap().is_none());
    assert_eq!(files(&folder.path().join("content")), Vec::<PathBuf>::new());
    assert_eq!(content.bytes().await.unwrap(), b"hello", "what is held is not touched");
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let (_folder, cache) = cache(1000);
    let (old, old_held) = put(&cache, &[1; 400]);
    let (used, used_held) = put(&cache, &[2; 400]);
    used_ago(&old_held, 20);
    used_ago(&used_held, 30);
    drop((old_held, used_held));
    drop(cache.lookup(&used).unwrap());
    put(&cache, &[3; 400]);
    assert!(cache.lookup(&old).unwrap().is_none());
    assert!(cache.lookup(&used).unwrap().is_some());
}

#[test]
fn held_content_is_not_evicted_not_even_by_another_process() {
    let (folder, cache) = cache(1000);
    let (_, held) = put(&cache, &[1; 800]);
    used_ago(&held, 20);
    let second = Cache::open(folder.path(), 100).unwrap();
    let (free, content) = put(&second, &[2; 300]);
    drop(content);
    put(&second, &[3; 50]);
    assert!(held.path().exists());
    assert!(second.lookup(&free).unwrap().is_none());
    let path = held.path().to_owned();
    drop(held);
    put(&second, &[4; 50]);
    assert!(!path.exists());
}

#[test]
fn a_full_cache_shrinks_when_it_is_opened_with_less() {
    let (folder, cache) = cache(1 << 20);
    for number in 0..10 {
        put(&cache, &[number; 1000]);
    }
    let _smaller = Cache::open(folder.path(), 5000).unwrap();
    assert!(files(&folder.path().join("content")).len() <= 5);
}

#[test]
fn drafts_of_a_killed_process_are_swept_and_stray_files_are_no_trouble() {
    let (folder, cache) = cache(1 << 20);
    fs::write(folder.path().join("draft/draft-99-1"), "half").unwrap();
    fs::write(folder.path().join("content/stray"), "stray").unwrap();
    let draft = cache.draft().unwrap();
    let _again = Cache::open(folder.path(), 1 << 20).unwrap();
    assert!(!folder.path().join("draft/draft-99-1").exists());
    assert!(draft.path().exists());
}

#[test]
fn threads_that_write_read_and_evict_at_once_only_ever_see_whole_content() {
    let (folder, _) = cache(1 << 20);
    std::thread::scope(|scope| {
        for thread in 0..6_u8 {
            let folder = folder.path();
            scope.spawn(move || {
                let cache = Cache::open(folder, 3000).unwrap();
                for round in 0..40_u8 {
                    let content = vec![(thread + round) % 8; 1000];
                    let cid = raw_cid(&content);
                    let found = match cache.lookup(&cid).unwrap() {
                        Some(found) => found,
                        None => {
                            let mut draft = cache.draft().unwrap();
                            draft.write(&content).unwrap();
                            cache.insert(&cid, draft).unwrap()
                        }
                    };
                    assert_eq!(fs::read(found.path()).unwrap(), content);
                }
            });
        }
    });
    drop(Cache::open(folder.path(), 3000).unwrap());
    assert!(files(&folder.path().join("content")).len() <= 3);
    assert_eq!(files(&folder.path().join("draft")).len(), 0);
}
