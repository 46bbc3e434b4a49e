use super::*;
use crate::import::raw_cid;
use std::os::unix::fs::PermissionsExt;
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
    assert_eq!(files(&folder.path().join("sealed")), Vec::<PathBuf>::new());
    assert_eq!(content.bytes().await.unwrap(), b"hello", "what is held is not touched");
}

/// Bytes on the disk of a cache's folder and so many files.
fn room(folder: &Path, files: u64) -> u64 {
    let sample = folder.join("sample");
    fs::write(&sample, [1; 400]).unwrap();
    let each = size_on_disk(&fs::metadata(&sample).unwrap());
    fs::remove_file(&sample).unwrap();
    each * (16 + files)
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), room(folder.path(), 2)).unwrap();
    let mut held = Vec::new();
    // Each content may begin a folder of its own, which is counted as well.
    for number in 0..40_u8 {
        let (cid, content) = put(&cache, &[number; 400]);
        used_ago(&content, 1000 - u64::from(number));
        held.push(cid);
        drop(content);
        drop(cache.lookup(&held[0]).unwrap());
    }
    assert!(cache.lookup(&held[0]).unwrap().is_some());
    assert!(cache.lookup(&held[1]).unwrap().is_none());
    assert!(cache.lookup(&held[39]).unwrap().is_some());
}

#[test]
fn held_content_is_not_evicted_not_even_by_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), 1 << 20).unwrap();
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
fn a_full_cache_shrinks_when_something_is_added_with_less_room() {
    let (folder, cache) = cache(1 << 20);
    for number in 0..30 {
        put(&cache, &[number; 1000]);
    }
    let smaller = Cache::open(folder.path(), room(folder.path(), 5)).unwrap();
    put(&smaller, &[30; 1000]);
    assert!(files(&folder.path().join("sealed")).len() <= 21);
}

#[test]
fn i6_a_file_is_served_only_as_the_content_of_the_cid_that_it_was_kept_for() {
    let (folder, cache) = cache(1 << 20);
    let (ours, content) = put(&cache, b"ours");
    let (theirs, other) = put(&cache, b"theirs");
    let (path, other_path) = (content.path().to_owned(), other.path().to_owned());
    drop((content, other));
    // Under the name of another content.
    fs::copy(&other_path, folder.path().join("copy")).unwrap();
    fs::rename(folder.path().join("copy"), &path).unwrap();
    assert!(cache.lookup(&ours).unwrap().is_none());
    // With its own seal beside another content's start.
    let start = |path: &Path| path.file_name().unwrap().to_str().unwrap()[..41].to_owned();
    let seal = |path: &Path| path.file_name().unwrap().to_str().unwrap()[41..].to_owned();
    let forged = path.with_file_name(format!("{}{}", start(&path), seal(&other_path)));
    fs::create_dir_all(forged.parent().unwrap()).unwrap();
    fs::copy(&other_path, &forged).unwrap();
    // Named by its own digest, as the cache did once.
    let named =
        path.with_file_name(format!("{}{}", start(&path), hex::encode(Sha256::digest(b"theirs"))));
    fs::copy(&other_path, &named).unwrap();
    let old = folder.path().join("content").join(ours.to_string());
    fs::create_dir_all(&old).unwrap();
    fs::copy(&other_path, old.join(hex::encode(Sha256::digest(b"theirs")))).unwrap();
    assert!(cache.lookup(&ours).unwrap().is_none());
    assert!(!forged.exists() && !named.exists());
    assert!(cache.lookup(&theirs).unwrap().is_some());
    // With another key everything is another's.
    fs::remove_file(folder.path().join("key")).unwrap();
    let cache = Cache::open(folder.path(), 1 << 20).unwrap();
    assert!(cache.lookup(&theirs).unwrap().is_none());
}

