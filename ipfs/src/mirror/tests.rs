use super::*;
use crate::import::{cid_of_bytes, raw_cid};
use CidVersion::{V0, V1};

const LIMIT: u64 = 2 << 20;

fn big() -> Vec<u8> {
    (0..600_000_u32).map(|at| (at / 1000) as u8).collect()
}

fn open(folder: &Path) -> Mirror {
    Mirror::open(folder, true, &folder.join(".memory")).unwrap()
}

fn code(result: Result<Bytes, Error>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn plain_files_are_found_by_both_cids_and_each_of_their_blocks() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deeper")).unwrap();
    fs::write(folder.path().join("deeper/big"), big()).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    let mirror = open(folder.path());
    for version in [V0, V1] {
        let mut blocks = Vec::new();
        import(big().as_slice(), Profile::of_version(version), |cid, _| blocks.push(cid)).unwrap();
        blocks.push(cid_of_bytes(b"small", version));
        for cid in blocks {
            assert!(cid.verify(&mirror.find(&cid, LIMIT).unwrap()));
            let other = cid.other_version();
            assert!(other.is_none_or(|other| mirror.find(&other, LIMIT).is_ok()));
        }
    }
}

#[test]
fn a_file_that_appears_changes_or_goes_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = open(folder.path());
    let path = folder.path().join("file");
    let (first, second) = (cid_of_bytes(b"first", V0), cid_of_bytes(b"third", V0));
    assert_eq!(code(mirror.find(&first, LIMIT)), "not_found");
    fs::write(&path, "first").unwrap();
    assert!(mirror.find(&first, LIMIT).is_ok());
    // Same size, perhaps the same time stamp.
    fs::write(&path, "third").unwrap();
    assert_eq!(code(mirror.find(&first, LIMIT)), "not_found");
    assert!(mirror.find(&second, LIMIT).is_ok());
    fs::remove_file(&path).unwrap();
    assert_eq!(code(mirror.find(&second, LIMIT)), "not_found");
}

#[test]
fn links_hidden_files_and_pipes_are_not_content() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("blocks")).unwrap();
    let cid = cid_of_bytes(b"secret", V0);
    std::os::unix::fs::symlink(outside.path(), folder.path().join("folder")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("file")).unwrap();
    std::os::unix::fs::symlink(
        outside.path().join("secret"),
        folder.path().join("blocks").join(cid.to_string()),
    )
    .unwrap();
    fs::write(folder.path().join(".hidden"), "secret").unwrap();
    let made = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status();
    assert!(made.unwrap().success());
    assert_eq!(code(open(folder.path()).find(&cid, LIMIT)), "not_found");
}

#[tokio::test]
async fn what_is_added_is_found_later_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("not-there-yet");
    let source = folder.path().join("source");
    fs::write(&source, big()).unwrap();
    let mirror = Mirror::open(&root, false, &folder.path().join("memory")).unwrap();
    let mut added = Vec::new();
    for version in [V0, V1] {
        added.push(mirror.add_file(&source, version).await.unwrap());
        added.push(
            mirror.add_bytes(cid_of_bytes(b"small", version), b"small".to_vec()).await.unwrap(),
        );
    }
    let document = vec![b'x'; 700_000];
    added.push(mirror.add_bytes(raw_cid(&document), document).await.unwrap());
    assert_eq!(added[0], cid_of_bytes(&big(), V0));
    let mirror = Mirror::open(&root, false, &folder.path().join("memory")).unwrap();
    for cid in &added {
        assert!(root.join("blocks").join(cid.to_string()).is_file());
        assert!(cid.verify(&mirror.block(cid, LIMIT).await.unwrap()));
    }
    assert_eq!(fs::read_dir(root.join("blocks")).unwrap().count(), added.len());
}

#[tokio::test]
async fn what_a_plain_file_already_gives_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, "content").unwrap();
    open(folder.path()).add_file(&source, V0).await.unwrap();
    assert!(!folder.path().join("blocks").exists());
}

#[tokio::test]
async fn wrong_bytes_under_a_name_are_a_mismatch_until_added_again() {
    let folder = tempfile::tempdir().unwrap();
    let added = folder.path().join("blocks");
    fs::create_dir(&added).unwrap();
    let mirror = open(folder.path());
    for (cid, content) in [
        (cid_of_bytes(&big(), V0), big()),
        (cid_of_bytes(b"small", V0), b"small".to_vec()),
        (raw_cid(b"raw"), b"raw".to_vec()),
    ] {
        let mut wrong = content.clone();
        wrong[0] ^= 1;
        fs::write(added.join(cid.to_string()), wrong).unwrap();
        let error = mirror.block(&cid, LIMIT).await.unwrap_err();
        assert_eq!(error.code(), "digest_mismatch");
        assert!(error.to_string().contains(&cid.to_string()));
        mirror.add_bytes(cid.clone(), content).await.unwrap();
        mirror.block(&cid, LIMIT).await.unwrap();
    }
}

