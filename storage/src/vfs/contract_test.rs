//! What every [`Vfs`] keeps, over both twins; and that the in-memory one's faults really fire.

use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use super::{Faults, MemVfs, RealVfs, Vfs, is_disk_full, is_unreadable, read_vec};

#[test]
fn an_unreadable_page_is_read_before_it_is_written_in_part() {
    let (vfs, path) = (MemVfs::new(1), Path::new("/a/b"));
    vfs.put(path, vec![7; 10_000]);
    vfs.fail_reads(path, 5000..5001);
    let file = vfs.open(path).expect("opened");
    assert_eq!(read_vec(file.as_ref(), 0, 4096).expect("readable"), vec![7; 4096]);
    let error = read_vec(file.as_ref(), 4000, 200).expect_err("its second page is not");
    assert!(is_unreadable(&error), "{error}");
    assert!(file.write_at(4100, &[IoSlice::new(&[1; 50])]).is_err());
    file.write_at(4000, &[IoSlice::new(&[1; 5000])]).expect("the whole page");
    assert_eq!(read_vec(file.as_ref(), 4096, 4096).expect("readable"), vec![1; 4096]);
    assert_eq!(vfs.counts().read_errors, 1);
}

fn suite(vfs: &dyn Vfs, dir: &Path) {
    vfs.create_dir_all(dir).expect("made");
    vfs.create_dir_all(dir).expect("made again");
    files(vfs, dir);
    names(vfs, dir);
    space(vfs, dir);
    locks(vfs, dir);
}

fn files(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("a");
    let file = vfs.create(&path).expect("created");
    assert!(file.is_empty().expect("asked"));
    let parts = [IoSlice::new(b"hello "), IoSlice::new(b""), IoSlice::new(b"world")];
    file.write_at(3, &parts).expect("written");
    assert_eq!(file.len().expect("asked"), 14);
    assert_eq!(read_vec(file.as_ref(), 0, 100).expect("read"), b"\0\0\0hello world");
    assert_eq!(read_vec(file.as_ref(), 9, 3).expect("read"), b"wor");
    assert_eq!(read_vec(file.as_ref(), 14, 3).expect("read"), b"");
    // More parts than one system call takes.
    let many: Vec<[u8; 3]> = (0..5000u32).map(|n| [n as u8, (n >> 8) as u8, 7]).collect();
    let parts: Vec<IoSlice<'_>> = many.iter().map(|part| IoSlice::new(part)).collect();
    file.write_at(20, &parts).expect("written");
    assert_eq!(read_vec(file.as_ref(), 20, 15_000).expect("read"), many.concat());
    file.sync_data().expect("synced");
    file.set_len(5).expect("cut");
    file.set_len(8).expect("extended");
    assert_eq!(read_vec(file.as_ref(), 0, 100).expect("read"), b"\0\0\0he\0\0\0");
    let other = vfs.open(&path).expect("opened");
    assert_eq!(read_vec(other.as_ref(), 3, 2).expect("read"), b"he");
}

fn names(vfs: &dyn Vfs, dir: &Path) {
    let kind = |path: &Path| vfs.open(path).err().map(|error| error.kind());
    assert_eq!(kind(&dir.join("none")), Some(ErrorKind::NotFound));
    let taken = vfs.create(&dir.join("a")).err().map(|error| error.kind());
    assert_eq!(taken, Some(ErrorKind::AlreadyExists));
    vfs.create(&dir.join("b")).expect("created");
    assert_eq!(vfs.list(dir).expect("listed"), ["a", "b"]);
    vfs.rename(&dir.join("a"), &dir.join("b")).expect("replaced");
    assert_eq!(vfs.list(dir).expect("listed"), ["b"]);
    let open = vfs.open(&dir.join("b")).expect("opened");
    vfs.remove(&dir.join("b")).expect("removed");
    assert!(vfs.remove(&dir.join("b")).is_err());
    assert_eq!(read_vec(open.as_ref(), 3, 2).expect("open files stay"), b"he");
    vfs.sync_dir(dir).expect("synced");
    assert!(vfs.list(dir).expect("listed").is_empty());
}

