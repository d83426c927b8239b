//! Changes of policy files, as editors, git, git-sync and Kubernetes make them, in real directories.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use stillframe::clock::SystemClock;
use stillframe::files::Given;
use stillframe::watch::{Bell, FileWatcher, Files, Pace, Post, Status, System, Watch, WatchError};
use tokio::task::JoinHandle;

/// Nothing takes so long, on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(2);

const CONFIG: &str = "apiVersion: stillframe/v1\nkind: Config\nspec:\n  engines: {lab: {local: {instances: \
                      INSTANCES, store: STORE}}}\n  ledger: LEDGER\n  watch: {pollEvery: 1s}\n";

fn policy(days: u32) -> String {
    format!(
        "apiVersion: stillframe/v1\nkind: BackupPolicy\nmetadata: {{name: web}}\nspec:\n  source: {{match: \
         [{{names: [web]}}]}}\n  schedule: {{cron: \"0 2 * * *\"}}\n  retention: {{days: {days}}}\n"
    )
}

/// A directory with policies, and a watch over them.
struct Case {
    directory: tempfile::TempDir,
    root: PathBuf,
}

struct Running {
    bell: Bell,
    status: Arc<Status>,
    named: PathBuf,
    task: JoinHandle<Result<(), WatchError>>,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir(root.join("instances")).unwrap();
        Self { directory, root }
    }

    /// Writes configuration and policy into a directory, which is made.
    fn fill(&self, relative: &str, days: u32) {
        let to = self.root.join(relative);
        fs::create_dir_all(&to).unwrap();
        let path = |name: &str| self.root.join(name).display().to_string();
        let config = CONFIG
            .replace("INSTANCES", &path("instances"))
            .replace("STORE", &path("store"))
            .replace("LEDGER", &path("ledger.ndjson"));
        fs::write(to.join("stillframe.yaml"), config).unwrap();
        fs::write(to.join("web.yaml"), policy(days)).unwrap();
    }

    async fn watch(&self, relative: &str, polls: bool) -> Running {
        let named = self.root.join(relative);
        let (bell, status) = (Bell::default(), Arc::new(Status::default()));
        let clock = Arc::new(SystemClock);
        let paths = vec![named.clone()];
        let files = FileWatcher::new(paths.clone(), bell.clone(), polls);
        let settle = Duration::from_millis(20);
        let watch = Watch {
            world: Arc::new(Files::new(
                paths,
                Given::default(),
                clock.clone(),
                Box::new(|_| Ok(())),
            )),
            clock,
            bell: bell.clone(),
            status: Arc::clone(&status),
            system: System::default(),
            pace: Pace { settle, ..Pace::default() },
            author: None,
            identity: String::new(),
            grace: None,
            courier: Arc::new(Post::new(|_| None)),
            files: Some(files),
        };
        let running = Running { bell, status, named, task: tokio::spawn(watch.run()) };
        running.follows().await;
        running
    }
}

impl Running {
    /// Waits until what the files say is in force.
    async fn follows(&self) {
        let named = [self.named.clone()];
        let read = stillframe::files::load(&named, Given::default(), false, None).unwrap();
        let digest = read.loaded.policies.unwrap().digest;
        let in_force = self.status.until(|now| now.digest == digest && now.validity.is_valid);
        let waited = tokio::time::timeout(PATIENCE, in_force).await;
        assert!(waited.is_ok(), "the change was not seen");
    }

    async fn stop(self) {
        self.bell.stop();
        self.task.await.unwrap().unwrap();
    }
}

/// Puts a link in the place of another, as git-sync and Kubernetes do.
fn swap(link: &Path, target: &str) {
    let beside = link.with_file_name("..tmp");
    symlink(target, &beside).unwrap();
    fs::rename(beside, link).unwrap();
}

#[tokio::test]
async fn an_editor_that_renames_and_one_that_writes_in_place() {
    let case = Case::new();
    case.fill("policies", 5);
    let running = case.watch("policies", false).await;
    let file = case.root.join("policies/web.yaml");
    for days in [6, 7] {
        let beside = case.root.join("policies/.web.yaml.swp");
        fs::write(&beside, policy(days)).unwrap();
        fs::rename(&file, case.root.join("policies/web.yaml~")).unwrap();
        fs::rename(&beside, &file).unwrap();
        running.follows().await;
    }
    fs::write(&file, policy(8)).unwrap();
    running.follows().await;
    fs::create_dir_all(case.root.join("policies/team/deep")).unwrap();
    fs::write(case.root.join("policies/team/deep/db.yaml"), policy(9).replace("web", "db"))
        .unwrap();
    running.follows().await;
    running.stop().await;
}

