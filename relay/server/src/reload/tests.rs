use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

/// A subject that counts how often it is read. The first time is when the task begins, and finds nothing new.
struct Counted {
    files: Vec<PathBuf>,
    times: AtomicUsize,
    asked: AtomicUsize,
}

impl Subject for Counted {
    fn what(&self) -> What {
        What::Certificate
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }

    fn reload(&self, asked: bool) -> ReloadOutcome {
        self.asked.fetch_add(asked.into(), Ordering::Relaxed);
        match self.times.fetch_add(1, Ordering::Relaxed) {
            0 => ReloadOutcome::Unchanged,
            _ => ReloadOutcome::Replaced,
        }
    }
}

/// A folder whose files are watched on virtual time.
struct Place {
    dir: TempDir,
    subject: Arc<Counted>,
    metrics: ReloadMetrics,
    hangups: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Place {
    async fn new(prepare: impl FnOnce(&Path), files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let files = files.iter().map(|name| dir.path().join(name)).collect();
        let subject = Arc::new(Counted { files, times: AtomicUsize::new(0), asked: AtomicUsize::new(0) });
        let metrics = ReloadMetrics::register(&Registry::new()).unwrap();
        let (hangups, told) = watch::channel(0);
        let reload =
            Reload { subjects: vec![subject.clone()], metrics: metrics.clone(), hangups: Some(told) };
        let task = tokio::spawn(reload.run());
        let place = Self { dir, subject, metrics, hangups, task };
        while place.subject.times.load(Ordering::Relaxed) == 0 {
            millis(1).await;
        }
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    /// How often the subject has been read since the task has begun.
    fn times(&self) -> usize {
        self.subject.times.load(Ordering::Relaxed).saturating_sub(1)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn millis(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

fn two_files(dir: &Path) {
    for name in ["one", "two"] {
        fs::write(dir.join(name), "old").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn files_are_read_a_second_after_their_last_change() {
    let place = Place::new(two_files, &["one", "two"]).await;
    place.write("one", "new");
    millis(900).await;
    place.write("two", "newer");
    millis(900).await;
    assert_eq!(place.times(), 0, "the second file has changed since");
    millis(500).await;
    assert_eq!(place.times(), 1);
    // Another file of the folder, and no change at all.
    place.write("three", "new");
    millis(100_000).await;
    assert_eq!(place.times(), 1);
    fs::remove_file(place.dir.path().join("one")).unwrap();
    millis(1_500).await;
    assert_eq!((place.times(), place.subject.asked.load(Ordering::Relaxed)), (2, 0));
    let counted = place.metrics.reloads.with_label_values(&["certificate", "replaced"]).get();
    assert_eq!(counted, 2);
}

/// As Kubernetes replaces the files of a volume: a link to a folder gets another target by a rename.
#[tokio::test(start_paused = true)]
async fn a_link_on_the_way_to_a_file_is_followed() {
    let prepare = |dir: &Path| {
        for version in ["..1", "..2"] {
            fs::create_dir(dir.join(version)).unwrap();
            fs::write(dir.join(version).join("key"), version).unwrap();
        }
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/key", dir.join("key")).unwrap();
    };
    let place = Place::new(prepare, &["key"]).await;
    let dir = place.dir.path();
    symlink("..2", dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    millis(1_500).await;
    assert_eq!(place.times(), 1);
    // The folder that the link leads to now is watched as well.
    place.write("..2/key", "longer");
    millis(1_500).await;
    assert_eq!(place.times(), 2);
}

/// Where the kernel tells nothing, as here of a folder that is not there at first.
#[tokio::test(start_paused = true)]
async fn what_the_kernel_does_not_tell_is_found_by_a_look() {
    let place = Place::new(|_| {}, &["folder/file"]).await;
    fs::create_dir(place.dir.path().join("folder")).unwrap();
    place.write("folder/file", "new");
    millis(20_000).await;
    assert_eq!(place.times(), 0);
    millis(11_500).await;
    assert_eq!(place.times(), 1);
    // From then on it is watched.
    place.write("folder/file", "longer");
    millis(1_500).await;
    assert_eq!(place.times(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hangup_reads_at_once_and_what_has_been_read_then_is_not_read_again() {
    let place = Place::new(two_files, &["one"]).await;
    place.write("one", "new");
    place.hangups.send_modify(|hangups| *hangups += 1);
    while place.times() == 0 {
        millis(1).await;
    }
    millis(100_000).await;
    assert_eq!((place.times(), place.subject.asked.load(Ordering::Relaxed)), (1, 1));
}