#[test]
fn a_raw_block_above_the_limit_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let added = folder.path().join("blocks");
    fs::create_dir(&added).unwrap();
    let cid = raw_cid(&[0; 100]);
    File::create(added.join(cid.to_string())).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(code(open(folder.path()).find(&cid, LIMIT)), "block_too_large");
}

#[test]
fn content_that_changes_while_it_is_added_is_not_kept_under_the_old_name() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = open(folder.path());
    let error = mirror
        .store(&cid_of_bytes(b"before", V0), b"after".as_slice(), 5, folder.path())
        .unwrap_err();
    assert_eq!(error.code(), "io");
    assert_eq!(fs::read_dir(folder.path().join("blocks")).unwrap().count(), 0);
}

#[test]
fn i8_a_pipe_in_place_of_an_indexed_file_is_only_a_missing_block() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let cid = cid_of_bytes(b"content", V0);
    let mirror = open(folder.path());
    let pipe = |path: &Path| {
        let _ = fs::remove_file(path);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    fs::write(&path, "content").unwrap();
    assert!(mirror.find(&cid, LIMIT).is_ok());
    pipe(&path);
    assert_eq!(code(mirror.find(&cid, LIMIT)), "not_found");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "content").unwrap();
    assert!(mirror.find(&cid, LIMIT).is_ok(), "the mirror goes on");
    // The same for what was added, and for a file that is to be added.
    let added = folder.path().join("blocks");
    fs::create_dir(&added).unwrap();
    let raw = raw_cid(b"raw");
    pipe(&added.join(raw.to_string()));
    assert_eq!(code(mirror.find(&raw, LIMIT)), "not_found");
}

#[tokio::test]
async fn i8_a_pipe_is_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = open(folder.path()).add_file(&path, V0).await.unwrap_err();
    assert_eq!(error.code(), "io");
}

#[test]
fn i8_a_change_that_leaves_size_and_time_alike_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = open(folder.path());
    let path = folder.path().join("file");
    let now = SystemTime::now();
    for content in ["first", "third"] {
        // In place, so that the inode stays.
        fs::write(&path, content).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(now).unwrap();
        let cid = cid_of_bytes(content.as_bytes(), V0);
        assert!(mirror.find(&cid, LIMIT).is_ok(), "{content}");
    }
}

#[test]
fn i13_what_is_beyond_the_bounds_is_said_to_whoever_misses_it() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("1/2/3/4/5/6/7/8/9");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();
    let large = folder.path().join("large");
    File::create(&large).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
    fs::write(folder.path().join("file"), "there").unwrap();
    let mirror = open(folder.path());
    assert!(mirror.find(&cid_of_bytes(b"there", V0), LIMIT).is_ok());
    let error = mirror.find(&cid_of_bytes(b"deep", V0), LIMIT).unwrap_err().to_string();
    for part in ["large is larger than 1 GiB", "9 is more than 8 folders deep"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("first 10000"), "{error}");
    let many = tempfile::tempdir().unwrap();
    for number in 0..=MAX_FILES {
        File::create(many.path().join(number.to_string())).unwrap();
    }
    let error = open(many.path()).find(&cid_of_bytes(b"deep", V0), LIMIT).unwrap_err();
    assert!(error.to_string().contains("only its first 10000 files were looked at"), "{error}");
}

#[test]
fn i13_a_large_file_is_read_once_and_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let content = vec![7; 5 << 20];
    fs::write(&path, &content).unwrap();
    fs::write(folder.path().join("small"), "small").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let indexed = |mirror: &Mirror| mirror.index.lock().unwrap().files.len();
    let mirror = open(folder.path());
    assert!(mirror.find(&cid_of_bytes(b"small", V0), LIMIT).is_ok());
    assert_eq!(indexed(&mirror), 1, "the large one was not needed");
    let added = cid_of_bytes(b"added", V0);
    mirror.store(&added, b"added".as_slice(), 5, folder.path()).unwrap();
    assert!(mirror.find(&added, LIMIT).is_ok());
    assert_eq!(indexed(&mirror), 1, "nor is it when something else is added");
    let cid = cid_of_bytes(&content, V0);
    assert!(mirror.find(&cid, LIMIT).is_ok());
    // The same size, time and inode with other bytes: a new process that finds it without reading remembers it.
    fs::write(&path, vec![8; 5 << 20]).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    let mirror = open(folder.path());
    assert!(mirror.find(&cid, LIMIT).is_ok(), "an inner node needs no look at the file");
    assert_eq!(indexed(&mirror), 1);
    // What is remembered is not believed: the changed file is read again.
    let leaf = raw_cid(&vec![7; CHUNK_BYTES]);
    assert_eq!(code(mirror.find(&leaf, LIMIT)), "not_found");
    assert!(mirror.find(&cid_of_bytes(&vec![8; 5 << 20], V0), LIMIT).is_ok());
    let again = open(folder.path());
    assert!(again.find(&raw_cid(&vec![8; CHUNK_BYTES]), LIMIT).is_ok());
}