#[tokio::test]
async fn a_mistake_keeps_what_is_in_force_and_is_told_with_its_line() {
    let case = Case::new();
    case.fill("policies", 5);
    let running = case.watch("policies", false).await;
    let digest = running.status.snapshot().digest;
    let file = case.root.join("policies/web.yaml");
    fs::write(&file, policy(6).replace("days:", "dys:")).unwrap();
    let invalid = running.status.until(|now| !now.validity.is_valid);
    tokio::time::timeout(PATIENCE, invalid).await.unwrap();
    let snapshot = running.status.snapshot();
    assert_eq!(snapshot.digest, digest);
    let place = format!("{}:7:", file.display());
    assert!(snapshot.validity.mistakes[0].starts_with(&place), "{:?}", snapshot.validity);
    // Also where there is nothing left to read.
    fs::rename(case.root.join("policies"), case.root.join("aside")).unwrap();
    let gone = |now: &stillframe::watch::Snapshot| now.validity.mistakes[0].contains("there is no");
    tokio::time::timeout(PATIENCE, running.status.until(gone)).await.unwrap();
    case.fill("policies", 7);
    running.follows().await;
    running.stop().await;
}

#[tokio::test]
async fn a_config_map_that_swaps_its_data() {
    let case = Case::new();
    case.fill("policies/..2026_1", 5);
    symlink("..2026_1", case.root.join("policies/..data")).unwrap();
    for file in ["stillframe.yaml", "web.yaml"] {
        symlink(format!("..data/{file}"), case.root.join("policies").join(file)).unwrap();
    }
    let running = case.watch("policies", false).await;
    for count in 2..5 {
        case.fill(&format!("policies/..2026_{count}"), 4 + count);
        swap(&case.root.join("policies/..data"), &format!("..2026_{count}"));
        fs::remove_dir_all(case.root.join(format!("policies/..2026_{}", count - 1))).unwrap();
        running.follows().await;
    }
    running.stop().await;
}

/// With `items: [{path: teams/web.yaml}]` the directory is a link, and there is none to the file.
#[tokio::test]
async fn a_config_map_with_directories_that_swaps_its_data() {
    for polls in [false, true] {
        let case = Case::new();
        let fill = |count: u32| {
            let data = format!("policies/..2026_{count}");
            case.fill(&data, 4 + count);
            let (data, teams) = (case.root.join(&data), case.root.join(&data).join("teams"));
            fs::create_dir(&teams).unwrap();
            fs::rename(data.join("web.yaml"), teams.join("web.yaml")).unwrap();
        };
        fill(1);
        symlink("..2026_1", case.root.join("policies/..data")).unwrap();
        for name in ["stillframe.yaml", "teams"] {
            symlink(format!("..data/{name}"), case.root.join("policies").join(name)).unwrap();
        }
        let running = case.watch("policies", polls).await;
        assert_eq!(running.status.snapshot().policies.len(), 1);
        for count in 2..5 {
            fill(count);
            swap(&case.root.join("policies/..data"), &format!("..2026_{count}"));
            fs::remove_dir_all(case.root.join(format!("policies/..2026_{}", count - 1))).unwrap();
            running.follows().await;
        }
        running.stop().await;
    }
}

/// What lies behind a link to elsewhere is watched there, also where the link came later, and where
/// nothing is in a directory yet.
#[tokio::test]
async fn a_linked_directory_is_watched_where_it_lies() {
    let case = Case::new();
    case.fill("policies", 5);
    fs::create_dir_all(case.root.join("teams/data")).unwrap();
    fs::write(case.root.join("teams/mail.yaml"), policy(9).replace("web", "mail")).unwrap();
    let running = case.watch("policies", false).await;
    symlink("../teams", case.root.join("policies/teams")).unwrap();
    running.follows().await;
    assert_eq!(running.status.snapshot().policies.len(), 2);
    fs::write(case.root.join("teams/data/db.yaml"), policy(9).replace("web", "db")).unwrap();
    running.follows().await;
    assert_eq!(running.status.snapshot().policies.len(), 3);
    // A link that leads nowhere any more takes nothing out of force, and is mended there.
    fs::rename(case.root.join("teams"), case.root.join("aside")).unwrap();
    let invalid = running.status.until(|now| !now.validity.is_valid);
    tokio::time::timeout(PATIENCE, invalid).await.unwrap();
    let snapshot = running.status.snapshot();
    let told = "policies/teams: the link leads to ../teams, which is not there";
    assert!(snapshot.validity.mistakes[0].contains(told), "{:?}", snapshot.validity);
    assert_eq!(snapshot.policies.len(), 3);
    fs::rename(case.root.join("aside"), case.root.join("teams")).unwrap();
    running.follows().await;
    running.stop().await;
}

