//! A disk for tests that loses what was not synced when the power is cut.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;

/// The disk. Names are synced with their folder.
#[derive(Clone, Default)]
pub(super) struct SimulatedDisk {
    state: RefCell<State>,
    /// The two wrong variants: the controls.
    skips_file_sync: bool,
    skips_folder_sync: bool,
}

#[derive(Clone, Default)]
struct State {
    /// The content of each file, and whether it is on the disk.
    files: Vec<(Vec<u8>, bool)>,
    /// Names as programs see them, and as they are on the disk.
    names: BTreeMap<PathBuf, usize>,
    names_on_disk: BTreeMap<PathBuf, usize>,
    /// Steps before the power cut.
    steps_left: usize,
}

impl SimulatedDisk {
    pub(super) fn without_file_sync() -> Self {
        Self { skips_file_sync: true, ..Self::default() }
    }

    pub(super) fn without_folder_sync() -> Self {
        Self { skips_folder_sync: true, ..Self::default() }
    }

    /// Puts files on the disk.
    pub(super) fn fill(&self, files: &[(&str, &str)]) {
        let mut state = self.state.borrow_mut();
        for (name, content) in files {
            state.files.push((content.as_bytes().to_vec(), true));
            let file = state.files.len() - 1;
            state.names.insert(PathBuf::from(name), file);
            state.names_on_disk.insert(PathBuf::from(name), file);
        }
    }

    /// Every step fails after this number of steps.
    pub(super) fn cut_after(&self, steps: usize) {
        self.state.borrow_mut().steps_left = steps;
    }

    /// The files as programs see them.
    pub(super) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.borrow();
        let files = state.names.iter();
        files.map(|(name, file)| (name.to_str().unwrap().to_owned(), state.files[*file].0.clone())).collect()
    }

    /// The disks that a start after the power cut may find: each name that was not synced may be as it was or as it is.
    pub(super) fn after_power_cut(&self) -> Vec<Self> {
        let state = self.state.borrow();
        let names = state.names.keys().chain(state.names_on_disk.keys());
        let mut unsynced: Vec<&PathBuf> =
            names.filter(|name| state.names.get(*name) != state.names_on_disk.get(*name)).collect();
        unsynced.sort_unstable();
        unsynced.dedup();
        let found = (0..1_usize << unsynced.len()).map(|kept| {
            let mut after = State { names_on_disk: BTreeMap::new(), ..state.clone() };
            after.names = state.names_on_disk.clone();
            for (bit, name) in unsynced.iter().enumerate() {
                if kept & (1 << bit) > 0 {
                    match state.names.get(*name) {
                        Some(file) => after.names.insert((*name).clone(), *file),
                        None => after.names.remove(*name),
                    };
                }
            }
            after.names_on_disk.clone_from(&after.names);
            for file in &mut after.files {
                if !std::mem::replace(&mut file.1, true) {
                    file.0.clear();
                }
            }
            Self {
                state: RefCell::new(after),
                skips_file_sync: self.skips_file_sync,
                skips_folder_sync: self.skips_folder_sync,
            }
        });
        found.collect()
    }

    fn step(&self) -> io::Result<std::cell::RefMut<'_, State>> {
        let mut state = self.state.borrow_mut();
        state.steps_left = state.steps_left.checked_sub(1).ok_or_else(|| io::Error::other("power cut"))?;
        Ok(state)
    }
}

impl Disk for SimulatedDisk {
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        state.files.push((content.to_vec(), false));
        let file = state.files.len() - 1;
        state.names.insert(path.to_owned(), file);
        drop(state);
        if !self.skips_file_sync {
            self.step()?.files[file].1 = true;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?.names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.skips_folder_sync {
            return Ok(());
        }
        let mut state = self.step()?;
        let mut synced = state.names_on_disk.clone();
        synced.retain(|name, _| name.parent() != Some(folder));
        let names = state.names.iter().filter(|(name, _)| name.parent() == Some(folder));
        synced.extend(names.map(|(name, file)| (name.clone(), *file)));
        state.names_on_disk = synced;
        Ok(())
    }
}
