//! A disk of its own for a test: an image in a file, mounted through a loop device. It can be filled, and its power be
//! cut. It needs root, and `xfs_io` of xfsprogs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use platform::testing::PATIENCE;
use tempfile::TempDir;

#[derive(Clone, Copy, Debug)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

pub struct Disk {
    folder: TempDir,
    options: &'static str,
}

impl Disk {
    /// A mounted disk with an empty file system. Xfs has 300 MiB at least.
    pub fn create(file_system: FileSystem, mebibytes: u64) -> Self {
        let options = match file_system {
            // By itself it would sync all that was written every 5 s, for a writer too that does not.
            FileSystem::Ext4 => "loop,commit=3600",
            FileSystem::Xfs => "loop",
        };
        let disk = Self { folder: tempfile::tempdir().unwrap(), options };
        std::fs::File::create(disk.image()).unwrap().set_len(mebibytes << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        match file_system {
            // Without blocks that only root may fill, and without work that goes on after the mount.
            FileSystem::Ext4 => run(Command::new("mkfs.ext4")
                .args(["-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
                .arg(disk.image())),
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(disk.image())),
        }
        disk.mount();
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", self.options]).arg(self.image()).arg(self.path()));
    }

    /// Cuts its power: what was not synced is lost, and every later access fails.
    pub fn cut_power(&self) {
        // `-x` for the expert command; xfs_io must be told that another file system than Xfs is meant.
        run(Command::new("xfs_io").args(["-x", "-F", "-c", "shutdown"]).arg(self.path()));
    }

    /// Mounts it again after its power was cut. No process may have a file of it open.
    pub fn restore_power(&self) {
        let start = Instant::now();
        // A file that this process has had open may be so for a moment still: a thread of SQLite's driver closes it, and a child
        // that another test starts has it until it runs its program.
        while !Command::new("umount").arg(self.path()).stderr(Stdio::null()).status().unwrap().success() {
            assert!(start.elapsed() < PATIENCE, "{} is in use", self.path().display());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while a process of a test that has failed has files open.
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    // xfs_io exits with 0 whatever happens.
    assert!(stderr.is_empty() || !command.get_program().eq("xfs_io"), "{command:?}: {stderr}");
}

/// A file that takes all the space of a disk, until it is dropped.
pub struct Filler {
    path: PathBuf,
}

impl Filler {
    pub fn fill(folder: &Path) -> Self {
        use std::io::Write as _;
        let path = folder.join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for size in [4 << 20, 4096, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
            // What has no space is noticed when it is written at the latest.
            let _ = file.sync_data();
        }
        Self { path }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
