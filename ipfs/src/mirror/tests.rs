use super::*;
use crate::import::{cid_of_bytes, raw_cid};
use CidVersion::{V0, V1};

const LIMIT: u64 = 2 << 20;

fn big() -> Vec<u8> {
    (0..600_000_u32).map(|at| (at / 1000) as u8).collect()
}

fn open(folder: &Path) -> Mirror {
    Mirror::open(folder, true).unwrap()
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
    let mirror = Mirror::open(&root, false).unwrap();
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
    let mirror = Mirror::open(&root, false).unwrap();
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
    let error =
        mirror.store(&cid_of_bytes(b"before", V0), b"after".as_slice(), folder.path()).unwrap_err();
    assert_eq!(error.code(), "io");
    assert_eq!(fs::read_dir(folder.path().join("blocks")).unwrap().count(), 0);
}