#[test]
fn i8_what_is_no_file_in_the_cache_is_passed_over_at_once() {
    let (folder, cache) = cache(1 << 20);
    let (cid, content) = put(&cache, b"content");
    let path = content.path().to_owned();
    drop(content);
    fs::remove_file(&path).unwrap();
    let pipe = |path: &Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    pipe(&path);
    assert!(cache.lookup(&cid).unwrap().is_none());
    fs::create_dir(&path).unwrap();
    assert!(cache.lookup(&cid).unwrap().is_none());
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    let (_, content) = put(&cache, b"content");
    assert_eq!(content.size_bytes(), 7);
    drop(content);
    // The same in place of folders.
    let shard = path.parent().unwrap();
    fs::remove_dir_all(shard).unwrap();
    pipe(shard);
    assert!(cache.lookup(&cid).unwrap().is_none());
    drop(put(&cache, b"content"));
    assert!(cache.lookup(&cid).unwrap().is_some());
    fs::remove_dir_all(folder.path().join("draft")).unwrap();
    drop(put(&cache, b"more"));
    pipe(&folder.path().join("draft/draft-1-1"));
    drop(Cache::open(folder.path(), 1 << 20).unwrap());
    let _ = fs::remove_file(folder.path().join("lock"));
    pipe(&folder.path().join("lock"));
    let small = Cache::open(folder.path(), 1).unwrap();
    drop(put(&small, b"one"));
    drop(put(&small, b"two"));
    assert!(fs::symlink_metadata(folder.path().join("lock")).unwrap().is_file());
    fs::remove_file(folder.path().join("key")).unwrap();
    pipe(&folder.path().join("key"));
    drop(Cache::open(folder.path(), 1).unwrap());
    // A key that others can read is none.
    let key = || fs::read(folder.path().join("key")).unwrap();
    let before = key();
    fs::set_permissions(folder.path().join("key"), fs::Permissions::from_mode(0o644)).unwrap();
    drop(Cache::open(folder.path(), 1).unwrap());
    assert_ne!(key(), before);
}

#[test]
fn i8_a_process_that_was_stopped_with_the_lock_holds_nobody_up() {
    let (folder, _) = cache(1 << 20);
    let small = Cache::open(folder.path(), 1).unwrap();
    File::create(folder.path().join("lock")).unwrap();
    let stopped = File::open(folder.path().join("lock")).unwrap();
    stopped.lock().unwrap();
    let (cid, content) = put(&small, b"content");
    let path = content.path().to_owned();
    drop(content);
    assert!(small.lookup(&cid).unwrap().is_some());
    // The same while it removes a file: that counts as gone, and what is added has another name.
    let removing = File::open(&path).unwrap();
    removing.lock().unwrap();
    assert!(small.lookup(&cid).unwrap().is_none());
    let (_, content) = put(&small, b"content");
    assert_ne!(content.path(), path);
    assert!(small.lookup(&cid).unwrap().is_some());
}

/// 50,000 on a real disk; a tenth here, counted in what the disk gives for them.
#[test]
fn i12_tiny_contents_are_counted_by_what_they_take_and_cost_no_look_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let limit_bytes = 4 << 20;
    let cache = Cache::open(folder.path(), limit_bytes).unwrap();
    for number in 0..5_000_u32 {
        drop(put(&cache, &number.to_be_bytes()));
    }
    let stored = files(&folder.path().join("sealed"));
    let bytes: u64 = stored.iter().map(|path| size_on_disk(&fs::metadata(path).unwrap())).sum();
    assert!(bytes <= limit_bytes, "{bytes} bytes in {} files", stored.len());
    assert!(bytes >= limit_bytes / 2, "{bytes} bytes in {} files", stored.len());
    let again = Cache::open(folder.path(), limit_bytes).unwrap();
    assert!(again.used.lock().unwrap().is_none());
    let (cid, content) =
        (raw_cid(&4_999_u32.to_be_bytes()), again.lookup(&raw_cid(&4_999_u32.to_be_bytes())));
    assert!(content.unwrap().is_some(), "{cid}");
}

#[test]
fn drafts_of_a_killed_process_are_swept_and_stray_files_are_no_trouble() {
    let (folder, cache) = cache(1 << 20);
    fs::write(folder.path().join("draft/draft-99-1"), "half").unwrap();
    fs::write(folder.path().join("sealed/stray"), "stray").unwrap();
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
                let cache = Cache::open(folder, 3 << 12).unwrap();
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
    let cache = Cache::open(folder.path(), room(folder.path(), 3)).unwrap();
    drop(put(&cache, b"the last"));
    assert!(files(&folder.path().join("sealed")).len() <= 19);
    assert_eq!(files(&folder.path().join("draft")).len(), 0);
}