fn space(vfs: &dyn Vfs, dir: &Path) {
    assert!(vfs.free_bytes(dir).expect("asked") > 0);
    let file = vfs.create(&dir.join("c")).expect("created");
    file.preallocate(100_000).expect("reserved");
    assert_eq!(file.len().expect("asked"), 100_000);
    let bytes = read_vec(file.as_ref(), 0, 100_000).expect("read");
    assert!(bytes.iter().all(|byte| *byte == 0) && bytes.len() == 100_000);
    vfs.remove(&dir.join("c")).expect("removed");
}

fn locks(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("LOCK");
    let held = vfs.lock(&path).expect("taken");
    assert_eq!(vfs.lock(&path).err().map(|error| error.kind()), Some(ErrorKind::WouldBlock));
    drop(held);
    drop(vfs.lock(&path).expect("taken again"));
}

#[test]
fn the_real_file_system_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("a folder");
    suite(&RealVfs, &dir.path().join("deep/er"));
}

#[test]
fn the_memory_file_system_keeps_the_contract() {
    suite(&MemVfs::new(1), Path::new("/deep/er"));
}

fn write(vfs: &MemVfs, path: &Path, bytes: &[u8]) {
    let file = vfs.open(path).or_else(|_| vfs.create(path)).expect("there");
    file.write_at(0, &[IoSlice::new(bytes)]).expect("written");
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_tears_the_rest() {
    let path = Path::new("/d/f");
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..20 {
        let vfs = MemVfs::new(seed);
        write(&vfs, path, &[1; 4096]);
        let file = vfs.open(path).expect("there");
        file.sync_data().expect("synced");
        vfs.sync_dir(Path::new("/d")).expect("synced");
        write(&vfs, path, &[2; 4096]);
        write(&vfs, Path::new("/d/unsynced name"), &[3]);
        vfs.crash(50);
        assert!(file.sync_data().is_err(), "handles of the life before are dead");
        assert_eq!(vfs.list(Path::new("/d")).expect("listed"), ["f"]);
        let bytes = vfs.bytes(path).expect("there");
        for sector in bytes.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors are whole");
            kept += usize::from(sector[0] == 2);
            lost += usize::from(sector[0] == 1);
        }
        let counts = vfs.counts();
        assert_eq!((counts.crashes, counts.names_undone), (1, 1));
        assert_eq!(counts.sectors_lost + counts.sectors_kept, 9);
    }
    assert!(kept > 30 && lost > 30, "{kept} kept, {lost} lost");
}

#[test]
fn injected_faults_fire_once_and_are_counted() {
    let vfs = MemVfs::new(1);
    let path = Path::new("/f");
    write(&vfs, path, &[1; 1024]);
    let file = vfs.open(path).expect("there");
    vfs.sync_dir(Path::new("/")).expect("synced");
    vfs.set_faults(Faults { sync_error_after: Some(0), ..Faults::default() });
    assert!(file.sync_data().is_err());
    file.sync_data().expect("the next one says fine, and proves nothing");
    vfs.crash(0);
    assert_eq!(vfs.bytes(path).expect("there").len(), 1024);
    assert_eq!(vfs.bytes(path).expect("there")[0], 0, "what the failed sync lost stays lost");
    let file = vfs.open(path).expect("there");
    vfs.set_faults(Faults { write_error_after: Some(1), ..Faults::default() });
    file.write_at(0, &[IoSlice::new(&[5; 8])]).expect("the first is fine");
    assert!(file.write_at(0, &[IoSlice::new(&[6; 8])]).is_err());
    assert_eq!(read_vec(file.as_ref(), 0, 8).expect("read"), [6, 6, 6, 6, 5, 5, 5, 5]);
    vfs.set_faults(Faults { capacity_bytes: Some(2000), ..Faults::default() });
    let full = file.preallocate(4096).expect_err("refused");
    assert!(is_disk_full(&full));
    assert_eq!(vfs.free_bytes(Path::new("/")).expect("asked"), 976);
    assert!(vfs.flip_bit(path, 3, 1));
    let counts = vfs.counts();
    assert_eq!((counts.sync_errors, counts.write_errors), (1, 1));
    assert_eq!((counts.disk_full, counts.bits_flipped), (1, 1));
}
