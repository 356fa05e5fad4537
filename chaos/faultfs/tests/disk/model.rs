//! Random operations against a model of what a disk promises, with power cuts in between.
//!
//! The model knows only the rules: data is durable by a sync of the file, a name by a sync of its
//! folder, a rename between folders is one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;

use dtm_faultfs::CutStyle;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::Disk;

const FOLDERS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 4] = ["1", "2", "3", "4"];
const STEPS: usize = 1_600;
const CUT_EVERY: usize = 40;

/// A folder and a name.
type Place = (&'static str, &'static str);

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
}

/// Files by number, and which number a name has, as programs see it and as the disk has it.
#[derive(Default)]
struct Model {
    files: BTreeMap<usize, Content>,
    next: usize,
    live: BTreeMap<Place, usize>,
    durable: BTreeMap<Place, usize>,
    /// Names that changed since their folder's sync, each with the other sides of its renames.
    changed: BTreeMap<Place, BTreeSet<Place>>,
}

impl Model {
    fn change(&mut self, place: Place, file: Option<usize>) {
        self.changed.entry(place).or_default();
        match file {
            Some(file) => self.live.insert(place, file),
            None => self.live.remove(&place),
        };
    }

    fn rename(&mut self, from: Place, to: Place) {
        let file = self.live.get(&from).copied();
        self.change(from, None);
        self.change(to, file);
        if from.0 != to.0 {
            self.changed.entry(from).or_default().insert(to);
            self.changed.entry(to).or_default().insert(from);
        }
    }

    fn sync_folder(&mut self, folder: &str) {
        let mut due: Vec<Place> =
            self.changed.keys().filter(|place| place.0 == folder).copied().collect();
        while let Some(place) = due.pop() {
            due.extend(self.changed.remove(&place).unwrap_or_default());
            match self.live.get(&place) {
                Some(file) => self.durable.insert(place, *file),
                None => self.durable.remove(&place),
            };
        }
    }

    fn cut(&mut self) {
        self.live = self.durable.clone();
        self.changed.clear();
        for content in self.files.values_mut() {
            content.live = content.durable.clone();
        }
    }
}

#[test]
fn random_operations_leave_what_the_rules_say() {
    for seed in 0..3 {
        let Some(disk) = Disk::mount() else { return };
        run(&disk, seed);
    }
}

fn run(disk: &Disk, seed: u64) {
    for folder in FOLDERS {
        fs::create_dir(disk.at(folder)).unwrap();
    }
    disk.sync_folder("");
    let mut luck = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    for step in 1..=STEPS {
        step_once(disk, &mut model, &mut luck);
        if step % CUT_EVERY == 0 {
            disk.cut_power(CutStyle::DropAll).unwrap();
            disk.power_on().unwrap();
            model.cut();
        }
        if step % 10 == 0 {
            compare(disk, &model, &format!("seed {seed}, step {step}"));
        }
    }
    assert!(disk.counts().entries_undone > 50, "{:?}", disk.counts());
    assert!(disk.counts().files_rolled_back > 50, "{:?}", disk.counts());
}

fn step_once(disk: &Disk, model: &mut Model, luck: &mut StdRng) {
    let mut place =
        || (FOLDERS[luck.random_range(0..FOLDERS.len())], NAMES[luck.random_range(0..NAMES.len())]);
    let (one, other) = (place(), place());
    let path = |place: Place| disk.at(place.0).join(place.1);
    let file = model.live.get(&one).copied();
    match (luck.random_range(0..100), file) {
        (0..25, None) => {
            disk.write(&format!("{}/{}", one.0, one.1), b"");
            model.files.insert(model.next, Content::default());
            model.change(one, Some(model.next));
            model.next += 1;
        }
        (0..35, Some(file)) => {
            let offset = luck.random_range(0..10_000);
            let bytes = vec![luck.random::<u8>(); luck.random_range(1..6_000)];
            disk.open(&format!("{}/{}", one.0, one.1)).write_all_at(&bytes, offset).unwrap();
            let live = &mut model.files.get_mut(&file).unwrap().live;
            let (from, to) = (offset as usize, offset as usize + bytes.len());
            live.resize(live.len().max(to), 0);
            live[from..to].copy_from_slice(&bytes);
        }
        (35..40, Some(file)) => {
            let len = luck.random_range(0..9_000);
            disk.open(&format!("{}/{}", one.0, one.1)).set_len(len).unwrap();
            model.files.get_mut(&file).unwrap().live.resize(len as usize, 0);
        }
        (40..60, Some(file)) => {
            disk.open(&format!("{}/{}", one.0, one.1)).sync_data().unwrap();
            let content = model.files.get_mut(&file).unwrap();
            content.durable = content.live.clone();
        }
        (60..70, Some(_)) => {
            fs::remove_file(path(one)).unwrap();
            model.change(one, None);
        }
        (70..85, Some(file)) => {
            fs::rename(path(one), path(other)).unwrap();
            // Two names of one file, or one name: nothing happens.
            if model.live.get(&other) != Some(&file) {
                model.rename(one, other);
            }
        }
        (85..90, Some(file)) if !model.live.contains_key(&other) => {
            fs::hard_link(path(one), path(other)).unwrap();
            model.change(other, Some(file));
        }
        (90..100, _) => {
            disk.sync_folder(one.0);
            model.sync_folder(one.0);
        }
        _ => {}
    }
}

fn compare(disk: &Disk, model: &Model, when: &str) {
    for folder in FOLDERS {
        let names: Vec<&str> =
            model.live.keys().filter(|place| place.0 == folder).map(|place| place.1).collect();
        assert_eq!(disk.names(folder), names, "{when}, folder {folder}");
    }
    for (place, file) in &model.live {
        let bytes = disk.read(&format!("{}/{}", place.0, place.1));
        assert!(bytes == model.files[file].live, "{when}: content of {place:?} differs");
    }
}