/// Also where nothing was read there yet.
#[tokio::test]
async fn an_included_directory_is_watched_with_everything_below_it() {
    for polls in [false, true] {
        let case = Case::new();
        case.fill("policies", 5);
        let file = case.root.join("policies/stillframe.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}  include: [../teams]\n")).unwrap();
        let teams = case.root.join("teams");
        fs::create_dir_all(teams.join("new")).unwrap();
        let running = case.watch("policies", polls).await;
        // What is watched for the first time is read once more.
        let again = running.status.until(|now| now.validity.readings.0 > 1);
        tokio::time::timeout(PATIENCE, again).await.unwrap();
        for (count, name) in (2..).zip(["new/db", "mail"]) {
            let own = name.rsplit('/').next().unwrap();
            let file = teams.join(format!("{name}.yaml"));
            fs::write(file, policy(9).replace("web", own)).unwrap();
            running.follows().await;
            assert_eq!(running.status.snapshot().policies.len(), count);
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn a_work_tree_that_git_sync_swaps() {
    let case = Case::new();
    case.fill("git/.worktrees/1/policies", 5);
    symlink(".worktrees/1", case.root.join("git/current")).unwrap();
    let running = case.watch("git/current/policies", false).await;
    for count in 2..5 {
        case.fill(&format!("git/.worktrees/{count}/policies"), 4 + count);
        swap(&case.root.join("git/current"), &format!(".worktrees/{count}"));
        fs::remove_dir_all(case.root.join(format!("git/.worktrees/{}", count - 1))).unwrap();
        running.follows().await;
    }
    running.stop().await;
}

/// A store whose place is relative to a file that is swapped would be another one each time.
#[tokio::test]
async fn a_store_does_not_move_with_a_swapped_link() {
    let case = Case::new();
    let relative = |count: u32| {
        let policies = format!("git/.worktrees/{count}/policies");
        case.fill(&policies, 4 + count);
        let file = case.root.join(policies).join("stillframe.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let store = case.root.join("store").display().to_string();
        fs::write(file, text.replace(&store, "../store")).unwrap();
    };
    relative(1);
    symlink(".worktrees/1", case.root.join("git/current")).unwrap();
    let running = case.watch("git/current/policies", false).await;
    let digest = running.status.snapshot().digest;
    relative(2);
    swap(&case.root.join("git/current"), ".worktrees/2");
    let refused = running.status.until(|now| !now.validity.is_valid);
    tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let snapshot = running.status.snapshot();
    assert!(snapshot.validity.mistakes[0].contains("write an absolute path"), "{snapshot:?}");
    assert_eq!(snapshot.digest, digest);
    running.stop().await;
}

#[tokio::test]
async fn a_pull() {
    let case = Case::new();
    let git = |directory: &str, arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=test", "-c", "user.email=test@example.org"]);
        let run = git.args(arguments).current_dir(case.root.join(directory)).output().unwrap();
        assert!(run.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&run.stderr));
    };
    case.fill("origin/policies", 5);
    git("origin", &["init", "-q"]);
    git("origin", &["add", "."]);
    git("origin", &["commit", "-qm", "first"]);
    git(".", &["clone", "-q", "origin", "clone"]);
    let running = case.watch("clone/policies", false).await;
    for days in 6..8 {
        case.fill("origin/policies", days);
        git("origin", &["commit", "-qam", "another"]);
        git("clone", &["pull", "-q"]);
        running.follows().await;
    }
    running.stop().await;
}

/// The system tells of what was watched, which is elsewhere then; the clock is the paused one.
#[tokio::test(start_paused = true)]
async fn a_tree_that_is_swapped_above_what_was_named_is_seen_after_a_while() {
    let case = Case::new();
    case.fill("tree/policies", 5);
    let running = case.watch("tree/policies", false).await;
    // What is new to be watched is read once more.
    tokio::time::sleep(Duration::from_mins(1)).await;
    let before = running.status.snapshot().digest;
    case.fill("other/policies", 9);
    fs::rename(case.root.join("tree"), case.root.join("aside")).unwrap();
    fs::rename(case.root.join("other"), case.root.join("tree")).unwrap();
    tokio::time::sleep(Duration::from_hours(2)).await;
    assert_ne!(running.status.snapshot().digest, before);
    // And what is there now is watched: in the time of this machine nothing else looks at it soon.
    tokio::time::resume();
    fs::write(case.root.join("tree/policies/web.yaml"), policy(10)).unwrap();
    running.follows().await;
    running.stop().await;
}

#[tokio::test]
async fn where_nothing_is_told_files_are_looked_at() {
    let case = Case::new();
    case.fill("policies", 5);
    let running = case.watch("policies", true).await;
    for days in 6..8 {
        fs::write(case.root.join("policies/web.yaml"), policy(days)).unwrap();
        running.follows().await;
    }
    running.stop().await;
    drop(case.directory);
}
